/**
 * GPT-2: learned positions, layer norms before attention and MLP, matrices stored [in, out] (Conv1D).
 * @module
 */
import type { Block } from "../model.ts";
import { readActivation, type ActivationName } from "./activations.ts";
import type { Architecture, ArchitectureInput } from "./architecture.ts";
import { splitProjection } from "./attention.ts";
import { BlockWriter } from "./block-writer.ts";
import { writeLanguageHead } from "./head.ts";
import { layerNorm } from "./norms.ts";
import { attendRows, plainMlp, readDividingHeads } from "./plain-layer.ts";
import { enterStream, LayerBlocks, sameNames } from "./stream.ts";

interface Gpt2Layer {
  readonly hidden: number;
  readonly heads: number;
  readonly size: number;
  readonly scale: number;
  readonly epsilon: number;
  readonly activation: ActivationName;
}

const CONV1D = { bias: true, layout: "in-out" } as const;

export const GPT2: Architecture = {
  family: "gpt2",
  modelTypes: ["gpt2"],
  classNames: ["GPT2LMHeadModel", "GPT2Model"],
  maxPositions: (config) => config.size(config.firstOf(["n_positions", "max_position_embeddings"]), 1024),
  build(input) {
    const { config, tensors } = input;
    const hidden = config.size(config.firstOf(["n_embd", "hidden_size"]), 768);
    const heads = readDividingHeads(config, config.firstOf(["n_head", "num_attention_heads"]), 12, hidden);
    const layers = config.size(config.firstOf(["n_layer", "num_hidden_layers"]), 12);
    const vocabulary = config.size("vocab_size", 50257);
    const scale = config.flag("scale_attn_weights", true) ? (hidden / heads) ** -0.5 : 1;
    const byDepth = config.flag("scale_attn_by_inverse_layer_idx", false);
    const shared = {
      hidden,
      heads,
      size: config.optionalSize("n_inner") ?? 4 * hidden,
      epsilon: config.positive("layer_norm_epsilon", 1e-5),
      activation: readActivation(config, "activation_function", "gelu_new"),
    };
    const prefix = tensors.prefixOf(["transformer.", ""], "wte.weight");
    const prologue = writePrologue(input, prefix, vocabulary, hidden);
    const blocks = new LayerBlocks(input.family, tensors);
    const stack: Block[] = [];
    for (let index = 0; index < layers; index++) {
      const layer = { ...shared, scale: byDepth ? scale / (index + 1) : scale };
      const reads = { hidden: "hidden" };
      stack.push(blocks.layer(`${prefix}h.${index}`, JSON.stringify(layer), reads, (writer) => writeLayer(writer, layer)));
    }
    const tiedHead = config.flag("tie_word_embeddings", true);
    const writer = new BlockWriter(`${input.family}.head`, "head", prefix, tensors);
    const { tokens, rows } = enterStream(writer.graph, hidden);
    const normed = layerNorm(writer, tokens, "ln_f", hidden, shared.epsilon);
    const head = writeLanguageHead(writer, input, {
      input: normed,
      rows,
      width: hidden,
      vocabulary,
      tied: tiedHead,
      table: `${prefix}wte.weight`,
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

function writePrologue({ family, tensors, config }: ArchitectureInput, prefix: string, vocabulary: number, hidden: number): Block {
  const writer = new BlockWriter(`${family}.embeddings`, "embeddings", prefix, tensors);
  const { graph } = writer;
  const ids = graph.input("input_ids", "I64", ["batch", "sequence"]);
  const positions = graph.input("position_ids", "I64", ["batch", "sequence"]);
  const words = graph.op("Gather", [writer.weight("wte.weight", [vocabulary, hidden]), ids], { axis: 0 });
  const places = graph.op("Gather", [writer.weight("wpe.weight", [GPT2.maxPositions(config), hidden]), positions], { axis: 0 });
  graph.op("Add", [words, places], {}, "hidden");
  return writer.block("prologue", sameNames(["input_ids", "position_ids"]), sameNames(["hidden"]));
}

function writeLayer(writer: BlockWriter, { hidden, heads, size, scale, epsilon, activation }: Gpt2Layer): void {
  const { graph } = writer;
  const { tokens, rows } = enterStream(graph, hidden);
  const projected = writer.linear(layerNorm(writer, tokens, "ln_1", hidden, epsilon), "attn.c_attn", 3 * hidden, hidden, CONV1D);
  const [query, key, value] = splitProjection(writer, projected, [hidden, hidden, hidden]);
  const mixed = attendRows(writer, "attn", [query!, key!, value!], rows, hidden, heads, { scale, causal: true });
  const between = graph.op("Add", [tokens, writer.linear(mixed, "attn.c_proj", hidden, hidden, CONV1D)]);
  const names = { input: "mlp.c_fc", output: "mlp.c_proj" };
  const fed = plainMlp(writer, layerNorm(writer, between, "ln_2", hidden, epsilon), names, hidden, size, activation, CONV1D);
  graph.op("Reshape", [graph.op("Add", [between, fed]), rows], {}, "hidden_out");
}
