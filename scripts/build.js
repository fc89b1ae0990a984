// Builds everything git does not track: WASM kernels, vendored engines, dist/.
// Each step is a module with one exported function, so that tests and CI can run one alone.
import { chmodSync, cpSync, existsSync, rmSync, statSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { buildKernels } from "./build-kernels.js";
import { buildEngines } from "./build-engines.js";

const root = dirname(import.meta.dirname);
process.chdir(root);
const only = process.argv[2];

if (only === undefined || only === "kernels") await buildKernels();
if (only === undefined || only === "engines") await buildEngines();
if (only === undefined || only === "dist") {
  rmSync("dist", { recursive: true, force: true });
  const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin", "tsc");
  execFileSync(process.execPath, [tsc, "-p", "tsconfig.build.json"], { stdio: "inherit" });
  // tsc compiles generated .ts files, but does not copy the engines' .js and .wasm files.
  if (existsSync("model/engines/generated")) cpSync("model/engines/generated", "dist/model/engines/generated", { recursive: true });
  // Decoders in other languages and their browser page, which go beside artifacts as they are.
  const emitted = /\.(c|cu|h|html|mjs|wgsl)$/;
  cpSync("kernels", "dist/kernels", { recursive: true, filter: (path) => statSync(path).isDirectory() || emitted.test(path) });
  if (existsSync("dist/cli/main.js")) chmodSync("dist/cli/main.js", 0o755);
}
