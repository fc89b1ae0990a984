/**
 * KvScheme: how a model's key-value cache is stored, as data.
 *
 * A scheme is a point in a product: which tensor is cached, static transforms applied to it, a quantizer for keys and one for values,
 * and tokens that stay float. The artifact and the calibration hold the static parts; `cache.ts` encodes, stores, reads and counts.
 * @module
 */
import type { BlockFormat } from "../../core/blocks/format.ts";
import type { ScaleRule } from "../../core/scheme.ts";

/**
 * How one cached tensor is stored. Numbers that share a scale are channels of one token and one head: statistics never cross
 * tokens, so appending is exact.
 */
export type KvCode =
  /** Plain floats: no quantization, 32 or 16 bits. */
  | { readonly kind: "float"; readonly dtype: "F32" | "F16" | "BF16" }
  /** Blocks of BFP, MX or NVFP4 numbers along the channels of a head. */
  | { readonly kind: "block"; readonly format: BlockFormat; readonly rule?: ScaleRule }
  /** Symmetric integers under one F16 scale a token and head. */
  | { readonly kind: "int"; readonly bits: number };

/** A static transform of the keys of one layer, applied by the runtime when a key is written. */
export type StaticOp =
  /** Channel j of a stored head is channel `index[head · headSize + j]`; I32 [kvHeads · headSize], a permutation inside each head. */
  | { readonly op: "perm"; readonly index: Int32Array }
  /** A constant subtracted from every key, F32 [kvHeads · headSize]; softmax does not see it, so reading costs nothing. */
  | { readonly op: "centre"; readonly mean: Float32Array };

/** Tokens that are kept float. */
export interface Protect {
  /** First tokens of a sequence. */
  readonly sinks: number;
  /** Newest tokens, the token itself included. */
  readonly window: number;
}

/** Heads of the model the scheme was made for; checked when it is applied. */
export interface ModelKv {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
}

export interface KvScheme {
  readonly version: 1;
  /** Name as given, e.g. "bfp12:block=32,centre=mean". */
  readonly method: string;
  readonly k: KvCode;
  readonly v: KvCode;
  /** Queries, rounded before they meet the stored keys; they are never stored. */
  readonly q: KvCode;
  /** "all": every row of scores sees stored keys and values only, its own token's too. "stream": `protect` says which tokens stay float. */
  readonly mode: "all" | "stream";
  readonly protect: Protect;
  /** Static transforms of the keys by block name, in the order in which they are applied. */
  readonly ops: ReadonlyMap<string, readonly StaticOp[]>;
}
