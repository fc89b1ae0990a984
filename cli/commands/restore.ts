/**
 * `restore`: a lossless artifact back to the files it was made from.
 * @module
 */
import type { Command } from "commander";
import { InputError } from "../../core/errors.ts";
import { createReporter, type GlobalOptions, type Io } from "../io.ts";
import { formatBytes, formatDuration } from "../text.ts";
import { workerCount } from "./engine-options.ts";

interface RestoreOptions extends GlobalOptions {
  readonly out?: string;
  readonly workers?: string;
}

const EXAMPLES = `
Examples:
  $ bitwright restore ./llama-df11 --out ./llama
  $ bitwright restore ./llama-df11 --out ./llama --json

The files come back byte for byte, headers included; the sha256 printed for each is the one a model hub lists. Every
tensor is checked before a file gets its name: damage is an error that names the unit, and leaves nothing behind.`;

export function addRestore(program: Command, io: Io): void {
  program
    .command("restore <artifact>")
    .description("a lossless artifact back to its source files, byte for byte")
    .option("--out <dir>", "directory to write; must not exist or be empty")
    .option("--workers <n>", "threads; never changes results; default: all cores")
    .addHelpText("after", EXAMPLES)
    .action(async (artifact: string, options: RestoreOptions) => {
      const reporter = createReporter(io, options);
      if (options.out === undefined) throw new InputError("input.option", "restore needs --out <dir>, the directory to write");
      const { restore } = await import("../../quantize/lossless/restore.ts");
      const report = await restore(artifact, {
        out: options.out,
        workers: workerCount(options.workers),
        signal: reporter.signal,
        onProgress: reporter.progress.report,
      });
      reporter.result(report, () =>
        [
          ...report.files.map(({ name, bytes, sha256 }) => `${sha256}  ${name} (${formatBytes(bytes)})`),
          `${reporter.palette.green("restored")} ${report.files.length} weight files and ${report.others.length} others to ${report.directory}: ${formatBytes(report.bytes)} in ${formatDuration(report.seconds)}`,
          ...report.notes.map((note) => `${reporter.palette.yellow("note")}: ${note}`),
        ].join("\n"),
      );
    });
}
