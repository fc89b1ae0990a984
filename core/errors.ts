/**
 * Errors: few classes, by who can act on them; many codes, by cause.
 *
 * `code` is stable and part of the public API; `message` is for people and
 * names both values that disagree, where, and what to do next.
 * @module
 */

/** The values named in a message, for programs. */
export type ErrorDetails = Readonly<Record<string, unknown>>;

/** Every error this library throws on purpose. */
export abstract class QuantError extends Error {
  /** Machine-readable cause, e.g. `"input.shape"`. */
  abstract readonly code: string;
  readonly details: ErrorDetails;

  constructor(message: string, details: ErrorDetails = {}, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.details = details;
  }
}

export type InputCode =
  "input.shape" | "input.dtype" | "input.option" | "input.value" | "input.path" | "input.data" | "input.output-exists" | "input.no-data";
/** The caller passed something this function cannot accept. */
export class InputError extends QuantError {
  readonly code: InputCode;
  constructor(code: InputCode, message: string, details?: ErrorDetails, options?: ErrorOptions) {
    super(message, details, options);
    this.code = code;
  }
}

export type FormatCode =
  | "format.magic"
  | "format.truncated"
  | "format.limit"
  | "format.field"
  | "format.overlap"
  | "format.duplicate"
  | "format.path"
  | "format.missing"
  | "format.pickle"
  | "format.config"
  | "format.checksum";
/** A file breaks its format: whoever made it can act. */
export class FormatError extends QuantError {
  readonly code: FormatCode;
  constructor(code: FormatCode, message: string, details?: ErrorDetails, options?: ErrorOptions) {
    super(message, details, options);
    this.code = code;
  }
}

export type NumericCode = "numeric.not-finite" | "numeric.singular" | "numeric.no-data";
/** The numbers do not allow it: more or better data, or another setting, may. */
export class NumericError extends QuantError {
  readonly code: NumericCode;
  constructor(code: NumericCode, message: string, details?: ErrorDetails, options?: ErrorOptions) {
    super(message, details, options);
    this.code = code;
  }
}

export type UnsupportedCode =
  | "unsupported.dtype"
  | "unsupported.encoding"
  | "unsupported.backend"
  | "unsupported.architecture"
  | "unsupported.operator"
  | "unsupported.scheme"
  | "unsupported.format";
/** Well-formed, but not something this version can do. */
export class UnsupportedError extends QuantError {
  readonly code: UnsupportedCode;
  constructor(code: UnsupportedCode, message: string, details?: ErrorDetails, options?: ErrorOptions) {
    super(message, details, options);
    this.code = code;
  }
}

export type BudgetCode = "budget.memory" | "budget.disk";
/** The work does not fit the memory or disk it was given. */
export class BudgetError extends QuantError {
  readonly code: BudgetCode;
  constructor(code: BudgetCode, message: string, details?: ErrorDetails, options?: ErrorOptions) {
    super(message, details, options);
    this.code = code;
  }
}

export type VerifyCode = "verify.mismatch" | "verify.checksum" | "verify.gate";
/** An artifact is not what it was meant to be (`verify.*`), or a quality gate was missed (`verify.gate`). */
export class VerifyError extends QuantError {
  readonly code: VerifyCode;
  constructor(code: VerifyCode, message: string, details?: ErrorDetails, options?: ErrorOptions) {
    super(message, details, options);
    this.code = code;
  }
}

/** A worker thread ended without an answer (out of memory, killed, a broken install): nothing in the input caused it. */
export class WorkerError extends QuantError {
  readonly code = "worker.crashed";
}

/** The caller asked to stop, through an AbortSignal or Ctrl-C; finished work is kept. */
export class InterruptedError extends QuantError {
  readonly code = "interrupted";
}

/** @throws {InterruptedError} when `signal` is aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new InterruptedError("interrupted; run the same command again to continue");
}
