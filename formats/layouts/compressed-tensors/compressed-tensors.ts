/**
 * compressed-tensors: the artifact directory of llm-compressor, read by vLLM, SGLang and transformers.
 *
 * `config.json` holds `quantization_config`; the safetensors files hold codes and scales under the names of the
 * modules. Byte maps: `docs/formats/compressed-tensors.md`, `pack-quantized.ts`, `byte-quantized.ts`.
 * @module
 */
import { lazyFloat, type LazyTensor } from "../../../core/tensor.ts";
import type { QuantScheme, SiteActivations } from "../../../core/scheme.ts";
import { isObject } from "../../containers/json.ts";
import type { ArtifactLayout } from "../layout.ts";
import { parseQuantizationConfig } from "./config.ts";
import { applyDialect } from "./dialect.ts";
import { readModules } from "./read.ts";

/** `quant_method` in config.json. */
export const QUANT_METHOD = "compressed-tensors";

export const compressedTensors: ArtifactLayout = {
  name: QUANT_METHOD,

  matches(config) {
    const declared = config["quantization_config"];
    return isObject(declared) && declared["quant_method"] === QUANT_METHOD;
  },

  async read(checkpoint) {
    const config = parseQuantizationConfig(checkpoint.config?.["quantization_config"]);
    const modules = await readModules(checkpoint.tensors, config);
    const replaced = new Set([...modules.values()].flatMap(({ names }) => names));
    const tensors = new Map<string, LazyTensor>();
    for (const [name, tensor] of checkpoint.tensors) if (!replaced.has(name)) tensors.set(name, tensor);
    const activations = new Map<string, SiteActivations>();
    const weights = new Map<string, QuantScheme>();
    for (const [module, stored] of modules) {
      const name = `${module}.weight`;
      tensors.set(
        name,
        lazyFloat(name, [stored.rows, stored.cols], () => stored.readFloat()),
      );
      weights.set(module, stored.weight);
      if (stored.activations.input !== undefined || stored.activations.output !== undefined) activations.set(module, stored.activations);
    }
    return { tensors, activations: applyDialect(checkpoint.config, activations), weights, format: config.format };
  },
};
