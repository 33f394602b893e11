// Builds the page at `/` into the server's package. `--check`: builds it elsewhere and fails if the committed one differs.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, copyFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));
process.chdir(root);
const home = "../../server/upload_server/doors/http/console";
const checking = process.argv.includes("--check");
const out = checking ? mkdtempSync(join(tmpdir(), "console-")) : home;
mkdirSync(out, { recursive: true });

await build({
  entryPoints: { app: "console/app.ts", ticker: "console/ticker-worker.ts" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome120", "firefox125", "safari17.4"],
  charset: "utf8",
  legalComments: "none",
});
await build({ entryPoints: { app: "console/app.css" }, outdir: out, bundle: true, minify: true, external: ["icon.svg"], target: ["chrome120", "firefox125", "safari17.4"] });
for (const name of ["index.html", "icon.svg"]) copyFileSync(`console/${name}`, join(out, name));

if (checking) {
  const stale = readdirSync(out).filter((name) => !readFileSync(join(out, name)).equals(committed(name)));
  rmSync(out, { recursive: true });
  if (stale.length > 0) {
    console.error(`The page in the server's package is not what its source says (${stale.join(", ")}): run 'make console' and commit.`);
    process.exit(1);
  }
}

function committed(name) {
  try {
    return readFileSync(join(home, name));
  } catch {
    return Buffer.from("missing");
  }
}
