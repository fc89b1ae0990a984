/**
 * Normalizations, rotary embedding and attention of opset 23.
 * @module
 */
import type { Call, Operator, Tf, TfTensor, Value } from "./call.ts";
import { multiplyBatches } from "./multiply.ts";
import { broadcast } from "./values.ts";

/** Axes from `axis` to the last. */
function trailingAxes(call: Call, rank: number): number[] {
  const first = call.axis(call.intAttribute("axis", -1), rank);
  return Array.from({ length: rank - first }, (_, i) => first + i);
}

const rmsNormalization: Operator = (call) => {
  const { tf } = call;
  const x = call.float(0);
  const power = tf.mean(tf.mul(x, x), trailingAxes(call, x.shape.length), true);
  const normed = tf.mul(x, tf.rsqrt(tf.add(power, call.floatAttribute("epsilon", 1e-5))));
  return { dtype: "F32", tensor: tf.mul(normed, call.float(1)) };
};

const layerNormalization: Operator = (call) => {
  const { tf } = call;
  if (call.wants(1) || call.wants(2)) call.unsupported("mean and deviation outputs");
  const x = call.float(0);
  const axes = trailingAxes(call, x.shape.length);
  const centred = tf.sub(x, tf.mean(x, axes, true));
  const variance = tf.mean(tf.mul(centred, centred), axes, true);
  const normed = tf.mul(tf.mul(centred, tf.rsqrt(tf.add(variance, call.floatAttribute("epsilon", 1e-5)))), call.float(1));
  return { dtype: "F32", tensor: call.optional(2) === undefined ? normed : tf.add(normed, call.float(2)) };
};

/** [B, S, H·d] → [B, H, S, d]. */
function splitHeads(tf: Tf, x: TfTensor, heads: number): TfTensor {
  const [batch, length, width] = x.shape as [number, number, number];
  return tf.transpose(tf.reshape(x, [batch, length, heads, width / heads]), [0, 2, 1, 3]);
}

/** [B, H, S, d] → [B, S, H·d]. */
function joinHeads(tf: Tf, x: TfTensor): TfTensor {
  const [batch, heads, length, size] = x.shape as [number, number, number, number];
  return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [batch, length, heads * size]);
}

function headsOf(call: Call, x: TfTensor, heads: number, attribute: string): TfTensor {
  if (x.shape.length === 4) return x;
  if (x.shape.length !== 3) return call.fail(`an input has ${x.shape.length} dimensions, not 3 or 4`, "input.shape");
  const width = x.shape[2];
  if (heads < 1 || width % heads !== 0) return call.fail(`${attribute} = ${heads} does not divide the width ${width}`, "input.shape");
  return splitHeads(call.tf, x, heads);
}

const rotaryEmbedding: Operator = (call) => {
  const { tf } = call;
  const input = call.float(0);
  const x = headsOf(call, input, call.intAttribute("num_heads", 0), "num_heads");
  const size = x.shape[3]!;
  const rotated = call.intAttribute("rotary_embedding_dim", 0) || size;
  const cos = positioned(call, call.float(1));
  const sin = positioned(call, call.float(2));
  const [start, whole] = [[0, 0, 0, 0], x.shape.slice(0, 3)] as const;
  const turned = tf.slice(x, [...start], [...whole, rotated]);
  const result = call.intAttribute("interleaved", 0) === 1 ? rotateInterleaved(tf, turned, cos, sin) : rotateHalves(tf, turned, cos, sin);
  const joined = rotated === size ? result : tf.concat([result, tf.slice(x, [0, 0, 0, rotated], [...whole, size - rotated])], 3);
  return { dtype: "F32", tensor: input.shape.length === 3 ? joinHeads(tf, joined) : joined };
};

/** A table [positions, r/2] looked up at position_ids, or one already [B, S, r/2]; as [B, 1, S, r/2]. */
function positioned(call: Call, table: TfTensor): TfTensor {
  const { tf } = call;
  const positions = call.optional(3);
  if (positions === undefined) return tf.expandDims(table, 1);
  const width = table.shape[1]!;
  const rows = tf.gather(table, tf.reshape(positions.tensor, [-1]));
  return tf.reshape(rows, [...positions.tensor.shape.toSpliced(1, 0, 1), width]);
}

function rotateHalves(tf: Tf, x: TfTensor, cos: TfTensor, sin: TfTensor): TfTensor {
  const [a, b] = tf.split(x, 2, 3) as [TfTensor, TfTensor];
  return tf.concat([tf.sub(tf.mul(a, cos), tf.mul(b, sin)), tf.add(tf.mul(a, sin), tf.mul(b, cos))], 3);
}

function rotateInterleaved(tf: Tf, x: TfTensor, cos: TfTensor, sin: TfTensor): TfTensor {
  const [batch, heads, length, size] = x.shape as [number, number, number, number];
  const pairs = tf.reshape(x, [batch, heads, length, size / 2, 2]);
  const [a, b] = tf.unstack(pairs, 4) as [TfTensor, TfTensor];
  return tf.reshape(tf.stack([tf.sub(tf.mul(a, cos), tf.mul(b, sin)), tf.add(tf.mul(a, sin), tf.mul(b, cos))], 4), x.shape);
}

/** Y = softmax(cap(scale · Q Kᵀ) + mask) V; query heads share key heads in equal groups. */
const attention: Operator = (call) => {
  const { tf } = call;
  if (call.optional(4) !== undefined || call.optional(5) !== undefined) call.unsupported("past keys and values");
  if (call.wants(1) || call.wants(2) || call.wants(3)) call.unsupported("more outputs than Y");
  const input = call.float(0);
  const keyHeads = call.intAttribute("kv_num_heads", 0);
  const q = headsOf(call, input, call.intAttribute("q_num_heads", 0), "q_num_heads");
  const k = headsOf(call, call.float(1), keyHeads, "kv_num_heads");
  const v = headsOf(call, call.float(2), keyHeads, "kv_num_heads");
  const [batch, heads, length, size] = q.shape as [number, number, number, number];
  const [, groups, total, valueSize] = v.shape as [number, number, number, number];
  if (heads % groups !== 0) call.fail(`${heads} query heads do not divide into ${groups} key heads`, "input.shape");
  const perGroup = heads / groups;

  const queries = tf.reshape(tf.mul(q, call.floatAttribute("scale", 0) || 1 / Math.sqrt(size)), [batch * groups, perGroup * length, size]);
  const keys = tf.reshape(tf.transpose(k, [0, 1, 3, 2]), [batch * groups, size, total]);
  const products = tf.reshape(multiplyBatches(call.backend, queries, keys), [batch, heads, length, total]);
  const weights = tf.softmax(masked(call, capped(call, products)));
  const rows = tf.reshape(weights, [batch * groups, perGroup * length, total]);
  const mixed = multiplyBatches(call.backend, rows, tf.reshape(v, [batch * groups, total, valueSize]));
  const result = tf.reshape(mixed, [batch, heads, length, valueSize]);
  return { dtype: "F32", tensor: input.shape.length === 3 ? joinHeads(tf, result) : result };
};

function capped(call: Call, scores: TfTensor): TfTensor {
  const cap = call.floatAttribute("softcap", 0);
  return cap === 0 ? scores : call.tf.mul(call.tf.tanh(call.tf.div(scores, cap)), cap);
}

function masked(call: Call, scores: TfTensor): TfTensor {
  const { tf } = call;
  const mask: Value | undefined = call.optional(3);
  let result = scores;
  if (mask !== undefined) {
    result = mask.dtype === "BOOL" ? tf.add(result, blocked(tf, tf.cast(mask.tensor, "int32"))) : tf.add(result, mask.tensor);
  }
  if (call.intAttribute("is_causal", 0) === 0) return result;
  const [length, total] = scores.shape.slice(-2) as [number, number];
  const past = Int32Array.from({ length: length * total }, (_, n) => Number(n % total <= Math.floor(n / total)));
  return tf.add(result, blocked(tf, tf.tensor(past, [length, total], "int32")));
}

/** 0 where `allowed` is 1, -Infinity where it is 0. */
function blocked(tf: Tf, allowed: TfTensor): TfTensor {
  const shape = allowed.shape;
  return tf.where(tf.cast(allowed, "bool"), tf.zeros(shape), broadcast(tf, tf.scalar(-Infinity), shape));
}

export const TRANSFORMER: Readonly<Record<string, Operator>> = {
  RMSNormalization: rmsNormalization,
  LayerNormalization: layerNormalization,
  RotaryEmbedding: rotaryEmbedding,
  Attention: attention,
};
