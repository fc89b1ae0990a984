/**
 * Dialect `plain`: operators of opset 17 and nothing else, for runtimes without the fused ones.
 * @module
 */
import type { GraphNode } from "../../graph/graph.ts";
import type { Emitter } from "../emitter.ts";
import { maskBias, type Lengths } from "../lengths.ts";
import { floatAttribute, integerAttribute, stringAttribute } from "./attributes.ts";
import type { CacheValues, Dialect, ExportedAttention } from "./dialect.ts";

export const PLAIN: Dialect = {
  name: "plain",
  opset: 17,
  write(emitter, node) {
    if (node.op === "RMSNormalization") writeRmsNorm(emitter, node);
    else if (node.op === "Gelu") writeGelu(emitter, node);
    else if (node.op === "RotaryEmbedding") writeRotation(emitter, node);
    else emitter.multi(node.op, node.inputs, node.attributes, node.outputs, node.domain);
  },
  attend: attendPlainly,
};

/** x / sqrt(mean(x²) + epsilon) · scale. */
function writeRmsNorm(e: Emitter, { inputs, outputs, attributes }: GraphNode): void {
  const [x, scale] = inputs;
  const mean = e.op("ReduceMean", [e.op("Mul", [x!, x!])], { axes: [-1], keepdims: 1 });
  const root = e.op("Sqrt", [e.op("Add", [mean, e.float32(floatAttribute(attributes, "epsilon", 1e-5))])]);
  e.op("Mul", [e.op("Div", [x!, root]), scale!], {}, outputs[0]);
}

/** x/2 · (1 + erf(x/√2)), or its tanh approximation. */
function writeGelu(e: Emitter, { inputs, outputs, attributes }: GraphNode): void {
  const x = inputs[0]!;
  const half = e.op("Mul", [x, e.float32(0.5)]);
  const curve =
    stringAttribute(attributes, "approximate", "none") === "tanh"
      ? e.op("Tanh", [
          e.op("Mul", [
            e.op("Add", [x, e.op("Mul", [e.op("Mul", [e.op("Mul", [x, x]), x]), e.float32(0.044715)])]),
            e.float32(Math.sqrt(2 / Math.PI)),
          ]),
        ])
      : e.op("Erf", [e.op("Mul", [x, e.float32(Math.SQRT1_2)])]);
  e.op("Mul", [half, e.op("Add", [curve, e.float32(1)])], {}, outputs[0]);
}

/** Halves of each head's first channels rotate: (a·cos - b·sin, b·cos + a·sin); the rest stays. */
function writeRotation(e: Emitter, { inputs, outputs, attributes }: GraphNode): void {
  const [x, cos, sin] = inputs;
  const heads = integerAttribute(attributes, "num_heads", 0);
  const rotated = integerAttribute(attributes, "rotary_embedding_dim", 0);
  const table = (value: string): string => e.once(`headed ${value}`, () => e.op("Unsqueeze", [value, e.int64([2])]));
  const [c, s] = [table(cos!), table(sin!)];
  const whole = e.op("Reshape", [x!, e.int64([0, 0, heads, -1])]);
  const part = (from: number, to: number): string => e.op("Slice", [whole, e.int64([from]), e.int64([to]), e.int64([3])]);
  const END = 2 ** 31 - 1;
  const [turning, rest] = rotated === 0 ? [whole, undefined] : [part(0, rotated), part(rotated, END)];
  const [a, b] = e.multi("Split", [turning], { axis: 3 }, e.fresh("half", 2));
  const first = e.op("Sub", [e.op("Mul", [a!, c]), e.op("Mul", [b!, s])]);
  const second = e.op("Add", [e.op("Mul", [b!, c]), e.op("Mul", [a!, s])]);
  const joined = e.op("Concat", rest === undefined ? [first, second] : [first, second, rest], { axis: 3 });
  e.op("Reshape", [joined, e.int64([0, 0, -1])], {}, outputs[0]);
}

/** The query heads of one key-value head are stacked as rows, so that keys are not repeated. */
function attendPlainly(e: Emitter, attention: ExportedAttention, lengths: Lengths | undefined): string {
  const { query, heads, kvHeads, headSize, scale, softcap, output } = attention;
  const { key, value } = attention.cache === undefined ? headed(e, attention) : extend(e, attention, attention.cache);
  const group = heads / kvHeads;
  const grouped = e.op("Reshape", [e.op("Mul", [query, e.float32(scale)]), e.int64([0, 0, kvHeads, group, headSize])]);
  const stacked = e.op("Reshape", [e.op("Transpose", [grouped], { perm: [0, 2, 3, 1, 4] }), e.int64([0, kvHeads, -1, headSize])]);
  const scores = e.op("MatMul", [stacked, e.op("Transpose", [key], { perm: [0, 1, 3, 2] })]);
  const capped =
    softcap === undefined ? scores : e.op("Mul", [e.op("Tanh", [e.op("Div", [scores, e.float32(softcap)])]), e.float32(softcap)]);
  const byHead = e.op("Reshape", [capped, e.int64([0, heads, -1, 0])]);
  const bias = biasOf(e, attention, lengths);
  const weights = e.op("Softmax", [bias === undefined ? byHead : e.op("Add", [byHead, bias])], { axis: -1 });
  const mixed = e.op("MatMul", [e.op("Reshape", [weights, e.int64([0, kvHeads, -1, 0])]), value]);
  const rows = e.op("Transpose", [e.op("Reshape", [mixed, e.int64([0, heads, -1, headSize])])], { perm: [0, 2, 1, 3] });
  return e.op("Reshape", [rows, e.int64([-1, heads * headSize])], {}, output);
}

/** What is added to the scores; undefined where every position sees all. */
export function biasOf(e: Emitter, { sight, mask, window }: ExportedAttention, lengths: Lengths | undefined): string | undefined {
  if (sight === "causal") return lengths!.bias(window);
  return sight === "masked" ? maskBias(e, mask!) : undefined;
}

/** Keys and values as [batch, kvHeads, sequence, headSize]. */
function headed(e: Emitter, { key, value, kvHeads, headSize }: ExportedAttention): { readonly key: string; readonly value: string } {
  const split = (x: string): string =>
    e.op("Transpose", [e.op("Reshape", [x, e.int64([0, 0, kvHeads, headSize])])], { perm: [0, 2, 1, 3] });
  return { key: split(key), value: split(value) };
}

function extend(e: Emitter, attention: ExportedAttention, cache: CacheValues): { readonly key: string; readonly value: string } {
  const { key, value } = headed(e, attention);
  return {
    key: e.op("Concat", [cache.pastKey, key], { axis: 2 }, cache.presentKey),
    value: e.op("Concat", [cache.pastValue, value], { axis: 2 }, cache.presentValue),
  };
}
