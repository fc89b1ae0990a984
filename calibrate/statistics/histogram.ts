/**
 * histogram: how often values of each size occur at a site, over all channels and tokens.
 *
 * Bins are fixed, so histograms of any shards add up exactly and memory does not
 * grow: 32 equal steps per power of two, from 2^-24 to 2^40, on either side of one bin
 * around zero. Neighbouring edges differ by 1/64 to 1/32 of the value.
 *
 *   bin ZERO_BIN               |x| < 2^-24
 *   bin ZERO_BIN + 1 + k       2^-24 · 2^floor(k/32) · (1 + (k mod 32)/32) ≤ x < next edge
 *   bin ZERO_BIN - 1 - k       the same for -x
 * @module
 */
import { NumericError } from "../../core/errors.ts";
import { tensorOf } from "../../core/tensor.ts";
import {
  addCountsAt,
  countFloatsAt,
  flipOrder,
  histogramStateBytes,
  startHistogramAt,
  type FloatBins,
} from "../../kernels/float-histogram/float-histogram.ts";
import { createWorkspace, type Workspace } from "../../kernels/load-wasm.ts";
import { floatsOf } from "../../model/host-tensor.ts";
import type { Statistic } from "../statistic.ts";

const STEPS = 32;
const LOW_EXPONENT = -24;
const HIGH_EXPONENT = 40;
const SIDE = (HIGH_EXPONENT - LOW_EXPONENT) * STEPS;
/** The bin around zero. */
export const ZERO_BIN = SIDE;
/** Bins of a histogram. */
export const HISTOGRAM_BINS: number = 2 * SIDE + 1;
/** An f32's exponent and 5 highest mantissa bits count the steps of 1/32 from 2^-127. NaN and values above the range are in the outermost bins. */
const BINS: FloatBins = { droppedBits: 23 - 5, firstStep: (127 + LOW_EXPONENT) * STEPS, side: SIDE };

/** State: counts, shape [HISTOGRAM_BINS], exact up to 2^53. */
export const histogram: Statistic<Float64Array> = {
  name: "histogram",
  summary: `counts of values by size, F64 [${HISTOGRAM_BINS}]: 32 steps per power of two on both sides of zero; gives percentiles`,
  create: () => new Float64Array(HISTOGRAM_BINS),
  update(state, [values]) {
    countValues(floatsOf(values!, "activations"), state);
    return state;
  },
  merge: (a, b) => a.map((count, i) => count + b[i]!),
  finish: (state) => ({ "": tensorOf(state, [HISTOGRAM_BINS]) }),
};

/** Values copied to the kernel at a time: few enough to stay in the nearest caches. */
const TILE = 16384;
let workspace: Workspace | undefined;

/**
 * Add values to a histogram and find their extrema, in one reading of memory.
 *
 * @param counts - shape [HISTOGRAM_BINS], added to.
 * @returns the extrema, of which one is not finite where a value is not; without values Infinity and -Infinity.
 */
export function countValues(values: Float32Array, counts: Float64Array): { readonly min: number; readonly max: number } {
  if (values.length === 0) return { min: Infinity, max: -Infinity };
  workspace ??= createWorkspace(4, { shared: false });
  const mark = workspace.mark();
  try {
    const [tile, state, sums] = [workspace.take(4 * TILE), workspace.take(histogramStateBytes(BINS)), workspace.take(8 * HISTOGRAM_BINS)];
    startHistogramAt(workspace, BINS, state.at);
    const inside = workspace.f32(tile);
    for (let done = 0; done < values.length; done += TILE) {
      const part = values.subarray(done, done + TILE);
      inside.set(part);
      countFloatsAt(workspace, tile.at, part.length, BINS, state.at);
    }
    const added = workspace.f64(sums).fill(0);
    const { least, largest } = addCountsAt(workspace, BINS, state.at, sums.at);
    for (let bin = 0; bin < HISTOGRAM_BINS; bin++) counts[bin]! += added[bin]!;
    return { min: valueOfOrder(least), max: valueOfOrder(largest) };
  } finally {
    workspace.release(mark);
  }
}

/** The value of an order; zeros of both signs are +0. */
function valueOfOrder(order: number): number {
  return new Float32Array(Int32Array.of(flipOrder(order)).buffer)[0]! + 0;
}

/** Lower edge of magnitude bin `k`. */
function edge(k: number): number {
  return 2 ** (LOW_EXPONENT + Math.floor(k / STEPS)) * (1 + (k % STEPS) / STEPS);
}

/** Lower and upper edge of a bin of a histogram. */
export function histogramEdges(bin: number): readonly [lower: number, upper: number] {
  if (bin === ZERO_BIN) return [-edge(0), edge(0)];
  return bin > ZERO_BIN ? [edge(bin - ZERO_BIN - 1), edge(bin - ZERO_BIN)] : [-edge(ZERO_BIN - bin), -edge(ZERO_BIN - bin - 1)];
}

/** The value below which `fraction` of the counts lie, interpolated inside its bin. Resolution: 1/32 of the value. */
function quantileOf(lower: (bin: number) => number, upper: (bin: number) => number, counts: ArrayLike<number>, fraction: number): number {
  let total = 0;
  for (let i = 0; i < counts.length; i++) total += counts[i]!;
  if (total === 0) throw new NumericError("numeric.no-data", "the histogram is empty; nothing went through this site");
  let target = fraction * total;
  let last = 0;
  for (let bin = 0; bin < counts.length; bin++) {
    const count = counts[bin]!;
    if (count === 0) continue;
    if (target <= count) return lower(bin) + (upper(bin) - lower(bin)) * (target / count);
    target -= count;
    last = bin;
  }
  return upper(last);
}

/**
 * The value below which `fraction` of all values lie.
 *
 * @param counts - a histogram, shape [HISTOGRAM_BINS]. @param fraction - in [0, 1].
 * @returns within 1/32 of the exact quantile's size, or within 2^-24 of it near zero.
 * @throws {NumericError} `numeric.no-data` for an empty histogram.
 */
export function histogramQuantile(counts: Float64Array, fraction: number): number {
  const lower = (bin: number): number => (bin > ZERO_BIN ? edge(bin - ZERO_BIN - 1) : bin === ZERO_BIN ? -edge(0) : -edge(ZERO_BIN - bin));
  const upper = (bin: number): number => (bin < ZERO_BIN ? -edge(ZERO_BIN - bin - 1) : edge(bin - ZERO_BIN));
  return quantileOf(lower, upper, counts, fraction);
}

/**
 * The magnitude below which `fraction` of all magnitudes lie: a clipping bound that ignores the rarest outliers.
 *
 * @throws {NumericError} `numeric.no-data` for an empty histogram.
 */
export function magnitudeQuantile(counts: Float64Array, fraction: number): number {
  const folded = Float64Array.from({ length: SIDE + 1 }, (_, k) =>
    k === 0 ? counts[ZERO_BIN]! : counts[ZERO_BIN + k]! + counts[ZERO_BIN - k]!,
  );
  return quantileOf(
    (bin) => (bin === 0 ? 0 : edge(bin - 1)),
    (bin) => edge(bin),
    folded,
    fraction,
  );
}
