/**
 * min-max: the smallest and the largest value of each run.
 *
 *   low[run]  = min over the run of x
 *   high[run] = max over the run of x
 *
 * A zero comes out as +0, whatever its sign was. Values are finite by contract.
 * @module
 */
import { checkFinite, checkRuns, forEachRun, type RunShape, type Stored } from "../runs.ts";
import { wasm } from "../generated/min-max.wasm.ts";
import type { Workspace } from "../load-wasm.ts";

/**
 * @param x - finite, shape [rows, cols].
 * @param low - receives one minimum per run. @param high - receives one maximum per run.
 * @throws {InputError} `input.shape`; {NumericError} `numeric.not-finite` with the first such index.
 */
export function minMax(x: Float32Array, shape: RunShape, low: Float32Array, high: Float32Array): void {
  checkRuns("minMax", shape, x.length, low.length);
  checkRuns("minMax", shape, x.length, high.length);
  checkFinite("minMax", x);
  forEachRun(shape, (run, start, end) => {
    let [least, most] = [Infinity, -Infinity];
    for (let i = start; i < end; i++) {
      least = Math.min(least, x[i]!);
      most = Math.max(most, x[i]!);
    }
    low[run] = least + 0;
    high[run] = most + 0;
  });
}

interface MinMaxKernel {
  readonly minMaxBf16: (x: number, rows: number, cols: number, group: number, low: number, high: number) => number;
  readonly minMaxF32: (x: number, rows: number, cols: number, group: number, low: number, high: number) => number;
}

/** SIMD twin over byte offsets of a workspace. @returns f32 bits of the largest magnitude met; ≥ `INFINITY_BITS` when not finite. */
export function minMaxAt(
  workspace: Workspace,
  stored: Stored,
  x: number,
  { rows, cols, group }: RunShape,
  low: number,
  high: number,
): number {
  const kernel = workspace.kernel<MinMaxKernel>(wasm);
  return (stored === "bf16" ? kernel.minMaxBf16 : kernel.minMaxF32)(x, rows, cols, group, low, high) >>> 0;
}
