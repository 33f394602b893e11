// Fails on a circle of imports, types included, among the sources of the client and of the page.
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const importsOf = (file) =>
  [...readFileSync(file, "utf8").matchAll(/^(?:import|export|\} from)\b[^;]*?"(\.[^"]*)\.js"/gm)].map(([, to]) => join(dirname(file), `${to}.ts`));
const done = new Set();
function walk(file, path) {
  if (path.includes(file)) throw new Error(`imports run in a circle: ${[...path.slice(path.indexOf(file)), file].join(" -> ")}`);
  if (!done.has(file)) for (const next of importsOf(file)) walk(next, [...path, file]);
  done.add(file);
}
for (const folder of ["src", "console"]) {
  for (const name of readdirSync(folder)) if (name.endsWith(".ts")) walk(join(folder, name), []);
}
