/**
 * Qwen 3: Qwen 2 with a norm of each head of q and k before rotation, and an explicit head size.
 * @module
 */
import type { Architecture } from "./architecture.ts";
import { buildDecoder } from "./decoder.ts";
import { plainAttention, readHeads, readLayerTypes, readMlp, readQwenWindow, readRopeSettings, ROPE_THETA } from "./decoder-config.ts";
import { readRope } from "./rope.ts";

export const QWEN3: Architecture = {
  family: "qwen3",
  modelTypes: ["qwen3"],
  classNames: ["Qwen3ForCausalLM", "Qwen3Model"],
  maxPositions: (config) => config.size("max_position_embeddings", 32768),
  build(input) {
    const { config } = input;
    const hidden = config.size("hidden_size", 4096);
    const layers = config.size("num_hidden_layers", 32);
    const heads = readHeads(config, { hidden, heads: 32, kvHeads: 32, headSize: 128 });
    const norm = { epsilon: config.positive("rms_norm_eps", 1e-6), offset: 0 } as const;
    const bias = config.flag("attention_bias", false);
    const attention = { ...plainAttention(heads), qkvBias: bias, outputBias: bias, headNorm: norm };
    const mlp = readMlp(config, { size: 22016 });
    const window = readQwenWindow(config);
    const firstSliding = config.count("max_window_layers", 28);
    const slides = readLayerTypes(config, layers, window, (index) => window !== undefined && index >= firstSliding);
    const rope = readRope(config, readRopeSettings(config), {
      headSize: heads.headSize,
      maxPositions: QWEN3.maxPositions(config),
      theta: config.positive("rope_theta", ROPE_THETA),
    });
    return buildDecoder(input, {
      vocabulary: config.size("vocab_size", 151936),
      hidden,
      layers,
      norm,
      ropes: [rope],
      tiedHead: config.flag("tie_word_embeddings", false),
      layer: (index) => ({
        attention: { ...attention, masked: slides(index) },
        mlp,
        sandwich: false,
        rope: 0,
        window: slides(index) ? window : undefined,
      }),
    });
  },
};
