/**
 * Dialect `standard`: ONNX opset 23 with its RMSNormalization, RotaryEmbedding and Attention, for any runtime that has them.
 * @module
 */
import type { Dialect } from "./dialect.ts";

export const STANDARD: Dialect = {
  name: "standard",
  opset: 23,
  write(emitter, { op, inputs, attributes, outputs, domain }) {
    emitter.multi(op, inputs, attributes, outputs, domain);
  },
  attend(e, { query, key, value, heads, kvHeads, headSize, scale, softcap, sight, window, mask, cache, output }, lengths) {
    const attributes = {
      q_num_heads: heads,
      kv_num_heads: kvHeads,
      scale: { float: scale },
      ...(softcap === undefined ? {} : { softcap: { float: softcap } }),
    };
    const seen = sight === "causal" ? lengths!.allowed(window) : sight === "masked" ? mask! : "";
    const inputs = cache === undefined ? [query, key, value, seen] : [query, key, value, seen, cache.pastKey, cache.pastValue];
    const [mixed] = e.fresh("attention", 1);
    const outputs = cache === undefined ? [mixed!] : [mixed!, cache.presentKey, cache.presentValue];
    e.multi("Attention", seen === "" && cache === undefined ? inputs.slice(0, 3) : inputs, attributes, outputs);
    return e.op("Reshape", [mixed!, e.int64([-1, heads * headSize])], {}, output);
  },
};
