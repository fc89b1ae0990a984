/**
 * Decisions: everything the write phase needs beyond the plan, as small data.
 * Written to the journal, so that a resumed run continues with the very same numbers.
 * @module
 */
import type { Tensor } from "../core/tensor.ts";

/** Factors of one tensor's rows (output channels) and columns (input channels), applied in f32 before codes are chosen. */
export interface WeightFold {
  readonly rows?: Float32Array;
  readonly cols?: Float32Array;
}

/** One folded pair, for the report and for comparison with other implementations. */
export interface PairDecision {
  readonly name: string;
  readonly note: string;
  /** Factors as computed, before the producer's dtype rounds them. */
  readonly scales: Float32Array;
}

export interface Decisions {
  readonly pairs: readonly PairDecision[];
  /** By tensor name. */
  readonly folds: ReadonlyMap<string, WeightFold>;
  /** Small tensors that are stored with new values: norms and biases, by name. */
  readonly replaced: ReadonlyMap<string, Tensor>;
  /** Static activation scales by site, rounded as stored. */
  readonly inputScales: ReadonlyMap<string, number>;
  readonly outputScales: ReadonlyMap<string, number>;
  /** Sites whose activations stay float, with the reason. */
  readonly protected: ReadonlyMap<string, string>;
  /** Largest / median channel maximum of each site's input, when calibrated. */
  readonly outliers: ReadonlyMap<string, { readonly before: number; readonly after: number }>;
}

/** Decisions of a run without folds, static scales or protection. */
export const NO_DECISIONS: Decisions = {
  pairs: [],
  folds: new Map(),
  replaced: new Map(),
  inputScales: new Map(),
  outputScales: new Map(),
  protected: new Map(),
  outliers: new Map(),
};
