/**
 * The two towers of CLIP: pre-norm layers over text (causal) and over patches, each ending in a pooled vector
 * that `…WithProjection` classes project into the common space.
 * @module
 */
import type { Block } from "../model.ts";
import { readActivation, type ActivationName } from "./activations.ts";
import type { Architecture, ArchitectureInput, ModelParts } from "./architecture.ts";
import { BlockWriter } from "./block-writer.ts";
import type { ConfigReader } from "./config.ts";
import { layerNorm } from "./norms.ts";
import { patchEmbeddings, readPatchGrid, type PatchGrid } from "./patches.ts";
import { plainMlp, plainSelfAttention, readDividingHeads } from "./plain-layer.ts";
import { enterStream, LayerBlocks, sameNames } from "./stream.ts";

interface ClipLayer {
  readonly hidden: number;
  readonly heads: number;
  readonly size: number;
  readonly activation: ActivationName;
  readonly epsilon: number;
  readonly causal: boolean;
}

const ATTENTION = {
  module: "self_attn",
  q: "self_attn.q_proj",
  k: "self_attn.k_proj",
  v: "self_attn.v_proj",
  output: "self_attn.out_proj",
};
/** `eos_token_id` of configurations written before it was right: the end is then the largest id of a row. */
const LEGACY_EOS = 2;

export const CLIP_TEXT: Architecture = {
  family: "clip-text",
  modelTypes: ["clip_text_model"],
  classNames: ["CLIPTextModel", "CLIPTextModelWithProjection"],
  maxPositions: (config) => config.size("max_position_embeddings", 77),
  build(input) {
    const { config, tensors } = input;
    const layer = readLayer(config, { hidden: 512, heads: 8, size: 2048, causal: true });
    const { hidden } = layer;
    const vocabulary = config.size("vocab_size", 49408);
    const prefix = tensors.prefixOf(["text_model.", ""], "embeddings.token_embedding.weight");
    const writer = new BlockWriter(`${input.family}.embeddings`, "embeddings", prefix, tensors);
    const { graph } = writer;
    const ids = graph.input("input_ids", "I64", ["batch", "sequence"]);
    const positions = graph.input("position_ids", "I64", ["batch", "sequence"]);
    const look = (slot: string, rows: number, indices: string): string =>
      graph.op("Gather", [writer.weight(`embeddings.${slot}.weight`, [rows, hidden]), indices], { axis: 0 });
    graph.op(
      "Add",
      [look("token_embedding", vocabulary, ids), look("position_embedding", CLIP_TEXT.maxPositions(config), positions)],
      {},
      "hidden",
    );
    graph.op("Identity", [endOf(writer, ids, config)], {}, "end");
    const prologue = writer.block("prologue", sameNames(["input_ids", "position_ids"]), sameNames(["hidden", "end"]));
    const end = writeEnd(input, prefix, layer, {
      norm: "final_layer_norm",
      pool: (to, normed) => to.graph.op("GatherND", [normed, to.graph.input("end", "I64", ["batch", 1])], { batch_dims: 1 }),
      reads: ["hidden", "end"],
      projection: "text_projection",
      embeds: "text_embeds",
    });
    return finish(input, prologue, prefix, layer, end, vocabulary);
  },
};

export const CLIP_VISION: Architecture = {
  family: "clip-vision",
  modelTypes: ["clip_vision_model"],
  classNames: ["CLIPVisionModel", "CLIPVisionModelWithProjection"],
  maxPositions: (config) => readGrid(config).patches + 1,
  build(input) {
    const { config, tensors } = input;
    const layer = readLayer(config, { hidden: 768, heads: 12, size: 3072, causal: false });
    const { hidden, epsilon } = layer;
    const grid = readGrid(config);
    const prefix = tensors.prefixOf(["vision_model.", ""], "embeddings.class_embedding");
    const writer = new BlockWriter(`${input.family}.embeddings`, "embeddings", prefix, tensors);
    const embedded = patchEmbeddings(writer, grid, hidden, {
      projection: "embeddings.patch_embedding",
      bias: false,
      token: ["embeddings.class_embedding", [hidden]],
      positions: ["embeddings.position_embedding.weight", [grid.patches + 1, hidden]],
    });
    // The name is the checkpoint's.
    writer.graph.op("Identity", [layerNorm(writer, embedded, "pre_layrnorm", hidden, epsilon)], {}, "hidden");
    const prologue = writer.block("prologue", sameNames(["pixel_values"]), sameNames(["hidden"]));
    const end = writeEnd(input, prefix, layer, {
      pool: (to, states) =>
        layerNorm(to, to.graph.op("Gather", [states, to.graph.int64(0)], { axis: 1 }), "post_layernorm", hidden, epsilon),
      reads: ["hidden"],
      projection: "visual_projection",
      embeds: "image_embeds",
    });
    return finish(input, prologue, prefix, layer, end, 0);
  },
};

function readGrid(config: ConfigReader): PatchGrid {
  return readPatchGrid(config, { image: 224, patch: 32 });
}

function readLayer(
  config: ConfigReader,
  { hidden, heads, size, causal }: { readonly hidden: number; readonly heads: number; readonly size: number; readonly causal: boolean },
): ClipLayer {
  const width = config.size("hidden_size", hidden);
  return {
    hidden: width,
    heads: readDividingHeads(config, "num_attention_heads", heads, width),
    size: config.size("intermediate_size", size),
    activation: readActivation(config, "hidden_act", "quick_gelu"),
    epsilon: config.positive("layer_norm_eps", 1e-5),
    causal,
  };
}

/** Where each text ends, I64 [batch, 1]: its first end token, or in old configurations its largest id. */
function endOf({ graph }: BlockWriter, ids: string, config: ConfigReader): string {
  const eos = config.count("eos_token_id", 49407);
  if (eos === LEGACY_EOS) return graph.op("ArgMax", [ids], { axis: 1 });
  return graph.op("ArgMax", [graph.op("Cast", [graph.op("Equal", [ids, graph.int64(eos)])], { to: ONNX_INT32 })], { axis: 1 });
}

/** `TensorProto.DataType` number for Cast. */
const ONNX_INT32 = 6;

function writeLayer(writer: BlockWriter, { hidden, heads, size, activation, epsilon, causal }: ClipLayer): void {
  const { graph } = writer;
  const { tokens, rows } = enterStream(graph, hidden);
  const scores = { scale: (hidden / heads) ** -0.5, causal };
  const looked = layerNorm(writer, tokens, "layer_norm1", hidden, epsilon);
  const between = graph.op("Add", [tokens, plainSelfAttention(writer, looked, rows, ATTENTION, { hidden, heads, bias: true }, scores)]);
  const names = { input: "mlp.fc1", output: "mlp.fc2" };
  const fed = plainMlp(writer, layerNorm(writer, between, "layer_norm2", hidden, epsilon), names, hidden, size, activation, { bias: true });
  graph.op("Reshape", [graph.op("Add", [between, fed]), rows], {}, "hidden_out");
}

interface ClipEnd {
  /** Norm of all states. */
  readonly norm?: string;
  /** @returns value [batch, hidden] of normed states [batch, sequence, hidden]. */
  readonly pool: (writer: BlockWriter, states: string) => string;
  readonly reads: readonly string[];
  readonly projection: string;
  readonly embeds: string;
}

interface WrittenEnd {
  readonly block: Block;
  readonly outputs: readonly string[];
}

function writeEnd({ family, className, config, tensors }: ArchitectureInput, prefix: string, layer: ClipLayer, end: ClipEnd): WrittenEnd {
  const { hidden, epsilon } = layer;
  const writer = new BlockWriter(`${family}.head`, "head", prefix, tensors);
  const { graph } = writer;
  const carried = graph.input("hidden", "F32", ["batch", "sequence", hidden]);
  const states = end.norm === undefined ? carried : layerNorm(writer, carried, end.norm, hidden, epsilon);
  const pooled = end.pool(writer, states);
  graph.op("Identity", [states], {}, "last_hidden_state");
  const projected = className.endsWith("WithProjection");
  if (projected) {
    const width = config.size("projection_dim", 512);
    graph.op("Identity", [writer.linear(pooled, end.projection, width, hidden, { module: end.projection })], {}, end.embeds);
  } else graph.op("Identity", [pooled], {}, "pooler_output");
  const outputs = projected ? [end.embeds, "last_hidden_state"] : ["last_hidden_state", "pooler_output"];
  return { block: writer.block("epilogue", sameNames(end.reads), sameNames(outputs)), outputs };
}

function finish(
  input: ArchitectureInput,
  prologue: Block,
  prefix: string,
  layer: ClipLayer,
  end: WrittenEnd,
  vocabulary: number,
): ModelParts {
  const blocks = new LayerBlocks(input.family, input.tensors);
  const stack: Block[] = [];
  for (let index = 0; index < input.config.size("num_hidden_layers", 12); index++) {
    stack.push(blocks.layer(`${prefix}encoder.layers.${index}`, "", { hidden: "hidden" }, (writer) => writeLayer(writer, layer)));
  }
  return {
    blocks: [prologue, ...stack, end.block],
    inputs: prologue.graph.inputs,
    outputs: end.outputs,
    output: end.outputs.includes("pooler_output") ? "last_hidden_state" : "embeddings",
    vocabularySize: vocabulary,
    hiddenSize: layer.hidden,
    tiedHead: false,
  };
}
