/**
 * `export`: an artifact in another form.
 * @module
 */
import type { Command } from "commander";
import { createReporter, type GlobalOptions, type Io } from "../io.ts";
import { formatBytes } from "../text.ts";

interface ExportOptions extends GlobalOptions {
  readonly to: string;
  readonly out: string;
  readonly force?: boolean;
}

const EXAMPLES = `
Examples:
  $ bitwright export ./llama-w8a8 --to float --out ./llama-dequantized`;

export function addExport(program: Command, io: Io): void {
  program
    .command("export <artifact>")
    .description("write an artifact in another form; `bitwright formats` lists them")
    .requiredOption("--to <format>", "target format")
    .requiredOption("--out <dir>", "directory to write")
    .option("--force", "replace an existing artifact in --out")
    .addHelpText("after", EXAMPLES)
    .action(async (path: string, options: ExportOptions) => {
      const reporter = createReporter(io, options);
      const { exportArtifact } = await import("../../quantize/export.ts");
      const written = await exportArtifact(path, {
        to: options.to,
        out: options.out,
        force: options.force === true,
        signal: reporter.signal,
        onProgress: reporter.progress.report,
      });
      reporter.result(written, () => `wrote ${written.directory} (${written.format}): ${formatBytes(written.bytes)}`);
    });
}
