/**
 * Runs: how kernels cut a row-major matrix into pieces that share a scale.
 *
 * Each row is cut into runs of `group` columns, the last one shorter when
 * `group` does not divide `cols`; runs are numbered row by row. A group as long
 * as the row gives one run a row (channel granularity).
 * @module
 */
import { InputError, NumericError } from "../core/errors.ts";

export interface RunShape {
  readonly rows: number;
  readonly cols: number;
  /** Columns per run, at least 1. */
  readonly group: number;
}

/** Runs of the whole matrix. */
export function runCount({ rows, cols, group }: RunShape): number {
  return rows * Math.ceil(cols / group);
}

/** @throws {InputError} `input.shape` when `values` is not rows · cols or `results` is not the number of runs. */
export function checkRuns(op: string, shape: RunShape, values: number, results: number): void {
  const { rows, cols, group } = shape;
  const whole = [rows, cols, group].every(Number.isInteger) && rows >= 0 && cols >= 0 && group >= 1;
  if (!whole || values !== rows * cols || results !== runCount(shape)) {
    throw new InputError(
      "input.shape",
      `${op}: ${values} values and ${results} runs must be ${rows} × ${cols} in runs of ${group}: ${rows * cols} and ${runCount(shape)}`,
      { ...shape, values, results },
    );
  }
}

/** Calls `visit(run, start, end)` for each run, in order; `start` and `end` are indices into the values. */
export function forEachRun({ rows, cols, group }: RunShape, visit: (run: number, start: number, end: number) => void): void {
  let run = 0;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c += group) visit(run++, r * cols + c, r * cols + Math.min(c + group, cols));
  }
}

/** Index of the first NaN or infinity, −1 when there is none. */
export function firstNotFinite(x: Float32Array): number {
  return x.findIndex((value) => !Number.isFinite(value));
}

/** @throws {NumericError} `numeric.not-finite` naming the first value that is not finite. */
export function checkFinite(op: string, x: Float32Array): void {
  const index = firstNotFinite(x);
  if (index >= 0) throw new NumericError("numeric.not-finite", `${op}: value ${index} is ${x[index]}`, { index });
}

/** f32 bits from which on a magnitude is not a finite number: what the SIMD twins return as the largest one met. */
export const INFINITY_BITS = 0x7f800000;

/** How values lie in a workspace: bf16 patterns, which kernels read directly, or f32. */
export type Stored = "bf16" | "f32";
