/**
 * Qwen 3 with mixtures of experts on all layers but those `mlp_only_layers` and `decoder_sparse_step` leave plain.
 * @module
 */
import type { Architecture } from "./architecture.ts";
import { isInteger } from "./config.ts";
import { buildDecoder } from "./decoder.ts";
import { plainAttention, readHeads, readMlp, readQwenWindow, readRopeSettings, ROPE_THETA } from "./decoder-config.ts";
import { unfuseExperts } from "./fused-experts.ts";
import { readRope } from "./rope.ts";

const isIndex = (value: unknown): value is number => isInteger(value, 0);

export const QWEN3_MOE: Architecture = {
  family: "qwen3-moe",
  modelTypes: ["qwen3_moe"],
  classNames: ["Qwen3MoeForCausalLM", "Qwen3MoeModel"],
  maxPositions: (config) => config.size("max_position_embeddings", 32768),
  adapt: (tensors) => unfuseExperts(tensors, "qwen"),
  build(input) {
    const { config } = input;
    const hidden = config.size("hidden_size", 2048);
    const heads = readHeads(config, { hidden, heads: 32, kvHeads: 4 });
    const norm = { epsilon: config.positive("rms_norm_eps", 1e-6), offset: 0 } as const;
    const bias = config.flag("attention_bias", false);
    const window = readQwenWindow(config);
    const attention = { ...plainAttention(heads), qkvBias: bias, outputBias: bias, headNorm: norm, masked: window !== undefined };
    const plain = readMlp(config, { size: 6144 });
    const experts = config.count(config.firstOf(["num_experts", "num_local_experts"]), 128);
    const chosen = config.size("num_experts_per_tok", 8);
    if (experts > 0 && chosen > experts) config.fail("num_experts_per_tok", `at most the number of experts ${experts}`);
    const mixture = {
      kind: "experts",
      experts,
      chosen,
      normalize: config.flag("norm_topk_prob", false),
      size: config.size("moe_intermediate_size", 768),
      activation: plain.activation,
      names: "qwen",
    } as const;
    const plainLayers = new Set(config.list("mlp_only_layers", isIndex, "layer indices"));
    const step = config.size("decoder_sparse_step", 1);
    const isSparse = (index: number): boolean => !plainLayers.has(index) && experts > 0 && (index + 1) % step === 0;
    const rope = readRope(config, readRopeSettings(config), {
      headSize: heads.headSize,
      maxPositions: QWEN3_MOE.maxPositions(config),
      theta: config.positive("rope_theta", ROPE_THETA),
    });
    return buildDecoder(input, {
      vocabulary: config.size("vocab_size", 151936),
      hidden,
      layers: config.size("num_hidden_layers", 24),
      norm,
      ropes: [rope],
      tiedHead: config.flag("tie_word_embeddings", false),
      layer: (index) => ({ attention, mlp: isSparse(index) ? mixture : plain, sandwich: false, rope: 0, window }),
    });
  },
};
