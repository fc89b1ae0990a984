/**
 * Dialect `contrib`: opset 17 and ONNX Runtime's fused transformer operators (domain com.microsoft), which its
 * native, WASM and WebGPU builds have had for years.
 * @module
 */
import type { GraphNode } from "../../graph/graph.ts";
import type { Emitter } from "../emitter.ts";
import type { Lengths } from "../lengths.ts";
import { integerAttribute, stringAttribute } from "./attributes.ts";
import type { Dialect, ExportedAttention } from "./dialect.ts";
import { biasOf, PLAIN } from "./plain.ts";

const MICROSOFT = "com.microsoft";
/** GroupQueryAttention refuses other head sizes when it runs. */
const HEAD_SIZE_UNIT = 8;

export const CONTRIB: Dialect = {
  name: "contrib",
  opset: 17,
  write(emitter, node) {
    const { inputs, outputs, attributes } = node;
    // SimplifiedLayerNormalization is ONNX Runtime's, though it stands in the standard domain.
    if (node.op === "RMSNormalization") emitter.multi("SimplifiedLayerNormalization", inputs, { ...attributes, stash_type: 1 }, outputs);
    else if (node.op === "Gelu") {
      const op = stringAttribute(attributes, "approximate", "none") === "tanh" ? "FastGelu" : "Gelu";
      emitter.multi(op, inputs, {}, outputs, MICROSOFT);
    } else if (node.op === "RotaryEmbedding") writeRotation(emitter, node);
    else PLAIN.write(emitter, node);
  },
  attend(emitter, attention, lengths) {
    const { sight, cache, softcap, heads, kvHeads, headSize } = attention;
    if (sight === "causal" && cache !== undefined && headSize % HEAD_SIZE_UNIT === 0) return attendGrouped(emitter, attention, lengths!);
    if (sight !== "causal" && softcap === undefined && heads === kvHeads) return attendAll(emitter, attention, lengths);
    return PLAIN.attend(emitter, attention, lengths);
  },
};

/** The operator looks its tables up by position; ours hold a row for each token, so a token's number is its position. */
function writeRotation(e: Emitter, { inputs, outputs, attributes }: GraphNode): void {
  const [x, cos, sin] = inputs;
  const rows = (table: string): string =>
    e.once(`rows ${table}`, () => {
      const width = e.op("Shape", [table], { start: 2, end: 3 });
      return e.op("Reshape", [table, e.op("Concat", [e.int64([-1]), width], { axis: 0 })]);
    });
  const places = e.once(`places ${cos}`, () => {
    const dims = e.op("Shape", [cos!], { start: 0, end: 2 });
    const indices = e.op("Range", [e.int64(0), e.op("ReduceProd", [dims], { keepdims: 0 }), e.int64(1)]);
    return e.op("Reshape", [indices, dims]);
  });
  const rotated = integerAttribute(attributes, "rotary_embedding_dim", 0);
  const heads = integerAttribute(attributes, "num_heads", 0);
  const shape = { num_heads: heads, ...(rotated === 0 ? {} : { rotary_embedding_dim: rotated }) };
  e.op("RotaryEmbedding", [x!, places, rows(cos!), rows(sin!)], shape, outputs[0], MICROSOFT);
}

/** Padding is in the bias: the operator itself knows only a length for each row, which left padding is not. */
function attendGrouped(e: Emitter, attention: ExportedAttention, lengths: Lengths): string {
  const { query, key, value, heads, kvHeads, headSize, scale, softcap, window, output } = attention;
  const cache = attention.cache!;
  const attributes = {
    num_heads: heads,
    kv_num_heads: kvHeads,
    scale: { float: scale },
    ...(softcap === undefined ? {} : { softcap: { float: softcap } }),
    ...(window === undefined ? {} : { local_window_size: window }),
  };
  const inputs = [
    query,
    key,
    value,
    cache.pastKey,
    cache.pastValue,
    lengths.lastIndices(),
    lengths.totalScalar(),
    "",
    "",
    "",
    lengths.bias(undefined),
  ];
  const [mixed] = e.fresh("attention", 1);
  e.multi("GroupQueryAttention", inputs, attributes, [mixed!, cache.presentKey, cache.presentValue], MICROSOFT);
  return e.op("Reshape", [mixed!, e.int64([-1, heads * headSize])], {}, output);
}

function attendAll(e: Emitter, attention: ExportedAttention, lengths: Lengths | undefined): string {
  const { query, key, value, heads, headSize, scale, output } = attention;
  const bias = biasOf(e, attention, lengths);
  const inputs = bias === undefined ? [query, key, value] : [query, key, value, "", "", bias];
  const mixed = e.op("MultiHeadAttention", inputs, { num_heads: heads, scale: { float: scale } }, undefined, MICROSOFT);
  return e.op("Reshape", [mixed, e.int64([-1, heads * headSize])], {}, output);
}
