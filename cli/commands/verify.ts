/**
 * `verify`: re-read an artifact and say whether it is what it claims to be.
 * @module
 */
import { access } from "node:fs/promises";
import type { Command } from "commander";
import { InputError } from "../../core/errors.ts";
import { EXIT, ReportedExit } from "../exit-codes.ts";
import { createReporter, type GlobalOptions, type Io } from "../io.ts";

interface VerifyOptions extends GlobalOptions {
  readonly source?: string;
}

const EXAMPLES = `
Examples:
  $ bitwright verify ./llama-w8a8
  $ bitwright verify ./llama-w8a8 --source ./llama --json

Checks every tensor's sha256 against the manifest, re-reads all codes and scales, and with --source compares the
dequantized weights with the model they came from. Exit code 4 when something is wrong.`;

export function addVerify(program: Command, io: Io): void {
  program
    .command("verify <artifact>")
    .description("re-read an artifact: checksums, structure, and distance to its source")
    .option("--source <model>", "model the artifact was made from")
    .addHelpText("after", EXAMPLES)
    .action((path: string, options: VerifyOptions) => runVerify(path, options, io));
}

async function runVerify(path: string, options: VerifyOptions, io: Io): Promise<void> {
  const reporter = createReporter(io, options);
  await access(path).catch((cause: unknown) => {
    throw new InputError("input.path", `${path}: no such file or directory`, { path }, { cause });
  });
  const { verifyArtifact } = await import("../../quantize/verify.ts");
  const report = await verifyArtifact(path, {
    ...(options.source === undefined ? {} : { source: options.source }),
    signal: reporter.signal,
    onProgress: reporter.progress.report,
  });
  const { palette } = reporter;
  // Scripts read "worst" whether or not a source was given.
  reporter.result({ ...report, worst: report.worst ?? null }, () =>
    [
      `${report.ok ? palette.green("ok") : palette.red("not ok")}: ${report.tensors} tensors in ${path}`,
      ...(report.worst === undefined ? [] : [`worst: ${report.worst.tensor}, SQNR ${report.worst.sqnr.toFixed(2)} dB`]),
      ...report.problems.map(({ tensor, problem }) => `  ${tensor}: ${problem}`),
    ].join("\n"),
  );
  if (!report.ok) {
    throw new ReportedExit(EXIT.verificationFailed, `${path} has ${report.problems.length} problems; quantize it again from its source`);
  }
}
