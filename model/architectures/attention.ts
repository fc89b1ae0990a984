/**
 * Attention: projections, rotary embedding and the attention itself, with the values
 * between them named so that they can be tapped:
 * `<module>.q_rope`, `<module>.k_rope`, `<module>.v` and the output's input `<module>.attention`.
 * @module
 */
import { tensorOf } from "../../core/tensor.ts";
import type { BlockWriter } from "./block-writer.ts";
import { rotateOrdered } from "./ordered-rope.ts";
import { rmsNorm, type RmsNorm } from "./norms.ts";

/** Heads of an attention. Query head h reads key-value head floor(h / (heads / kvHeads)). */
export interface Heads {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
}

/** How scores become weights. */
export interface Scores {
  /** Multiplies q · k. */
  readonly scale: number;
  /** Without a mask: whether a position sees only those before it. */
  readonly causal: boolean;
  /** Value BOOL [batch, 1, 1 or sequence, sequence], causality included. */
  readonly mask?: string;
  /** c: scores become c · tanh(scores / c) before the mask. */
  readonly softcap?: number;
}

/** An attention of the Llama family, as data. */
export interface RotaryAttention extends Heads {
  readonly scale: number;
  readonly qkvBias: boolean;
  readonly outputBias: boolean;
  /** One matrix with the rows of q, then k, then v. */
  readonly fused: boolean;
  /** Channels of each head that rotate. */
  readonly rotarySize: number;
  /** Norm of each head of q and k before rotation. */
  readonly headNorm?: RmsNorm;
  readonly softcap?: number;
  /** Whether the block reads a mask; else plain causal. */
  readonly masked: boolean;
  /** Channels of each key head are stored in an order of their own, `<module>.rope_order` [kvHeads, headSize]; queries alike. */
  readonly ordered?: boolean;
}

/** Block values an attention reads. */
export interface AttentionContext {
  /** Value I64 [3]: batch, sequence, -1. */
  readonly rows: string;
  readonly cos: string;
  readonly sin: string;
  readonly mask?: string;
}

/**
 * @param input - value [tokens, hidden].
 * @returns value [tokens, hidden], the output projection.
 */
export function rotaryAttention(
  writer: BlockWriter,
  input: string,
  hidden: number,
  attention: RotaryAttention,
  context: AttentionContext,
): string {
  const { heads, kvHeads, headSize, scale, qkvBias, softcap } = attention;
  const [q, k, v] = attention.fused
    ? splitProjection(writer, writer.linear(input, "self_attn.qkv_proj", (heads + 2 * kvHeads) * headSize, hidden, { bias: qkvBias }), [
        heads * headSize,
        kvHeads * headSize,
        kvHeads * headSize,
      ])
    : [
        writer.linear(input, "self_attn.q_proj", heads * headSize, hidden, { bias: qkvBias }),
        writer.linear(input, "self_attn.k_proj", kvHeads * headSize, hidden, { bias: qkvBias }),
        writer.linear(input, "self_attn.v_proj", kvHeads * headSize, hidden, { bias: qkvBias }),
      ];
  if (attention.ordered === true) writer.weight("self_attn.rope_order", [kvHeads, headSize]);
  const query = rotate(writer, q!, "q", heads, attention, context);
  const key = rotate(writer, k!, "k", kvHeads, attention, context);
  const value = writer.graph.op("Reshape", [v!, context.rows], {}, "self_attn.v");
  const mixed = attend(
    writer,
    "self_attn",
    { query, key, value },
    { heads, kvHeads, headSize },
    { scale, causal: true, ...(softcap === undefined ? {} : { softcap }), ...(context.mask === undefined ? {} : { mask: context.mask }) },
  );
  return writer.linear(mixed, "self_attn.o_proj", hidden, heads * headSize, { bias: attention.outputBias });
}

/** Cut [tokens, sum of sizes] into values of `sizes` channels. */
export function splitProjection(writer: BlockWriter, input: string, sizes: readonly number[]): readonly string[] {
  const { graph } = writer;
  return graph.multi("Split", [input, graph.int64(sizes)], { axis: -1 }, graph.fresh("split", sizes.length));
}

function rotate(
  writer: BlockWriter,
  projected: string,
  which: "q" | "k",
  heads: number,
  attention: RotaryAttention,
  { rows, cos, sin }: AttentionContext,
): string {
  const { headSize, rotarySize, headNorm } = attention;
  const { graph } = writer;
  const normed =
    headNorm === undefined
      ? projected
      : rmsNorm(writer, graph.op("Reshape", [projected, graph.int64([-1, headSize])]), `self_attn.${which}_norm`, headSize, headNorm);
  const split = graph.op("Reshape", [normed, rows]);
  if (attention.ordered === true) return rotateOrdered(graph, split, heads, attention, { cos, sin }, `self_attn.${which}_rope`);
  const attributes = { num_heads: heads, ...(rotarySize === headSize ? {} : { rotary_embedding_dim: rotarySize }) };
  return graph.op("RotaryEmbedding", [split, cos, sin], attributes, `self_attn.${which}_rope`);
}

/**
 * Softmax(mask(scale · q kᵀ)) v.
 *
 * @param values - values [batch, sequence, heads × headSize] (keys and values with `kvHeads`).
 * @returns value [tokens, heads × headSize], named `<module>.attention`.
 */
export function attend(
  writer: BlockWriter,
  module: string,
  values: { readonly query: string; readonly key: string; readonly value: string },
  heads: Heads,
  scores: Scores,
): string {
  const { graph } = writer;
  const mixed =
    scores.softcap === undefined ? attentionOperator(writer, values, heads, scores) : cappedAttention(writer, values, heads, scores);
  const output = `${module}.attention`;
  writer.attention({ module, ...values, output, ...heads, ...scores });
  return graph.op("Reshape", [mixed, graph.int64([-1, heads.heads * heads.headSize])], {}, output);
}

function attentionOperator(
  { graph }: BlockWriter,
  { query, key, value }: { readonly query: string; readonly key: string; readonly value: string },
  { heads, kvHeads }: Heads,
  { scale, causal, mask }: Scores,
): string {
  const attributes = {
    q_num_heads: heads,
    kv_num_heads: kvHeads,
    scale: { float: scale },
    is_causal: mask === undefined && causal ? 1 : 0,
  };
  return graph.op("Attention", mask === undefined ? [query, key, value] : [query, key, value, mask], attributes);
}

/**
 * Attention written out: engines cap scores inside the Attention operator with a scalar tanh, several times slower.
 * The query heads of one key-value head are stacked as rows, so that keys are not repeated.
 */
function cappedAttention(
  { graph }: BlockWriter,
  { query, key, value }: { readonly query: string; readonly key: string; readonly value: string },
  { heads, kvHeads, headSize }: Heads,
  { scale, mask, softcap }: Scores,
): string {
  const group = heads / kvHeads;
  const grouped = graph.op("Reshape", [query, graph.int64([0, 0, kvHeads, group, headSize])]);
  const stacked = graph.op("Reshape", [
    graph.op("Transpose", [grouped], { perm: [0, 2, 3, 1, 4] }),
    graph.int64([0, kvHeads, -1, headSize]),
  ]);
  const keys = graph.op("Transpose", [graph.op("Reshape", [key, graph.int64([0, 0, kvHeads, headSize])])], { perm: [0, 2, 3, 1] });
  const products = graph.op("Mul", [graph.op("MatMul", [stacked, keys]), graph.float32(scale)]);
  const cap = graph.float32(softcap!);
  const capped = graph.op("Mul", [graph.op("Tanh", [graph.op("Div", [products, cap])]), cap]);
  const byHead = graph.op("Reshape", [capped, graph.int64([0, heads, -1, 0])]);
  const hidden = graph.constant(tensorOf(Float32Array.of(-3.4028234663852886e38), []));
  const masked = mask === undefined ? byHead : graph.op("Where", [mask, byHead, hidden]);
  const weights = graph.op("Reshape", [graph.op("Softmax", [masked], { axis: -1 }), graph.int64([0, kvHeads, -1, 0])]);
  const values4 = graph.op("Transpose", [graph.op("Reshape", [value, graph.int64([0, 0, kvHeads, headSize])])], { perm: [0, 2, 1, 3] });
  const mixed = graph.op("Reshape", [graph.op("MatMul", [weights, values4]), graph.int64([0, heads, -1, headSize])]);
  return graph.op("Transpose", [mixed], { perm: [0, 2, 1, 3] });
}
