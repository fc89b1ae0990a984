/**
 * Attention masks as boolean values, true = may look. Only what an attention operator
 * cannot say by itself is written: windows, padding, causality where scores are explicit.
 * @module
 */
import type { GraphBuilder } from "../graph/builder.ts";

/** Name of the carried causal mask of a window (undefined = all positions before). */
export function causalMaskName(window: number | undefined): string {
  return window === undefined ? "causal_mask" : `window_mask_${window}`;
}

/** What {@link causalMaskName} named; undefined for another mask. */
export function causalMaskOf(name: string): { readonly window: number | undefined } | undefined {
  if (name === "causal_mask") return { window: undefined };
  const digits = /^window_mask_(\d+)$/.exec(name)?.[1];
  return digits === undefined ? undefined : { window: Number(digits) };
}

/**
 * Causal mask from positions.
 *
 * @param positions - value I64 [batch, sequence].
 * @param window - a position sees itself and the `window` - 1 before it; undefined = all before it.
 * @returns value BOOL [batch, 1, sequence, sequence], named `output`.
 */
export function causalMask(graph: GraphBuilder, positions: string, window: number | undefined, output: string): string {
  const query = graph.op("Unsqueeze", [positions, graph.int64([1, 3])]);
  const key = graph.op("Unsqueeze", [positions, graph.int64([1, 2])]);
  if (window === undefined) return graph.op("LessOrEqual", [key, query], {}, output);
  const past = graph.op("LessOrEqual", [key, query]);
  const near = graph.op("Less", [graph.op("Sub", [query, key]), graph.int64(window)]);
  return graph.op("And", [past, near], {}, output);
}

/**
 * Padding mask: every position may look at the keys whose `attentionMask` is not 0.
 *
 * @param attentionMask - value I64 [batch, sequence].
 * @param positions - value I64 [batch, sequence].
 * @returns value BOOL [batch, 1, sequence, sequence]; engines do not broadcast the query axis of a mask.
 */
export function paddingMask(graph: GraphBuilder, attentionMask: string, positions: string, output?: string): string {
  const present = graph.op("Unsqueeze", [graph.op("Cast", [attentionMask], { to: ONNX_BOOL }), graph.int64([1, 2])]);
  const anyQuery = graph.op("LessOrEqual", [graph.int64(0), graph.op("Unsqueeze", [positions, graph.int64([1, 3])])]);
  return graph.op("And", [anyQuery, present], {}, output);
}

/** `TensorProto.DataType` numbers for Cast. */
const ONNX_BOOL = 9;
