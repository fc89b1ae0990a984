/**
 * Mixtral: Mistral whose MLP is a mixture of experts, the chosen probabilities renormalised.
 * @module
 */
import type { Architecture } from "./architecture.ts";
import { buildDecoder } from "./decoder.ts";
import { plainAttention, readHeads, readMlp, readRopeSettings } from "./decoder-config.ts";
import { unfuseExperts } from "./fused-experts.ts";
import { readRope } from "./rope.ts";

export const MIXTRAL: Architecture = {
  family: "mixtral",
  modelTypes: ["mixtral"],
  classNames: ["MixtralForCausalLM", "MixtralModel"],
  maxPositions: (config) => config.size("max_position_embeddings", 4096 * 32),
  adapt: (tensors) => unfuseExperts(tensors, "mixtral"),
  build(input) {
    const { config } = input;
    const hidden = config.size("hidden_size", 4096);
    const heads = readHeads(config, { hidden, heads: 32, kvHeads: 8 });
    const window = config.optionalSize("sliding_window");
    const { size, activation } = readMlp(config, { size: 14336 });
    const experts = config.size(config.firstOf(["num_local_experts", "num_experts"]), 8);
    const chosen = config.size("num_experts_per_tok", 2);
    if (chosen > experts) config.fail("num_experts_per_tok", `at most the number of experts ${experts}`);
    const layer = {
      attention: { ...plainAttention(heads), masked: window !== undefined },
      mlp: { kind: "experts", experts, chosen, normalize: true, size, activation, names: "mixtral" },
      sandwich: false,
      rope: 0,
      window,
    } as const;
    const rope = readRope(config, readRopeSettings(config), {
      headSize: heads.headSize,
      maxPositions: MIXTRAL.maxPositions(config),
      theta: config.positive("rope_theta", 1_000_000),
    });
    return buildDecoder(input, {
      vocabulary: config.size("vocab_size", 32000),
      hidden,
      layers: config.size("num_hidden_layers", 32),
      norm: { epsilon: config.positive("rms_norm_eps", 1e-5), offset: 0 },
      ropes: [rope],
      tiedHead: config.flag("tie_word_embeddings", false),
      layer: () => layer,
    });
  },
};
