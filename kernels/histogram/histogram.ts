/**
 * histogram: counts of values in bins of equal width.
 *
 *   bin = clamp(trunc(f32(f32(x − low) · inverseWidth)), 0, bins − 1)
 *   counts[bin] += 1
 *
 * Values below `low` count in the first bin, values above the end in the last.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { clamp } from "../../core/round.ts";
import { checkFinite } from "../runs.ts";
import { wasm } from "../generated/histogram.wasm.ts";
import { threadWorkspace } from "../load-wasm.ts";

/** Where bins lie. */
export interface HistogramBins {
  /** Lower edge of the first bin, f32. */
  readonly low: number;
  /** Bins per unit of x, f32, > 0. */
  readonly inverseWidth: number;
}

/**
 * @param x - finite. @param counts - one per bin, at least one; added to.
 * @throws {InputError} `input.shape` without bins; {NumericError} `numeric.not-finite` with the first such index.
 */
export function histogram(x: Float32Array, { low, inverseWidth }: HistogramBins, counts: Uint32Array): void {
  checkHistogram(x, counts);
  const [start, inverse] = [Math.fround(low), Math.fround(inverseWidth)];
  for (const value of x) {
    const position = Math.fround(Math.fround(value - start) * inverse);
    counts[clamp(Math.trunc(position), 0, counts.length - 1)]! += 1;
  }
}

function checkHistogram(x: Float32Array, counts: Uint32Array): void {
  if (counts.length === 0) throw new InputError("input.shape", "a histogram needs at least one bin");
  checkFinite("histogram", x);
}

interface HistogramKernel {
  readonly histogram: (x: number, count: number, low: number, inverseWidth: number, bins: number, counts: number) => void;
}

const TILE = 65536;

/** SIMD twin of `histogram`, through the workspace of this thread. */
export function histogramFast(x: Float32Array, { low, inverseWidth }: HistogramBins, counts: Uint32Array): void {
  checkHistogram(x, counts);
  const workspace = threadWorkspace();
  const mark = workspace.mark();
  const values = workspace.take(4 * Math.min(TILE, x.length));
  const bins = workspace.take(counts.byteLength);
  const inside = new Uint32Array(workspace.memory.buffer, bins.at, counts.length);
  inside.set(counts);
  for (let done = 0; done < x.length; done += TILE) {
    const tile = x.subarray(done, done + TILE);
    workspace.f32(values).set(tile);
    workspace.kernel<HistogramKernel>(wasm).histogram(values.at, tile.length, low, inverseWidth, counts.length, bins.at);
  }
  counts.set(inside);
  workspace.release(mark);
}
