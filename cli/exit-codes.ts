/**
 * Exit codes: what a script can act on without reading text.
 * @module
 */
import { BudgetError, FormatError, InputError, InterruptedError, NumericError, UnsupportedError, VerifyError } from "../core/errors.ts";

export const EXIT = {
  ok: 0,
  unexpected: 1,
  usage: 2,
  gateMissed: 3,
  verificationFailed: 4,
  overBudget: 5,
  unsupported: 6,
  badInput: 7,
  interrupted: 130,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** The exit code that says what went wrong. */
export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof InterruptedError) return EXIT.interrupted;
  if (error instanceof VerifyError) return error.code === "verify.gate" ? EXIT.gateMissed : EXIT.verificationFailed;
  if (error instanceof BudgetError) return EXIT.overBudget;
  if (error instanceof UnsupportedError) return EXIT.unsupported;
  if (error instanceof FormatError || error instanceof NumericError) return EXIT.badInput;
  if (error instanceof InputError) return error.code === "input.data" ? EXIT.badInput : EXIT.usage;
  return EXIT.unexpected;
}

/** Thrown after a result was printed that is itself the bad news: sets the exit code, prints one line on stderr. */
export class ReportedExit extends Error {
  readonly exitCode: ExitCode;
  constructor(exitCode: ExitCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
  }
}
