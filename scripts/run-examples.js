// Runs every example as a user would, against the built package. An example that fails or takes over a minute fails the run.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";

const root = dirname(import.meta.dirname);
const files = readdirSync(join(root, "examples"))
  .filter((name) => /^\d\d-.*\.(js|ts)$/.test(name))
  .toSorted();
let failed = 0;
for (const file of files) {
  const start = performance.now();
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--import", "tsx", join("examples", file)], {
    cwd: root,
    encoding: "utf8",
    timeout: 60_000,
  });
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const ok = status === 0 && stdout.trim() !== "";
  console.log(`${ok ? "ok  " : "FAIL"} ${file} (${seconds} s)\n${stdout.replace(/^/gm, "     ")}`);
  if (!ok) {
    failed++;
    console.error(stderr);
  }
}
console.log(`${files.length - failed} passed, ${failed} failed`);
process.exitCode = failed === 0 && files.length > 0 ? 0 : 1;
