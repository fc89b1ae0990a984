/**
 * float-histogram: counts of values in bins that are cut from the bits of an f32, some bins to each power of two, and their extrema.
 *
 *   step      = (|x| as bits >> droppedBits) − firstStep + 1
 *   k         = clamp(step, 0, side)
 *   counts[side ± k] += 1                    + for x ≥ +0, − for x ≤ −0
 *
 * The middle bin holds what is too small for a step, the outermost ones what is too large, NaN included.
 *
 * Extrema are those of the values' orders: integers that compare as the values do. −0 comes before +0, and NaN lies beyond the
 * infinities, so what is not finite shows in the extrema and needs no pass of its own.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { clamp } from "../../core/round.ts";
import { wasm } from "../generated/float-histogram.wasm.ts";
import type { Workspace } from "../load-wasm.ts";

/** How bins are cut. */
export interface FloatBins {
  /** Lowest bits of an f32 that make no difference, 1 to 23. */
  readonly droppedBits: number;
  /** Bits of the least magnitude outside of the middle bin, without the dropped ones; at least 1. */
  readonly firstStep: number;
  /** Bins on either side of the middle one. */
  readonly side: number;
}

/** Least and largest order met. */
export interface OrderRange {
  readonly least: number;
  readonly largest: number;
}

/** Before anything was seen. */
export const NO_ORDERS: OrderRange = { least: 0x7fffffff, largest: -0x80000000 };

/** The order of an f32 from its bits as an i32, and the bits from the order. */
export function flipOrder(bits: number): number {
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

/**
 * @param counts - `2 · side + 1`, added to.
 * @returns the range of the values' orders.
 * @throws {InputError} `input.shape` for another number of counts.
 */
export function floatHistogram(x: Float32Array, { droppedBits, firstStep, side }: FloatBins, counts: Float64Array): OrderRange {
  if (counts.length !== 2 * side + 1) {
    throw new InputError("input.shape", `floatHistogram: ${counts.length} counts for ${2 * side + 1} bins`, { counts: counts.length });
  }
  let { least, largest } = NO_ORDERS;
  for (const bits of new Int32Array(x.buffer, x.byteOffset, x.length)) {
    const k = clamp(((bits & 0x7fffffff) >> droppedBits) - firstStep + 1, 0, side);
    counts[bits < 0 ? side - k : side + k]! += 1;
    least = Math.min(least, flipOrder(bits));
    largest = Math.max(largest, flipOrder(bits));
  }
  return { least, largest };
}

interface FloatHistogramKernel {
  readonly countFloats: (
    x: number,
    count: number,
    droppedBits: number,
    firstStep: number,
    side: number,
    tables: number,
    orders: number,
  ) => void;
  readonly addCounts: (tables: number, bins: number, counts: number) => void;
}

/** Lanes that the twin folds orders in. */
const LANES = 4;

/** Bytes of the state that the twin counts in. */
export function histogramStateBytes({ side }: FloatBins): number {
  return 4 * LANES * (2 * side + 1) + 8 * LANES;
}

/** Make `histogramStateBytes` bytes at `state` a state that has seen nothing. */
export function startHistogramAt({ memory }: Workspace, bins: FloatBins, state: number): void {
  const words = new Int32Array(memory.buffer, state, histogramStateBytes(bins) / 4).fill(0);
  words.fill(NO_ORDERS.least, 0, LANES).fill(NO_ORDERS.largest, LANES, 2 * LANES);
}

/** SIMD twin over byte offsets of a workspace: counts fewer than 2^32 values into the state, in as many calls as wanted. */
export function countFloatsAt(
  workspace: Workspace,
  x: number,
  count: number,
  { droppedBits, firstStep, side }: FloatBins,
  state: number,
): void {
  workspace.kernel<FloatHistogramKernel>(wasm).countFloats(x, count, droppedBits, firstStep, side, state + 8 * LANES, state);
}

/** Adds what the state counted to `2 · side + 1` f64 at `counts`, and clears its counts. @returns the range of all it has seen. */
export function addCountsAt(workspace: Workspace, { side }: FloatBins, state: number, counts: number): OrderRange {
  workspace.kernel<FloatHistogramKernel>(wasm).addCounts(state + 8 * LANES, 2 * side + 1, counts);
  const orders = new Int32Array(workspace.memory.buffer, state, 2 * LANES);
  return { least: Math.min(...orders.subarray(0, LANES)), largest: Math.max(...orders.subarray(LANES)) };
}
