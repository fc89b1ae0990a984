/**
 * abs-max: the largest magnitude of each run, or of each column.
 *
 *   out[run] = max over the run of |x|          absMax
 *   out[c]   = max(out[c], |x[r, c]|)           absMaxColumns, a fold over row blocks
 *
 * A tensor's abs-max is that of one run. Values are finite by contract; the
 * twins report the largest magnitude met, so that callers can refuse NaN and
 * infinity without another pass.
 * @module
 */
import { checkFinite, checkRuns, forEachRun, type RunShape, type Stored } from "../runs.ts";
import { wasm } from "../generated/abs-max.wasm.ts";
import type { Workspace } from "../load-wasm.ts";

/**
 * @param x - finite, shape [rows, cols].
 * @param out - receives one magnitude per run, ≥ 0, unit of `x`.
 * @throws {InputError} `input.shape`; {NumericError} `numeric.not-finite` with the first such index.
 */
export function absMax(x: Float32Array, shape: RunShape, out: Float32Array): void {
  checkRuns("absMax", shape, x.length, out.length);
  checkFinite("absMax", x);
  forEachRun(shape, (run, start, end) => {
    let best = 0;
    for (let i = start; i < end; i++) best = Math.max(best, Math.abs(x[i]!));
    out[run] = best;
  });
}

/**
 * @param x - finite, shape [rows, cols].
 * @param out - shape [cols], ≥ 0; raised to the magnitudes of its columns.
 * @throws {InputError} `input.shape`; {NumericError} `numeric.not-finite` with the first such index.
 */
export function absMaxColumns(x: Float32Array, rows: number, cols: number, out: Float32Array): void {
  checkRuns("absMaxColumns", { rows: cols, cols: rows, group: Math.max(rows, 1) }, x.length, out.length);
  checkFinite("absMaxColumns", x);
  for (let i = 0; i < x.length; i++) out[i % cols] = Math.max(out[i % cols]!, Math.abs(x[i]!));
}

interface AbsMaxKernel {
  readonly absMaxBf16: (x: number, rows: number, cols: number, group: number, out: number) => number;
  readonly absMaxF32: (x: number, rows: number, cols: number, group: number, out: number) => number;
  readonly absMaxColumns: (x: number, rows: number, cols: number, out: number) => number;
}

/** SIMD twin of `absMax` over byte offsets of a workspace. @returns f32 bits of the largest magnitude met; ≥ `INFINITY_BITS` when not finite. */
export function absMaxAt(workspace: Workspace, stored: Stored, x: number, { rows, cols, group }: RunShape, out: number): number {
  const kernel = workspace.kernel<AbsMaxKernel>(wasm);
  return (stored === "bf16" ? kernel.absMaxBf16 : kernel.absMaxF32)(x, rows, cols, group, out) >>> 0;
}

/** SIMD twin of `absMaxColumns`; values are f32. @returns as `absMaxAt`. */
export function absMaxColumnsAt(workspace: Workspace, x: number, rows: number, cols: number, out: number): number {
  return workspace.kernel<AbsMaxKernel>(wasm).absMaxColumns(x, rows, cols, out) >>> 0;
}
