// Bundles the tests (Node 20 runs no TypeScript) and runs them against a real server. `npm test -- --test-name-pattern=…`
import { spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));
process.chdir(root);
rmSync(".build/tests", { recursive: true, force: true });
const tests = readdirSync("tests").filter((name) => name.endsWith(".test.ts"));
await build({
  entryPoints: tests.map((name) => `tests/${name}`),
  outdir: ".build/tests",
  outExtension: { ".js": ".mjs" },
  bundle: true,
  platform: "node",
  format: "esm",
  packages: "external",
  sourcemap: "inline",
});
const files = tests.map((name) => `.build/tests/${name.replace(/\.ts$/, ".mjs")}`);
const run = spawnSync(
  process.execPath,
  ["--enable-source-maps", "--test", "--test-concurrency=3", "--test-timeout=180000", ...process.argv.slice(2), ...files],
  { stdio: "inherit" },
);
process.exit(run.status ?? 1);
