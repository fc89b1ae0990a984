/**
 * OPT: learned positions from row 2, norms before (most sizes) or after (350m) attention and MLP,
 * and embeddings that may be narrower than the layers.
 * @module
 */
import type { Block } from "../model.ts";
import { readActivation, type ActivationName } from "./activations.ts";
import type { Architecture, ArchitectureInput } from "./architecture.ts";
import { BlockWriter } from "./block-writer.ts";
import type { ConfigReader } from "./config.ts";
import { writeLanguageHead } from "./head.ts";
import { layerNorm } from "./norms.ts";
import { plainMlp, plainSelfAttention, readDividingHeads } from "./plain-layer.ts";
import { enterStream, flatten, LayerBlocks, sameNames } from "./stream.ts";

/** Rows of the position table before position 0. */
const POSITION_OFFSET = 2;
/** torch's LayerNorm default; config.json has no key for it. */
const EPSILON = 1e-5;

interface OptSettings {
  readonly vocabulary: number;
  readonly hidden: number;
  /** Channels of the embeddings. */
  readonly width: number;
  readonly heads: number;
  readonly size: number;
  readonly activation: ActivationName;
  readonly bias: boolean;
  readonly affine: boolean;
  readonly before: boolean;
}

const ATTENTION = {
  module: "self_attn",
  q: "self_attn.q_proj",
  k: "self_attn.k_proj",
  v: "self_attn.v_proj",
  output: "self_attn.out_proj",
};

export const OPT: Architecture = {
  family: "opt",
  modelTypes: ["opt"],
  classNames: ["OPTForCausalLM", "OPTModel"],
  maxPositions: (config) => config.size("max_position_embeddings", 2048),
  build(input) {
    const { config, tensors } = input;
    const settings = readSettings(config);
    const { hidden, width, vocabulary, affine } = settings;
    const layers = config.size("num_hidden_layers", 12);
    const finalNorm = settings.before && !config.flag("_remove_final_layer_norm", false);
    const prefix = tensors.prefixOf(["model.decoder.", "decoder.", ""], "embed_tokens.weight");
    const prologue = writePrologue(input, settings, prefix);
    const blocks = new LayerBlocks(input.family, tensors);
    const stack: Block[] = [];
    for (let index = 0; index < layers; index++) {
      stack.push(blocks.layer(`${prefix}layers.${index}`, "", { hidden: "hidden" }, (writer) => writeLayer(writer, settings)));
    }
    const writer = new BlockWriter(`${input.family}.head`, "head", prefix, tensors);
    const { tokens, rows } = enterStream(writer.graph, hidden);
    const normed = finalNorm ? layerNorm(writer, tokens, "final_layer_norm", hidden, EPSILON, affine) : tokens;
    const narrowed = width === hidden ? normed : writer.linear(normed, "project_out", width, hidden);
    const tied = config.flag("tie_word_embeddings", true);
    const head = writeLanguageHead(writer, input, {
      input: narrowed,
      rows,
      width,
      vocabulary,
      tied,
      table: `${prefix}embed_tokens.weight`,
    });
    return {
      blocks: [prologue, ...stack, head.block],
      inputs: prologue.graph.inputs,
      outputs: [head.output],
      output: head.output,
      vocabularySize: vocabulary,
      hiddenSize: hidden,
      tiedHead: head.tied,
    };
  },
};

function readSettings(config: ConfigReader): OptSettings {
  const hidden = config.size("hidden_size", 768);
  return {
    vocabulary: config.size("vocab_size", 50272),
    hidden,
    width: config.optionalSize("word_embed_proj_dim") ?? hidden,
    heads: readDividingHeads(config, "num_attention_heads", 12, hidden),
    size: config.size("ffn_dim", 3072),
    activation: readActivation(config, "activation_function", "relu"),
    bias: config.flag("enable_bias", true),
    affine: config.flag("layer_norm_elementwise_affine", true),
    before: config.flag("do_layer_norm_before", true),
  };
}

function writePrologue({ family, tensors, config }: ArchitectureInput, { vocabulary, hidden, width }: OptSettings, prefix: string): Block {
  const writer = new BlockWriter(`${family}.embeddings`, "embeddings", prefix, tensors);
  const { graph } = writer;
  const ids = graph.input("input_ids", "I64", ["batch", "sequence"]);
  const positions = graph.input("position_ids", "I64", ["batch", "sequence"]);
  const words = graph.op("Gather", [writer.weight("embed_tokens.weight", [vocabulary, width]), ids], { axis: 0 });
  const table = writer.weight("embed_positions.weight", [OPT.maxPositions(config) + POSITION_OFFSET, hidden]);
  const places = graph.op("Gather", [table, graph.op("Add", [positions, graph.int64(POSITION_OFFSET)])], { axis: 0 });
  if (width === hidden) graph.op("Add", [words, places], {}, "hidden");
  else {
    const { tokens, rows } = flatten(graph, words, width);
    graph.op("Add", [graph.op("Reshape", [writer.linear(tokens, "project_in", hidden, width), rows]), places], {}, "hidden");
  }
  return writer.block("prologue", sameNames(["input_ids", "position_ids"]), sameNames(["hidden"]));
}

function writeLayer(writer: BlockWriter, { hidden, heads, size, activation, bias, affine, before }: OptSettings): void {
  const { graph } = writer;
  const { tokens, rows } = enterStream(graph, hidden);
  const norm = (value: string, local: string): string => layerNorm(writer, value, local, hidden, EPSILON, affine);
  const scores = { scale: (hidden / heads) ** -0.5, causal: true };
  const looked = before ? norm(tokens, "self_attn_layer_norm") : tokens;
  const attended = graph.op("Add", [tokens, plainSelfAttention(writer, looked, rows, ATTENTION, { hidden, heads, bias }, scores)]);
  const between = before ? attended : norm(attended, "self_attn_layer_norm");
  const read = before ? norm(between, "final_layer_norm") : between;
  const fed = graph.op("Add", [between, plainMlp(writer, read, { input: "fc1", output: "fc2" }, hidden, size, activation, { bias })]);
  graph.op("Reshape", [before ? fed : norm(fed, "final_layer_norm"), rows], {}, "hidden_out");
}
