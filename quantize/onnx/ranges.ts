/**
 * How a range is chosen from what was seen of a value: all of it, a percentile, or what quantization harms least.
 * @module
 */
import { histogramEdges, histogramQuantile } from "../../calibrate/statistics/histogram.ts";
import { roundHalfEven } from "../../core/round.ts";
import { activationScale, type ValueRange } from "./scales.ts";
import type { Calibrator } from "./settings.ts";

/** A value as calibration saw it. */
export interface SeenValue extends ValueRange {
  /** Counts in bins of fixed edges; absent when only extrema were asked for. */
  readonly histogram?: Float64Array;
}

/** Fractions of the whole range that searches try, largest first. */
const FRACTIONS: readonly number[] = Array.from({ length: 90 }, (_, i) => (100 - i) / 100);
/** Steps of the finer grid that divergence is measured on. */
const FINE_STEPS = 2048;

/** Of a step that values were cut to and nothing else is in: without it, no outlier could ever be cut. */
const LEAST_SHARE = 1e-4;

/** Which calibrators need histograms. */
export function needsHistogram(calibrator: Calibrator): boolean {
  return calibrator !== "minmax";
}

/** The range to cut codes from. */
export function chooseRange(seen: SeenValue, calibrator: Calibrator, bits: 8 | 16, percentile: number): ValueRange {
  const { min, max, histogram } = seen;
  if (histogram === undefined || calibrator === "minmax" || min === max) return { min, max };
  switch (calibrator) {
    case "percentile":
      return clip(seen, histogramQuantile(histogram, 1 - percentile / 100), histogramQuantile(histogram, percentile / 100));
    case "mse":
      return search(seen, (range) => squaredError(occupied(histogram), range, bits));
    case "entropy":
      return search(seen, (range) => divergence(occupied(histogram), seen, range, 2 ** bits));
    default:
      return calibrator satisfies never;
  }
}

function clip({ min, max }: ValueRange, low: number, high: number): ValueRange {
  return { min: Math.max(min, low), max: Math.min(max, high) };
}

/** The fraction of the range of least cost; the largest of equals. */
function search({ min, max }: ValueRange, cost: (range: ValueRange) => number): ValueRange {
  let best: ValueRange = { min, max };
  let least = cost(best);
  for (const low of min < 0 ? FRACTIONS : [1]) {
    // Both ends together, then each alone: tails are rarely alike.
    for (const [a, b] of [
      [low, low],
      [low, 1],
      [1, low],
    ] as const) {
      const range = { min: min < 0 ? min * a : min, max: max > 0 ? max * b : max };
      const found = cost(range);
      if (found < least) {
        least = found;
        best = range;
      }
    }
  }
  if (min >= 0) {
    for (const fraction of FRACTIONS) {
      const range = { min, max: max * fraction };
      const found = cost(range);
      if (found < least) {
        least = found;
        best = range;
      }
    }
  }
  return best;
}

interface Bin {
  readonly low: number;
  readonly high: number;
  readonly count: number;
}

const cache = new WeakMap<Float64Array, readonly Bin[]>();

function occupied(histogram: Float64Array): readonly Bin[] {
  let bins = cache.get(histogram);
  if (bins === undefined) {
    bins = [...histogram.entries()].flatMap(([i, count]) => {
      const [low, high] = histogramEdges(i);
      return count === 0 ? [] : [{ low, high, count }];
    });
    cache.set(histogram, bins);
  }
  return bins;
}

/** Expected squared error of rounding to codes of a range, values spread evenly in their bins. */
function squaredError(bins: readonly Bin[], range: ValueRange, bits: 8 | 16): number {
  const { scale, zero } = activationScale(range, bits);
  const top = 2 ** bits - 1;
  let error = 0;
  for (const { low, high, count } of bins) {
    // Bins narrower than a step are judged by their middle, wider ones by the error of any value inside.
    const middle = (low + high) / 2;
    const code = Math.max(0, Math.min(top, roundHalfEven(middle / scale) + zero));
    const difference = middle - (code - zero) * scale;
    const spread = high - low > scale && code > 0 && code < top ? (scale * scale) / 12 : difference * difference;
    error += count * spread;
  }
  return error;
}

/**
 * Kullback–Leibler divergence of the values clipped to a range from the same in coarse steps (after the TensorRT calibrator,
 * Migacz 2017), on a fine grid over everything seen.
 */
function divergence(bins: readonly Bin[], seen: ValueRange, range: ValueRange, levels: number): number {
  const width = (seen.max - seen.min) / FINE_STEPS;
  const first = Math.floor((range.min - seen.min) / width);
  const last = Math.max(first + 1, Math.ceil((range.max - seen.min) / width));
  const count = Math.min(FINE_STEPS, last) - first;
  if (count <= levels) return Infinity;
  const fine = new Float64Array(count);
  const kept = new Float64Array(count);
  for (const { low, high, count: values } of bins) {
    const from = Math.max(0, Math.floor((Math.max(low, seen.min) - seen.min) / width));
    const to = Math.max(from + 1, Math.ceil((Math.min(high, seen.max) - seen.min) / width));
    const share = values / (to - from);
    for (let step = from; step < to; step++) {
      const at = step - first;
      fine[Math.max(0, Math.min(count - 1, at))]! += share;
      if (at >= 0 && at < count) kept[at]! += share;
    }
  }
  const coarse = new Float64Array(count);
  for (let level = 0; level < levels; level++) {
    const [from, to] = [Math.floor((level * count) / levels), Math.floor(((level + 1) * count) / levels)];
    let sum = 0;
    let filled = 0;
    for (let i = from; i < to; i++) {
      sum += kept[i]!;
      if (fine[i]! > 0) filled++;
    }
    for (let i = from; i < to; i++) if (fine[i]! > 0) coarse[i] = sum / filled;
  }
  const [all, all2] = [fine.reduce((a, b) => a + b, 0), coarse.reduce((a, b) => a + b, 0)];
  let result = 0;
  for (let i = 0; i < count; i++) {
    if (fine[i] === 0) continue;
    const p = fine[i]! / all;
    const q = Math.max(LEAST_SHARE, coarse[i]! / all2);
    result += p * Math.log(p / q);
  }
  return result;
}
