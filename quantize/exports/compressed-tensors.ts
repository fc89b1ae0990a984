/**
 * Export to compressed-tensors: what vLLM and transformers load. Thin: the
 * layout in `formats/` knows names, bytes and configuration.
 * @module
 */
import { dialectEntry } from "../../formats/layouts/compressed-tensors/dialect.ts";
import { quantizationConfig } from "../../formats/layouts/compressed-tensors/groups.ts";
import { canHold, moduleTensors } from "../../formats/layouts/compressed-tensors/write.ts";
import type { Export } from "./export.ts";

export const compressedTensors: Export = {
  name: "compressed-tensors",
  summary: "safetensors with a quantization_config, for vLLM, SGLang and transformers",
  canHold: ({ weight, ...site }) => (weight === undefined ? { ok: true, format: "dense" } : canHold({ ...site, weight })),
  siteTensors: ({ module, weight, ...site }, scaleDType) =>
    weight === undefined ? [] : moduleTensors(module, { ...site, weight }, scaleDType),
  config(source, sites, ignore) {
    const quantized = sites.flatMap(({ module, weight, input, output }) =>
      weight === undefined ? [] : [{ module, weight, ...(input && { input }), ...(output && { output }) }],
    );
    const activations = quantized.flatMap(({ input, output }) => [input, output].filter((scheme) => scheme !== undefined));
    return { ...source, ...dialectEntry(activations), quantization_config: quantizationConfig(quantized, ignore) };
  },
};
