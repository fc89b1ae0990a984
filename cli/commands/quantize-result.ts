/**
 * The outcome of a quantize job, printed: also when it misses its gate, for then the figures matter most.
 * @module
 */
import { VerifyError } from "../../core/errors.ts";
import type { QuantizeReport } from "../../quantize/types.ts";
import { EXIT, ReportedExit } from "../exit-codes.ts";
import type { Reporter } from "../io.ts";
import { reportText } from "./quantize-text.ts";

/**
 * @param notes - for the report's warnings.
 * @throws {ReportedExit} when the artifact was written but misses the gate.
 */
export async function printOutcome(job: Promise<QuantizeReport>, reporter: Reporter, notes: readonly string[] = []): Promise<void> {
  const print = (report: QuantizeReport, verdict: object = {}): void => {
    const whole = { ...report, warnings: [...report.warnings, ...notes], ...verdict };
    reporter.result(whole, () => reportText(whole, reporter.palette));
  };
  try {
    print(await job);
  } catch (error) {
    if (!(error instanceof VerifyError) || error.code !== "verify.gate") throw error;
    const { report, ...details } = error.details;
    if (report === undefined) throw error;
    print(report as QuantizeReport, { error: { message: error.message, code: error.code, details }, exitCode: EXIT.gateMissed });
    throw new ReportedExit(EXIT.gateMissed, `${reporter.palette.red("error")} [${error.code}]: ${error.message}`, { cause: error });
  }
}
