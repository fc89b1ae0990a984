/**
 * Phi 3, 3.5 and 4-mini: Llama with fused projections, partial rotation and long-context rope.
 * @module
 */
import type { Architecture } from "./architecture.ts";
import { buildDecoder } from "./decoder.ts";
import { plainAttention, readHeads, readMlp, readRopeSettings, ROPE_THETA } from "./decoder-config.ts";
import { readRope } from "./rope.ts";

const ORIGINAL_POSITIONS = 4096;

export const PHI3: Architecture = {
  family: "phi3",
  modelTypes: ["phi3"],
  classNames: ["Phi3ForCausalLM", "Phi3Model"],
  maxPositions: (config) => config.size("max_position_embeddings", 4096),
  build(input) {
    const { config } = input;
    const hidden = config.size("hidden_size", 3072);
    const heads = readHeads(config, { hidden, heads: 32 });
    const window = config.optionalSize("sliding_window");
    const settings = readRopeSettings(config);
    const partial = settings?.optionalPositive("partial_rotary_factor") ?? config.positive("partial_rotary_factor", 1);
    if (partial > 1) config.fail("partial_rotary_factor", "a share of a head, at most 1");
    const rope = readRope(config, settings, {
      headSize: heads.headSize,
      maxPositions: PHI3.maxPositions(config),
      theta: config.positive("rope_theta", ROPE_THETA),
      partial,
      aliases: { su: "longrope", yarn: "longrope" },
      original: ORIGINAL_POSITIONS,
    });
    const layer = {
      attention: { ...plainAttention(heads), fused: true, rotarySize: rope.size, masked: window !== undefined },
      mlp: readMlp(config, { size: 8192, fused: true }),
      sandwich: false,
      rope: 0,
      window,
    };
    return buildDecoder(input, {
      vocabulary: config.size("vocab_size", 32064),
      hidden,
      layers: config.size("num_hidden_layers", 32),
      norm: { epsilon: config.positive("rms_norm_eps", 1e-5), offset: 0 },
      ropes: [rope],
      tiedHead: config.flag("tie_word_embeddings", false),
      layer: () => layer,
    });
  },
};
