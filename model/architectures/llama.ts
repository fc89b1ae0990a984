/**
 * Llama 1, 2, 3 and everything saved as such.
 * @module
 */
import type { Architecture } from "./architecture.ts";
import { buildDecoder } from "./decoder.ts";
import { plainAttention, readHeads, readMlp, readRopeSettings, ROPE_THETA } from "./decoder-config.ts";
import { readRope } from "./rope.ts";

export const LLAMA: Architecture = {
  family: "llama",
  modelTypes: ["llama"],
  classNames: ["LlamaForCausalLM", "LlamaModel"],
  maxPositions: (config) => config.size("max_position_embeddings", 2048),
  build(input) {
    const { config } = input;
    const hidden = config.size("hidden_size", 4096);
    const heads = readHeads(config, { hidden, heads: 32 });
    const attentionBias = config.flag("attention_bias", false);
    const layer = {
      attention: { ...plainAttention(heads), qkvBias: attentionBias, outputBias: attentionBias },
      mlp: readMlp(config, { size: 11008, bias: config.flag("mlp_bias", false) }),
      sandwich: false,
      rope: 0,
      window: undefined,
    };
    const rope = readRope(config, readRopeSettings(config), {
      headSize: heads.headSize,
      maxPositions: LLAMA.maxPositions(config),
      theta: config.positive("rope_theta", ROPE_THETA),
    });
    return buildDecoder(input, {
      vocabulary: config.size("vocab_size", 32000),
      hidden,
      layers: config.size("num_hidden_layers", 32),
      norm: { epsilon: config.positive("rms_norm_eps", 1e-6), offset: 0 },
      ropes: [rope],
      tiedHead: config.flag("tie_word_embeddings", false),
      layer: () => layer,
    });
  },
};
