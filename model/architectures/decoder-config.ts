/**
 * Settings that the Llama-like families read alike, each with its own defaults.
 * @module
 */
import { readActivation, type ActivationName } from "./activations.ts";
import type { Heads } from "./attention.ts";
import { isString, type ConfigReader } from "./config.ts";
import type { GatedMlp } from "./mlp.ts";

/** Base of rotary frequencies where config.json and the family name none. */
export const ROPE_THETA = 10_000;

/**
 * Heads with the family's defaults.
 *
 * @param defaults.kvHeads - when the key is absent; null in config.json, or no default, means as many as query heads.
 * @param defaults.headSize - when the key is absent; without one, and for null, hidden / heads.
 * @throws {FormatError} `format.config`
 */
export function readHeads(
  config: ConfigReader,
  defaults: { readonly hidden: number; readonly heads: number; readonly kvHeads?: number; readonly headSize?: number },
): Heads {
  const heads = config.size("num_attention_heads", defaults.heads);
  const kvHeads = (config.has("num_key_value_heads") ? config.optionalSize("num_key_value_heads") : defaults.kvHeads) ?? heads;
  const divided = Math.floor(defaults.hidden / heads);
  const headSize = (config.has("head_dim") ? config.optionalSize("head_dim") : defaults.headSize) ?? divided;
  if (headSize < 1) config.fail("num_attention_heads", `at most hidden_size ${defaults.hidden}`);
  if (heads % kvHeads !== 0) config.fail("num_key_value_heads", `a divisor of num_attention_heads ${heads}`);
  return { heads, kvHeads, headSize };
}

/** The gated MLP with the family's defaults. @throws {FormatError} `format.config` */
export function readMlp(
  config: ConfigReader,
  options: {
    readonly size: number;
    readonly bias?: boolean;
    readonly fused?: boolean;
    readonly activationKey?: string;
    readonly activation?: ActivationName;
  },
): GatedMlp {
  return {
    kind: "gated",
    size: config.size("intermediate_size", options.size),
    activation: readActivation(config, options.activationKey ?? "hidden_act", options.activation ?? "silu"),
    bias: options.bias ?? false,
    fused: options.fused ?? false,
  };
}

/** `rope_scaling` (before transformers 5) when it is there and says something, else `rope_parameters`; undefined = plain rope. */
export function readRopeSettings(config: ConfigReader): ConfigReader | undefined {
  const scaling = config.object("rope_scaling");
  return scaling === undefined || scaling.isEmpty() ? config.object("rope_parameters") : scaling;
}

export const SLIDING = "sliding_attention";
export const FULL = "full_attention";

/**
 * Whether layer `index` slides, from `layer_types` when it is there.
 *
 * @param implied - what the family does without `layer_types`.
 * @throws {FormatError} `format.config`
 */
export function readLayerTypes(config: ConfigReader, layers: number, implied: (index: number) => boolean): (index: number) => boolean {
  const types = config.list("layer_types", isString, "strings");
  if (types === undefined) return implied;
  if (types.length < layers) config.fail("layer_types", `a list of ${layers} entries, one a layer`);
  if (types.slice(0, layers).some((type) => type !== SLIDING && type !== FULL)) {
    config.fail("layer_types", `a list of "${FULL}" and "${SLIDING}"`);
  }
  return (index) => types[index] === SLIDING;
}
