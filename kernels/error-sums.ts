/**
 * Error sums: Σw² and Σ(w − ŵ)² of a tensor, in one fixed order, so that
 * reports do not depend on how the tensor was cut into pieces.
 *
 * In a run all weights share a scale, so sums are taken in units of it, where
 * nothing can overflow or vanish: t = f32(w / scale) and e = f32(t − (code − zero)).
 * Squares are f32 and go to four f32 sums by index in the run modulo 4; every
 * 128 values these are added to four f64 sums p, and start again from 0. The
 * run's sum is ((p0 + p2) + (p1 + p3)) · scale²; runs are added one after another.
 * 32 terms to an f32 sum keep its relative error below 32 · 2^-24, 0.00001 dB.
 * @module
 */

/** Totals so far; kernels add to them. */
export interface ErrorSums {
  /** Σw². */
  weights: number;
  /** Σ(w − ŵ)². */
  errors: number;
}

/** Values after which the f32 sums go to the f64 ones. */
const BLOCK = 128;

/** One run's partial sums. */
export interface RunSums {
  /** @param i - index in the run, in order. @param t - f32(w / scale). @param e - f32(t − (code − zero)). */
  add(i: number, t: number, e: number): void;
  /** Adds the run to `sums`. */
  finish(sums: ErrorSums, scale: number): void;
}

export function startRun(): RunSums {
  const partial = { weights: new Float64Array(4), errors: new Float64Array(4) };
  const block = { weights: new Float32Array(4), errors: new Float32Array(4) };
  const closeBlock = (): void => {
    for (const kind of ["weights", "errors"] as const) {
      for (let lane = 0; lane < 4; lane++) partial[kind][lane]! += block[kind][lane]!;
      block[kind].fill(0);
    }
  };
  const fold = (p: Float64Array): number => p[0]! + p[2]! + (p[1]! + p[3]!);
  return {
    add(i, t, e) {
      if (i % BLOCK === 0) closeBlock();
      block.weights[i % 4]! += Math.fround(t * t);
      block.errors[i % 4]! += Math.fround(e * e);
    },
    finish(sums, scale) {
      closeBlock();
      sums.weights += fold(partial.weights) * (scale * scale);
      sums.errors += fold(partial.errors) * (scale * scale);
    },
  };
}

/** Bytes kernels need for totals (2 f64) and partial sums (8 f64). */
export const SUMS_BYTES = 80;
