/**
 * SmoothQuant's arithmetic, as pure functions.
 *
 * Notation (Xiao et al. 2022, arXiv:2211.10438 §4): a_j = largest magnitude of
 * input channel j, w_j = largest magnitude of column j over all linears that
 * share the input, s_j = a_j^α / w_j^(1−α). The input is divided by s, the columns multiplied.
 * @module
 */
import { InputError } from "../../../core/errors.ts";
import { roundToDType } from "../../../core/tensor.ts";
import type { DType } from "../../../core/dtype.ts";

/** The reference code's floor for weight maxima and for scales. */
const EPSILON = 1e-5;

/**
 * Fold |weight| of one linear into the maxima over input channels.
 *
 * @param weight - row-major; [rows, cols], or [cols, rows] when `channelAxis` is 1 (Conv1D).
 * @param maxima - receives the larger of itself and the column maxima, length cols.
 */
export function foldColumnMaxima(weight: Float32Array, cols: number, channelAxis: 0 | 1, maxima: Float32Array): void {
  if (channelAxis === 1) {
    const rows = weight.length / cols;
    for (let c = 0; c < cols; c++) {
      let best = maxima[c]!;
      for (let i = c * rows; i < (c + 1) * rows; i++) best = Math.max(best, Math.abs(weight[i]!));
      maxima[c] = best;
    }
    return;
  }
  for (let start = 0; start < weight.length; start += cols) {
    for (let c = 0; c < cols; c++) {
      const magnitude = Math.abs(weight[start + c]!);
      if (magnitude > maxima[c]!) maxima[c] = magnitude;
    }
  }
}

/**
 * s_j = max(1e-5, a_j^α / max(1e-5, w_j)^(1−α)), in f64, rounded to f32.
 *
 * A channel that never fires (a_j = 0) and one that is all zero in the weights gets what the formula says; both are finite and positive.
 *
 * @param alpha - 0 to 1: 1 flattens the activations completely, 0 the weight columns.
 * @throws {InputError} `input.shape` when the lengths differ, `input.value` for a channel that is not finite.
 */
export function smoothingScales(activations: Float32Array, weights: Float32Array, alpha: number): Float32Array {
  if (activations.length !== weights.length) {
    throw new InputError("input.shape", `smoothing: ${activations.length} activation channels, ${weights.length} weight columns`, {
      activations: activations.length,
      weights: weights.length,
    });
  }
  return Float32Array.from(activations, (a, j) => {
    const s = Math.max(EPSILON, a ** alpha / Math.max(EPSILON, weights[j]!) ** (1 - alpha));
    if (!Number.isFinite(s))
      throw new InputError("input.value", `smoothing: channel ${j} has activation maximum ${a}, weight maximum ${weights[j]}`, {
        channel: j,
      });
    return s;
  });
}

/** A producer that can absorb a factor a channel: a norm, or the rows of a linear. */
export interface Producer {
  /** Stored values, one a channel. */
  readonly values: Float32Array;
  readonly dtype: DType;
  /** What the model adds before it multiplies: 1 for Gemma's norms, which store weight − 1. */
  readonly offset: 0 | 1;
}

/** The rewritten producer and the factors that its consumers must really be multiplied by. */
export interface FoldedProducer {
  readonly values: Float32Array;
  /** Effective s: old / new producer, so that rounding the producer costs nothing. */
  readonly scales: Float32Array;
}

/**
 * Divide a norm's weight by s as far as its dtype allows, and give the consumers the quotient that was really taken:
 * g' = round(g / s), s' = g / g'. The product of both is the source's, whatever the dtype.
 *
 * A channel whose producer is 0 carries nothing and keeps s; one whose quotient would round to 0 or overflow is left alone (s' = 1).
 */
export function foldProducer({ values, dtype, offset }: Producer, scales: Float32Array): FoldedProducer {
  const effective = new Float32Array(scales.length);
  const folded = Float32Array.from(values, (stored, j) => {
    const gain = stored + offset;
    const rounded = roundToDType(gain / scales[j]! - offset, dtype);
    const after = rounded + offset;
    if (gain === 0) {
      effective[j] = scales[j]!;
      return stored;
    }
    if (after === 0 || !Number.isFinite(after)) {
      effective[j] = 1;
      return stored;
    }
    effective[j] = gain / after;
    return rounded;
  });
  return { values: folded, scales: effective };
}

/** A bias in front of the same channels, divided by the factors the consumers are multiplied by; rounded to `dtype`. */
export function foldBias(bias: Float32Array, dtype: DType, scales: Float32Array): Float32Array {
  return Float32Array.from(bias, (b, j) => roundToDType(b / scales[j]!, dtype));
}

/** Largest magnitude that a smoothed input reaches: max over channels of a_j / s_j. Exact, without another forward pass. */
export function smoothedMaximum(activations: Float32Array, scales: Float32Array): number {
  let best = 0;
  for (let j = 0; j < activations.length; j++) best = Math.max(best, activations[j]! / scales[j]!);
  return best;
}
