/**
 * Error sums: Σw² and Σ(w − ŵ)² of a tensor, in f64 and in one fixed order, so
 * that reports do not depend on how the tensor was cut into pieces.
 *
 * In each run, four partial sums take the values whose index in the run is 0,
 * 1, 2, 3 modulo 4; the run's sum is (p0 + p2) + (p1 + p3); runs are added to
 * the total one after another.
 * @module
 */

/** Totals so far; kernels add to them. */
export interface ErrorSums {
  /** Σw². */
  weights: number;
  /** Σ(w − ŵ)². */
  errors: number;
}

/** One run's partial sums. */
export interface RunSums {
  /** @param i - index in the run. @param error - w − ŵ, f32. */
  add(i: number, w: number, error: number): void;
  /** Adds the run to `sums`. */
  finish(sums: ErrorSums): void;
}

export function startRun(): RunSums {
  const weights = new Float64Array(4);
  const errors = new Float64Array(4);
  const fold = (p: Float64Array): number => p[0]! + p[2]! + (p[1]! + p[3]!);
  return {
    add(i, w, error) {
      weights[i % 4]! += w * w;
      errors[i % 4]! += error * error;
    },
    finish(sums) {
      sums.weights += fold(weights);
      sums.errors += fold(errors);
    },
  };
}

/** Bytes kernels need for totals (2 f64) and partial sums (8 f64). */
export const SUMS_BYTES = 80;
