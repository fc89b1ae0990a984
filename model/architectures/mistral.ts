/**
 * Mistral: Llama with a sliding window on all layers.
 * @module
 */
import type { Architecture } from "./architecture.ts";
import { buildDecoder } from "./decoder.ts";
import { plainAttention, readHeads, readMlp, readRopeSettings, ROPE_THETA } from "./decoder-config.ts";
import { readRope } from "./rope.ts";

export const MISTRAL: Architecture = {
  family: "mistral",
  modelTypes: ["mistral"],
  classNames: ["MistralForCausalLM", "MistralModel"],
  maxPositions: (config) => config.size("max_position_embeddings", 4096 * 32),
  build(input) {
    const { config } = input;
    const hidden = config.size("hidden_size", 4096);
    const heads = readHeads(config, { hidden, heads: 32, kvHeads: 8 });
    const window = config.nullableSize("sliding_window", 4096);
    const layer = {
      attention: { ...plainAttention(heads), masked: window !== undefined },
      mlp: readMlp(config, { size: 14336 }),
      sandwich: false,
      rope: 0,
      window,
    };
    const rope = readRope(config, readRopeSettings(config), {
      headSize: heads.headSize,
      maxPositions: MISTRAL.maxPositions(config),
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
