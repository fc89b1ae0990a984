/**
 * Settings that the Llama-like families read alike, each with its own defaults.
 * @module
 */
import { readActivation, type ActivationName } from "./activations.ts";
import { UnsupportedError } from "../../core/errors.ts";
import type { Heads, RotaryAttention } from "./attention.ts";
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

/** Attention as Llama has it: no biases, all channels rotate, scores over the root of the head size. */
export function plainAttention(heads: Heads): RotaryAttention {
  const { headSize } = heads;
  return { ...heads, scale: headSize ** -0.5, qkvBias: false, outputBias: false, fused: false, rotarySize: headSize, masked: false };
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
 * @param window - of sliding layers; undefined = the model has none.
 * @param implied - what the family does without `layer_types`.
 * @throws {FormatError} `format.config`
 */
export function readLayerTypes(
  config: ConfigReader,
  layers: number,
  window: number | undefined,
  implied: (index: number) => boolean,
): (index: number) => boolean {
  const types = config.list("layer_types", isString, "strings");
  const slides = types === undefined ? implied : (index: number): boolean => types[index] === SLIDING;
  if (types !== undefined && types.length < layers) config.fail("layer_types", `a list of ${layers} entries, one a layer`);
  if (types?.slice(0, layers).some((type) => type !== SLIDING && type !== FULL) === true) {
    config.fail("layer_types", `a list of "${FULL}" and "${SLIDING}"`);
  }
  return (index) => {
    const sliding = slides(index);
    if (sliding && window === undefined) config.fail("sliding_window", `a length, because layer ${index} slides`);
    return sliding;
  };
}

/** Qwen's window: given by default but used only when `use_sliding_window` says so. */
export function readQwenWindow(config: ConfigReader): number | undefined {
  return config.flag("use_sliding_window", false) ? config.nullableSize("sliding_window", 4096) : undefined;
}

/** @throws {UnsupportedError} `unsupported.architecture` for Gemma checkpoints that look both ways (embedding models). */
export function refuseBidirectional(config: ConfigReader): void {
  if (config.flag("use_bidirectional_attention", false)) {
    throw new UnsupportedError(
      "unsupported.architecture",
      "config.json: use_bidirectional_attention is true; only causal attention is built for this family",
      { key: "use_bidirectional_attention", value: true },
    );
  }
}
