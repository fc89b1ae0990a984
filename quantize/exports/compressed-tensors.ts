/**
 * Export to compressed-tensors: what vLLM and transformers load. Thin: the
 * layout in `formats/` knows names, bytes and configuration.
 * @module
 */
import { blockFormatOf } from "../../core/blocks/format.ts";
import { dialectEntry } from "../../formats/layouts/compressed-tensors/dialect.ts";
import { quantizationConfig } from "../../formats/layouts/compressed-tensors/groups.ts";
import { canHold, moduleTensors } from "../../formats/layouts/compressed-tensors/write.ts";
import type { Export } from "./export.ts";

export const compressedTensors: Export = {
  name: "compressed-tensors",
  summary: "safetensors with a quantization_config, for vLLM, SGLang and transformers",
  keyOrderRefusal:
    "each key head has an order of its own and so a rotary frequency vector of its own, and Hugging Face, vLLM and GGUF have one per model",
  canHold: ({ weight, ...site }) => (weight === undefined ? { ok: true, format: "dense" } : canHold({ ...site, weight })),
  siteTensors: ({ module, weight, ...site }, scaleDType) =>
    weight === undefined ? [] : moduleTensors(module, { ...site, weight }, scaleDType),
  config(source, sites, ignore) {
    const quantized = sites.flatMap(({ module, weight, input, output }) =>
      weight === undefined ? [] : [{ module, weight, ...(input && { input }), ...(output && { output }) }],
    );
    if (quantized.length === 0) return source;
    // Blocks have one dialect each, which their format says already.
    const activations = quantized
      .flatMap(({ input, output }) => [input, output].filter((scheme) => scheme !== undefined))
      .filter((scheme) => blockFormatOf(scheme) === undefined);
    return { ...source, ...dialectEntry(activations), quantization_config: quantizationConfig(quantized, ignore) };
  },
};
