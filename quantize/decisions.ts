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

/** Where the channels of a stored tensor come from: position i holds channel `order[i]` of the source. A vector has rows alone. */
export interface TensorOrder {
  readonly rows?: Int32Array;
  readonly cols?: Int32Array;
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
  /** New places of channels, by tensor name; `folds` and `replaced` are in the new order already. */
  readonly orders: ReadonlyMap<string, TensorOrder>;
  /** Tensors that the source does not have, by name: orders of rotated keys. */
  readonly added: ReadonlyMap<string, Tensor>;
  /** What reordering did and what it left alone, with reasons. */
  readonly orderNotes: readonly string[];
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
  orders: new Map(),
  added: new Map(),
  orderNotes: [],
  inputScales: new Map(),
  outputScales: new Map(),
  protected: new Map(),
  outliers: new Map(),
};
