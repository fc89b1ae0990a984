/**
 * Dialect: the operators an exported model is written in. The architectures are written once, with operators
 * of ONNX opset 23; a dialect says the same in what its runtimes have, and puts the cache into the attention.
 * @module
 */
import type { GraphNode } from "../../graph/graph.ts";
import type { AttentionPlace } from "../../model.ts";
import type { Emitter } from "../emitter.ts";
import type { Lengths } from "../lengths.ts";

/** Values of one layer's cache: [batch, kvHeads, past or total, headSize]. */
export interface CacheValues {
  readonly pastKey: string;
  readonly pastValue: string;
  readonly presentKey: string;
  readonly presentValue: string;
}

/** An attention whose names are values of the exported graph. */
export interface ExportedAttention extends AttentionPlace {
  /**
   * "causal": every position sees itself and those before it, `window` - 1 at most when there is a window, and never padding.
   * "masked": `mask` says it all. "all": every position sees all.
   */
  readonly sight: "causal" | "masked" | "all";
  readonly window?: number;
  readonly cache?: CacheValues;
}

export interface Dialect {
  readonly name: string;
  /** Version of the standard domain. */
  readonly opset: number;
  /** Append `node`, whose operator may be of opset 23, as operators of this dialect. */
  write(emitter: Emitter, node: GraphNode): void;
  /**
   * Append the attention, and the present cache when there is one.
   *
   * @param lengths - what causal attention needs; absent in models that have none.
   * @returns value [tokens, heads × headSize], named `attention.output`.
   */
  attend(emitter: Emitter, attention: ExportedAttention, lengths: Lengths | undefined): string;
}
