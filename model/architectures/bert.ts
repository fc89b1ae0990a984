/**
 * BERT encoders: segments, padding masks, norms after the residual sum, and the pooler where there is one.
 * Task heads are left to the checkpoint: the model ends in the last hidden state.
 * @module
 */
import { UnsupportedError } from "../../core/errors.ts";
import type { LazyTensor } from "../../core/tensor.ts";
import type { Block } from "../model.ts";
import { readActivation, type ActivationName } from "./activations.ts";
import type { Architecture, ArchitectureInput } from "./architecture.ts";
import { BlockWriter } from "./block-writer.ts";
import type { ConfigReader } from "./config.ts";
import { causalMask, paddingMask } from "./masks.ts";
import { layerNorm } from "./norms.ts";
import { plainMlp, plainSelfAttention, readDividingHeads } from "./plain-layer.ts";
import { enterStream, LayerBlocks, sameNames } from "./stream.ts";

interface BertLayer {
  readonly hidden: number;
  readonly heads: number;
  readonly size: number;
  readonly activation: ActivationName;
  readonly epsilon: number;
}

const ATTENTION = {
  module: "attention.self",
  q: "attention.self.query",
  k: "attention.self.key",
  v: "attention.self.value",
  output: "attention.output.dense",
};
const INPUTS = ["input_ids", "token_type_ids", "attention_mask", "position_ids"];

export const BERT: Architecture = {
  family: "bert",
  modelTypes: ["bert"],
  classNames: [
    "BertModel",
    "BertForPreTraining",
    "BertLMHeadModel",
    "BertForMaskedLM",
    "BertForNextSentencePrediction",
    "BertForSequenceClassification",
    "BertForMultipleChoice",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
  ],
  maxPositions: (config) => config.size("max_position_embeddings", 512),
  adapt: renameNorms,
  build(input) {
    const { config, tensors } = input;
    refuseVariants(config);
    const hidden = config.size("hidden_size", 768);
    const vocabulary = config.size("vocab_size", 30522);
    const layers = config.size("num_hidden_layers", 12);
    const prefix = tensors.prefixOf(["", "bert."], "embeddings.word_embeddings.weight");
    const layer: BertLayer = {
      hidden,
      heads: readDividingHeads(config, "num_attention_heads", 12, hidden),
      size: config.size("intermediate_size", 3072),
      activation: readActivation(config, "hidden_act", "gelu"),
      epsilon: config.positive("layer_norm_eps", 1e-12),
    };
    const prologue = writePrologue(input, layer, prefix, vocabulary);
    const blocks = new LayerBlocks(input.family, tensors);
    const reads = { hidden: "hidden", mask: "mask" };
    const stack: Block[] = [];
    for (let index = 0; index < layers; index++) {
      stack.push(blocks.layer(`${prefix}encoder.layer.${index}`, "", reads, (writer) => writeLayer(writer, layer)));
    }
    const pooled = tensors.has(`${prefix}pooler.dense.weight`);
    return {
      blocks: [prologue, ...stack, writeEnd(input, prefix, hidden, pooled)],
      inputs: prologue.graph.inputs,
      outputs: pooled ? ["last_hidden_state", "pooler_output"] : ["last_hidden_state"],
      output: "last_hidden_state",
      vocabularySize: vocabulary,
      hiddenSize: hidden,
      tiedHead: false,
    };
  },
};

/** Files older than 2019 call the weight of a norm gamma and its bias beta. */
function renameNorms(tensors: ReadonlyMap<string, LazyTensor>): ReadonlyMap<string, LazyTensor> {
  const modern = (name: string): string =>
    name.replace(/\.LayerNorm\.gamma$/, ".LayerNorm.weight").replace(/\.LayerNorm\.beta$/, ".LayerNorm.bias");
  return new Map([...tensors].map(([name, tensor]) => [modern(name), name === modern(name) ? tensor : { ...tensor, name: modern(name) }]));
}

function refuseVariants(config: ConfigReader): void {
  const positions = config.text("position_embedding_type", "absolute");
  const refuse = (key: string, value: unknown, instead: string): never => {
    throw new UnsupportedError("unsupported.architecture", `config.json: ${key} is ${JSON.stringify(value)}; ${instead}`, { key, value });
  };
  if (positions !== "absolute") refuse("position_embedding_type", positions, "only absolute positions are built for BERT");
  if (config.flag("add_cross_attention", false)) refuse("add_cross_attention", true, "cross attention is not built for BERT");
}

function writePrologue({ family, tensors, config }: ArchitectureInput, layer: BertLayer, prefix: string, vocabulary: number): Block {
  const writer = new BlockWriter(`${family}.embeddings`, "embeddings", prefix, tensors);
  const { graph } = writer;
  const [ids, types, present, positions] = INPUTS.map((name) => graph.input(name, "I64", ["batch", "sequence"]));
  const { hidden } = layer;
  const look = (slot: string, rows: number, indices: string): string =>
    graph.op("Gather", [writer.weight(`embeddings.${slot}.weight`, [rows, hidden]), indices], { axis: 0 });
  const words = look("word_embeddings", vocabulary, ids!);
  const typed = graph.op("Add", [words, look("token_type_embeddings", config.size("type_vocab_size", 2), types!)]);
  const placed = graph.op("Add", [typed, look("position_embeddings", BERT.maxPositions(config), positions!)]);
  const normed = layerNorm(writer, placed, "embeddings.LayerNorm", hidden, layer.epsilon);
  graph.op("Identity", [normed], {}, "hidden");
  if (config.flag("is_decoder", false)) {
    const past = causalMask(graph, positions!, undefined, "past");
    graph.op("And", [past, paddingMask(graph, present!, positions!)], {}, "mask");
  } else paddingMask(graph, present!, positions!, "mask");
  return writer.block("prologue", sameNames(INPUTS), sameNames(["hidden", "mask"]));
}

function writeLayer(writer: BlockWriter, layer: BertLayer): void {
  const { graph } = writer;
  const { hidden, heads, size, activation, epsilon } = layer;
  const { tokens, rows } = enterStream(graph, hidden);
  const mask = graph.input("mask", "BOOL", ["batch", 1, "sequence", "sequence"]);
  const scores = { scale: (hidden / heads) ** -0.5, causal: false, mask };
  const attended = plainSelfAttention(writer, tokens, rows, ATTENTION, { hidden, heads, bias: true }, scores);
  const between = layerNorm(writer, graph.op("Add", [attended, tokens]), "attention.output.LayerNorm", hidden, epsilon);
  const names = { input: "intermediate.dense", output: "output.dense" };
  const fed = plainMlp(writer, between, names, hidden, size, activation, { bias: true });
  graph.op("Reshape", [layerNorm(writer, graph.op("Add", [fed, between]), "output.LayerNorm", hidden, epsilon), rows], {}, "hidden_out");
}

function writeEnd({ family, tensors }: ArchitectureInput, prefix: string, hidden: number, pooled: boolean): Block {
  const writer = new BlockWriter(`${family}.head`, "head", prefix, tensors);
  const { graph } = writer;
  const carried = graph.input("hidden", "F32", ["batch", "sequence", hidden]);
  graph.op("Identity", [carried], {}, "last_hidden_state");
  if (pooled) {
    const first = graph.op("Gather", [carried, graph.int64(0)], { axis: 1 });
    graph.op("Tanh", [writer.linear(first, "pooler.dense", hidden, hidden, { bias: true })], {}, "pooler_output");
  }
  return writer.block("epilogue", { hidden: "hidden" }, sameNames(pooled ? ["last_hidden_state", "pooler_output"] : ["last_hidden_state"]));
}
