/**
 * Two scales for values behind a GELU: a short negative range of many values and a long positive tail (OPT-m of MPTQ-ViT,
 * arXiv 2401.14895; the twin-uniform quantizer of PTQ4ViT). Half of the codes go to each side; the positive step is 2^m times the
 * negative one.
 * @module
 */
import { histogramEdges } from "../../calibrate/statistics/histogram.ts";
import { roundHalfEven } from "../../core/round.ts";
import type { Observed } from "./observe.ts";
import type { ActivationScale } from "./scales.ts";

/** Scales of the two sides; both have zero point 0 in codes of their sign. */
export interface TwinScale {
  readonly negative: ActivationScale;
  readonly positive: ActivationScale;
  /** positive step = 2^m · negative step. */
  readonly exponent: number;
}

/** GELU never goes below -0.17. */
const GELU_MIN = -0.2;
/** Tails shorter than this times the negative range gain nothing. */
const TAIL = 4;
const MAX_EXPONENT = 8;

/** Whether a value looks like one that comes out of a GELU. */
export function isTwin({ min, max }: Observed): boolean {
  return min < 0 && min >= GELU_MIN && max > TAIL * -min;
}

/**
 * The exponent of least squared error on the histogram; 0 is among those tried, so the error is never above that of equal steps.
 *
 * @param seen - with a histogram.
 */
export function twinScale({ max, histogram }: Observed, bits: 8): TwinScale {
  const levels = 2 ** (bits - 1) - 1;
  const step = Math.fround(max / levels);
  let best = { exponent: 0, error: Infinity };
  for (let exponent = 0; exponent <= MAX_EXPONENT; exponent++) {
    const error = negativeError(histogram!, step / 2 ** exponent, levels);
    if (error < best.error) best = { exponent, error };
  }
  const fine = step / 2 ** best.exponent;
  return {
    negative: { scale: fine, zero: levels + 1, bits },
    positive: { scale: step, zero: 0, bits },
    exponent: best.exponent,
  };
}

/** Squared error of the negative values; the positive ones do not depend on the exponent. */
function negativeError(histogram: Float64Array, step: number, levels: number): number {
  let error = 0;
  for (const [bin, count] of histogram.entries()) {
    if (count === 0) continue;
    const [low, high] = histogramEdges(bin);
    if (low >= 0) break;
    const middle = (low + high) / 2;
    if (middle >= 0) continue;
    const code = Math.min(levels + 1, roundHalfEven(-middle / step));
    error += count * (-middle - code * step) ** 2;
  }
  return error;
}
