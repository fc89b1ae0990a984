/**
 * Gemma 2: four norms a layer with weights stored minus one, scaled embeddings, capped scores
 * and logits, and every other layer sliding.
 * @module
 */
import type { Architecture } from "./architecture.ts";
import { buildDecoder } from "./decoder.ts";
import { plainAttention, readHeads, readLayerTypes, readMlp, readRopeSettings, refuseBidirectional, ROPE_THETA } from "./decoder-config.ts";
import { readRope } from "./rope.ts";

export const GEMMA2: Architecture = {
  family: "gemma2",
  modelTypes: ["gemma2"],
  classNames: ["Gemma2ForCausalLM", "Gemma2Model"],
  maxPositions: (config) => config.size("max_position_embeddings", 8192),
  build(input) {
    const { config } = input;
    refuseBidirectional(config);
    const hidden = config.size("hidden_size", 2304);
    const layers = config.size("num_hidden_layers", 26);
    const heads = readHeads(config, { hidden, heads: 8, kvHeads: 4, headSize: 256 });
    const bias = config.flag("attention_bias", false);
    const softcap = config.nullablePositive("attn_logit_softcapping", 50);
    const logitSoftcap = config.nullablePositive("final_logit_softcapping", 30);
    const attention = {
      ...plainAttention(heads),
      scale: config.positive("query_pre_attn_scalar", 256) ** -0.5,
      qkvBias: bias,
      outputBias: bias,
      ...(softcap === undefined ? {} : { softcap }),
    };
    const mlp = readMlp(config, { size: 9216, activationKey: "hidden_activation", activation: "gelu_pytorch_tanh" });
    const window = config.nullableSize("sliding_window", 4096);
    const slides = readLayerTypes(config, layers, window, (index) => index % 2 === 0);
    const rope = readRope(config, readRopeSettings(config), {
      headSize: heads.headSize,
      maxPositions: GEMMA2.maxPositions(config),
      theta: config.positive("rope_theta", ROPE_THETA),
    });
    return buildDecoder(input, {
      vocabulary: config.size("vocab_size", 256000),
      hidden,
      layers,
      norm: { epsilon: config.positive("rms_norm_eps", 1e-6), offset: 1 },
      ropes: [rope],
      embeddingScale: Math.sqrt(hidden),
      ...(logitSoftcap === undefined ? {} : { logitSoftcap }),
      tiedHead: config.flag("tie_word_embeddings", true),
      layer: (index) => ({
        attention: { ...attention, masked: slides(index) || softcap !== undefined },
        mlp,
        sandwich: true,
        rope: 0,
        window: slides(index) ? window : undefined,
      }),
    });
  },
};
