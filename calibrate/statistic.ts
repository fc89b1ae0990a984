/**
 * Statistic: a fold over activations, mergeable so that shards and resumed
 * runs give the same state.
 *
 * A statistic may reduce inside the engine (`reduce`): then only small partial
 * results leave it. Without `reduce` it gets the activations themselves.
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { HostTensor } from "../model/engines/engine.ts";
import type { GraphBuilder } from "../model/graph/builder.ts";

export interface Statistic<State = unknown> {
  /** Name in files and on the command line, e.g. "absmax". */
  readonly name: string;
  /** One line for help texts. */
  readonly summary: string;
  /**
   * Nodes that reduce `value` (shape [..., channels], f32) to partial results.
   *
   * @returns names of the partial outputs, handed to `update` in this order.
   */
  reduce?(graph: GraphBuilder, value: string, channels: number): readonly string[];
  create(channels: number): State;
  /**
   * Fold one batch in.
   *
   * @param parts - the partial results of `reduce`, or the activations alone.
   * @param rows - tokens in this batch.
   * @returns the new state; `state` may be reused.
   */
  update(state: State, parts: readonly HostTensor[], rows: number): State;
  /** Associative and commutative up to rounding; exact for extrema. */
  merge(a: State, b: State): State;
  /** What goes into the calibration file, by suffix: "" for the statistic itself, else e.g. "count". */
  finish(state: State): Readonly<Record<string, Tensor>>;
}
