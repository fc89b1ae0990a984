/**
 * ViT: image classifiers and encoders, norms before attention and MLP, all patches see all.
 * @module
 */
import type { Block } from "../model.ts";
import { readActivation, type ActivationName } from "./activations.ts";
import type { Architecture, ArchitectureInput, ModelParts } from "./architecture.ts";
import { BlockWriter } from "./block-writer.ts";
import { isRecord, type ConfigReader } from "./config.ts";
import { layerNorm } from "./norms.ts";
import { patchEmbeddings, readPatchGrid, type PatchGrid } from "./patches.ts";
import { plainMlp, plainSelfAttention, readDividingHeads } from "./plain-layer.ts";
import { enterStream, LayerBlocks, sameNames } from "./stream.ts";

interface VitLayer {
  readonly hidden: number;
  readonly heads: number;
  readonly size: number;
  readonly activation: ActivationName;
  readonly bias: boolean;
  readonly epsilon: number;
}

type VitEnd = Omit<ModelParts, "inputs" | "blocks"> & { readonly head: Block };

const ATTENTION = {
  module: "attention.attention",
  q: "attention.attention.query",
  k: "attention.attention.key",
  v: "attention.attention.value",
  output: "attention.output.dense",
};

export const VIT: Architecture = {
  family: "vit",
  modelTypes: ["vit"],
  classNames: ["ViTForImageClassification", "ViTModel"],
  maxPositions: (config) => readGrid(config).patches + 1,
  build(input) {
    const { config, tensors } = input;
    const hidden = config.size("hidden_size", 768);
    const grid = readGrid(config);
    const prefix = tensors.prefixOf(["vit.", ""], "embeddings.cls_token");
    const layer: VitLayer = {
      hidden,
      heads: readDividingHeads(config, "num_attention_heads", 12, hidden),
      size: config.size("intermediate_size", 3072),
      activation: readActivation(config, "hidden_act", "gelu"),
      bias: config.flag("qkv_bias", true),
      epsilon: config.positive("layer_norm_eps", 1e-12),
    };
    const writer = new BlockWriter(`${input.family}.embeddings`, "embeddings", prefix, tensors);
    const embedded = patchEmbeddings(writer, grid, hidden, {
      projection: "embeddings.patch_embeddings.projection",
      bias: true,
      token: ["embeddings.cls_token", [1, 1, hidden]],
      positions: ["embeddings.position_embeddings", [1, grid.patches + 1, hidden]],
    });
    writer.graph.op("Identity", [embedded], {}, "hidden");
    const prologue = writer.block("prologue", sameNames(["pixel_values"]), sameNames(["hidden"]));
    const blocks = new LayerBlocks(input.family, tensors);
    const stack: Block[] = [];
    for (let index = 0; index < config.size("num_hidden_layers", 12); index++) {
      stack.push(blocks.layer(`${prefix}encoder.layer.${index}`, "", { hidden: "hidden" }, (to) => writeLayer(to, layer)));
    }
    const { head, ...facts } = writeEnd(input, prefix, layer);
    return { ...facts, blocks: [prologue, ...stack, head], inputs: prologue.graph.inputs };
  },
};

function readGrid(config: ConfigReader): PatchGrid {
  return readPatchGrid(config, { image: 224, patch: 16 });
}

function writeLayer(writer: BlockWriter, { hidden, heads, size, activation, bias, epsilon }: VitLayer): void {
  const { graph } = writer;
  const { tokens, rows } = enterStream(graph, hidden);
  const scores = { scale: (hidden / heads) ** -0.5, causal: false };
  const looked = layerNorm(writer, tokens, "layernorm_before", hidden, epsilon);
  const attended = plainSelfAttention(writer, looked, rows, ATTENTION, { hidden, heads, bias, outputBias: true }, scores);
  const between = graph.op("Add", [tokens, attended]);
  const names = { input: "intermediate.dense", output: "output.dense" };
  const fed = plainMlp(writer, layerNorm(writer, between, "layernorm_after", hidden, epsilon), names, hidden, size, activation, {
    bias: true,
  });
  graph.op("Reshape", [graph.op("Add", [between, fed]), rows], {}, "hidden_out");
}

/** The classifier on the first token; for a model without one the hidden states, and the pooler where it is stored. */
function writeEnd({ family, className, config, tensors }: ArchitectureInput, prefix: string, { hidden, epsilon }: VitLayer): VitEnd {
  const writer = new BlockWriter(`${family}.head`, "head", prefix, tensors);
  const { graph } = writer;
  const carried = graph.input("hidden", "F32", ["batch", "sequence", hidden]);
  const normed = layerNorm(writer, carried, "layernorm", hidden, epsilon);
  const first = (): string => graph.op("Gather", [normed, graph.int64(0)], { axis: 1 });
  const facts = { hiddenSize: hidden, tiedHead: false } as const;
  if (className === "ViTForImageClassification") {
    const labels = countLabels(config);
    graph.op("Identity", [writer.linear(first(), "classifier", labels, hidden, { bias: true, module: "classifier" })], {}, "logits");
    const block = writer.block("epilogue", { hidden: "hidden" }, sameNames(["logits"]));
    return { ...facts, head: block, outputs: ["logits"], output: "classes", vocabularySize: labels };
  }
  graph.op("Identity", [normed], {}, "last_hidden_state");
  const pooled = tensors.has(`${prefix}pooler.dense.weight`);
  if (pooled) graph.op("Tanh", [writer.linear(first(), "pooler.dense", hidden, hidden, { bias: true })], {}, "pooler_output");
  const outputs = ["last_hidden_state", ...(pooled ? ["pooler_output"] : [])];
  const block = writer.block("epilogue", { hidden: "hidden" }, sameNames(outputs));
  return { ...facts, head: block, outputs, output: "last_hidden_state", vocabularySize: 0 };
}

/** Labels of a classifier: `id2label`, else `num_labels`, else 2. @throws {FormatError} `format.config` */
function countLabels(config: ConfigReader): number {
  const labels = config.raw("id2label");
  if (isRecord(labels)) return Object.keys(labels).length;
  return config.size("num_labels", 2);
}
