#!/usr/bin/env node
/**
 * The bin: connects the process to `runCli`. Nothing else in the project
 * touches signals or exit codes.
 * @module
 */
import { EXIT } from "./exit-codes.ts";
import { runCli } from "./run.ts";

const controller = new AbortController();
let interrupts = 0;
const interrupt = (): void => {
  interrupts++;
  if (interrupts > 1) process.exit(EXIT.interrupted);
  process.stderr.write("\ninterrupted: stopping at the next safe point; press Ctrl-C again to stop at once\n");
  controller.abort();
};
process.on("SIGINT", interrupt);
process.on("SIGTERM", interrupt);
// A reader that went away (`| head`) is not an error of ours.
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(EXIT.ok);
    throw error;
  });
}

const code = await runCli(process.argv.slice(2), {
  stdout: (text) => process.stdout.write(text),
  stderr: (text) => process.stderr.write(text),
  stdoutIsTerminal: process.stdout.isTTY,
  stderrIsTerminal: process.stderr.isTTY,
  columns: process.stderr.columns ?? 100,
  environment: process.env,
  signal: controller.signal,
});
process.exitCode = code;
// Engines keep native threads alive; flush what is written, then leave.
await Promise.all([process.stdout, process.stderr].map((stream) => new Promise((resolve) => stream.write("", resolve))));
process.exit(code);
