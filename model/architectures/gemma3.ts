/**
 * Gemma 3 (text): Gemma 2 with head norms in place of capped scores, five sliding layers to one
 * global by default, and a rope of its own for each kind of layer.
 * @module
 */
import type { Architecture } from "./architecture.ts";
import type { ConfigReader } from "./config.ts";
import { buildDecoder } from "./decoder.ts";
import { FULL, plainAttention, readHeads, readLayerTypes, readMlp, refuseBidirectional, SLIDING } from "./decoder-config.ts";
import { readRope, type Rope } from "./rope.ts";

const GLOBAL = 0;
const LOCAL = 1;

export const GEMMA3: Architecture = {
  family: "gemma3",
  modelTypes: ["gemma3_text"],
  classNames: ["Gemma3ForCausalLM", "Gemma3TextModel"],
  maxPositions: (config) => config.size("max_position_embeddings", 131_072),
  build(input) {
    const { config } = input;
    refuseBidirectional(config);
    const hidden = config.size("hidden_size", 2304);
    const layers = config.size("num_hidden_layers", 26);
    const heads = readHeads(config, { hidden, heads: 8, kvHeads: 4, headSize: 256 });
    const norm = { epsilon: config.positive("rms_norm_eps", 1e-6), offset: 1 } as const;
    const bias = config.flag("attention_bias", false);
    const attention = {
      ...plainAttention(heads),
      scale: config.positive("query_pre_attn_scalar", 256) ** -0.5,
      qkvBias: bias,
      outputBias: bias,
      headNorm: norm,
    };
    const mlp = readMlp(config, { size: 9216, activationKey: "hidden_activation", activation: "gelu_pytorch_tanh" });
    const window = config.nullableSize("sliding_window", 4096);
    const pattern = config.size("sliding_window_pattern", 6);
    const slides = readLayerTypes(config, layers, window, (index) => (index + 1) % pattern !== 0);
    const logitSoftcap = config.optionalPositive("final_logit_softcapping");
    return buildDecoder(input, {
      vocabulary: config.size("vocab_size", 262_208),
      hidden,
      layers,
      norm,
      ropes: readRopes(config, heads.headSize),
      embeddingScale: Math.sqrt(hidden),
      ...(logitSoftcap === undefined ? {} : { logitSoftcap }),
      tiedHead: config.flag("tie_word_embeddings", true),
      layer: (index) => ({
        attention: { ...attention, masked: slides(index) },
        mlp,
        sandwich: true,
        rope: slides(index) ? LOCAL : GLOBAL,
        window: slides(index) ? window : undefined,
      }),
    });
  },
};

/** Global, then local. Before transformers 5 `rope_scaling` and `rope_theta` were the global ones. */
function readRopes(config: ConfigReader, headSize: number): readonly Rope[] {
  const maxPositions = GEMMA3.maxPositions(config);
  const nested = config.object("rope_parameters");
  if (nested !== undefined && !nested.isEmpty() && !nested.has(FULL) && !nested.has(SLIDING)) {
    config.fail("rope_parameters", `an object with "${FULL}" and "${SLIDING}"`);
  }
  const scaling = config.object("rope_scaling");
  const globalTheta = nested?.object(FULL)?.optionalPositive("rope_theta") ?? config.positive("rope_theta", 1_000_000);
  const global = readRope(config, scaling ?? nested?.object(FULL), { headSize, maxPositions, theta: globalTheta });
  const localTheta = config.positive("rope_local_base_freq", 10_000);
  return [global, readRope(config, nested?.object(SLIDING), { headSize, maxPositions, theta: localTheta })];
}
