/**
 * Errors across threads: structured clone keeps an error's text but not its
 * class, code or details, so workers send those as data.
 * @module
 */
import {
  BudgetError,
  FormatError,
  InputError,
  InterruptedError,
  NumericError,
  QuantError,
  UnsupportedError,
  VerifyError,
  WorkerError,
  type ErrorDetails,
} from "../core/errors.ts";

/** An error as a message. */
export interface PackedError {
  readonly message: string;
  readonly stack: string;
  /** A code of ours, or of the system (`ENOENT`). */
  readonly code: string;
  /** Whether it was a QuantError. */
  readonly known: boolean;
  readonly details: ErrorDetails;
}

export function packError(error: unknown): PackedError {
  const { message, stack = "" } = error instanceof Error ? error : new Error(String(error));
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const known = error instanceof QuantError;
  return { message, stack, code, known, details: known ? (JSON.parse(JSON.stringify(error.details)) as ErrorDetails) : {} };
}

/** The same class, code, message and details; the worker's stack is kept. */
export function unpackError(packed: PackedError): Error {
  const error = create(packed);
  error.stack = packed.stack;
  return error;
}

function create({ message, code, known, details }: PackedError): Error {
  if (!known) return Object.assign(new Error(message), code === "" ? {} : { code });
  // The code was written by this library's own classes in the worker.
  const family = code.split(".")[0];
  if (family === "input") return new InputError(code as InputError["code"], message, details);
  if (family === "format") return new FormatError(code as FormatError["code"], message, details);
  if (family === "numeric") return new NumericError(code as NumericError["code"], message, details);
  if (family === "unsupported") return new UnsupportedError(code as UnsupportedError["code"], message, details);
  if (family === "budget") return new BudgetError(code as BudgetError["code"], message, details);
  if (family === "verify") return new VerifyError(code as VerifyError["code"], message, details);
  if (family === "interrupted") return new InterruptedError(message, details);
  return new WorkerError(message, { ...details, code });
}
