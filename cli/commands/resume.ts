/**
 * `resume`: continue an interrupted quantize from its output directory alone.
 * @module
 */
import type { Command } from "commander";
import { createReporter, type GlobalOptions, type Io } from "../io.ts";
import { workerCount } from "./engine-options.ts";
import { printOutcome } from "./quantize-result.ts";

interface ResumeOptions extends GlobalOptions {
  readonly workers?: string;
}

const EXAMPLES = `
Examples:
  $ bitwright resume ./llama-w8a8

The journal in the directory knows the source and the recipe; the result has the same bytes as an uninterrupted run.`;

export function addResume(program: Command, io: Io): void {
  program
    .command("resume <out>")
    .description("continue an interrupted quantize")
    .option("--workers <n>", "threads and workers; never changes results; default: all cores")
    .addHelpText("after", EXAMPLES)
    .action(async (out: string, options: ResumeOptions) => {
      const reporter = createReporter(io, options);
      const { resume } = await import("../../quantize/quantize.ts");
      const job = resume(out, {
        workers: workerCount(options.workers),
        signal: reporter.signal,
        onProgress: reporter.progress.report,
      });
      await printOutcome(job, reporter);
    });
}
