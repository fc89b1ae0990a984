/**
 * Decoders of the Llama family: rotary attention and a gated MLP or experts, with RMS norms.
 * A family file turns config.json into this data; here it becomes blocks.
 * @module
 */
import type { Block } from "../model.ts";
import type { ArchitectureInput, ModelParts } from "./architecture.ts";
import { rotaryAttention, type RotaryAttention } from "./attention.ts";
import { bindBlock, BlockWriter, type BlockTemplate } from "./block-writer.ts";
import { causalMask } from "./masks.ts";
import { gatedMlp, type GatedMlp } from "./mlp.ts";
import { expertMixture, type ExpertMixture } from "./moe.ts";
import { rmsNorm, type RmsNorm } from "./norms.ts";
import { ropeTables, type Rope } from "./rope.ts";

/** What one layer computes. Layers with equal structure share one graph. */
export interface DecoderLayer {
  readonly attention: RotaryAttention;
  readonly mlp: GatedMlp | ExpertMixture;
  /** Also norm what attention and MLP give, before it is added (Gemma 2 and 3). */
  readonly sandwich: boolean;
}

/** Which carried values one layer reads. */
export interface LayerReads {
  /** Index into `ropes`. */
  readonly rope: number;
  /** Sliding window; undefined = all positions before. */
  readonly window: number | undefined;
}

export interface Decoder {
  readonly vocabulary: number;
  readonly hidden: number;
  readonly layers: number;
  readonly norm: RmsNorm;
  readonly ropes: readonly Rope[];
  /** Multiplies the embeddings. */
  readonly embeddingScale?: number;
  /** c: logits become c · tanh(logits / c). */
  readonly logitSoftcap?: number;
  readonly tiedHead: boolean;
  /** Structure and reads of layer `index`. Called for layers whose tensors are wanted only. */
  layer(index: number): DecoderLayer & LayerReads;
}

const EMBEDDING = "embed_tokens.weight";

/** @throws {FormatError} `format.missing`, `format.config` naming the first tensor that is not there or does not fit. */
export function buildDecoder(input: ArchitectureInput, decoder: Decoder): ModelParts {
  const { tensors } = input;
  const prefix = tensors.prefixOf(["model.", "", "language_model.model.", "model.language_model."], EMBEDDING);
  const blocks: Block[] = [];
  const windows = new Set<number | undefined>();
  const templates = new Map<string, BlockTemplate>();
  for (let index = 0; index < decoder.layers; index++) {
    const { rope, window, ...layer } = decoder.layer(index);
    const name = `${prefix}layers.${index}`;
    const masked = layer.attention.masked;
    if (masked) windows.add(window);
    const suffix = ropeSuffix(decoder, rope);
    const reads = { hidden: "hidden", cos: `cos${suffix}`, sin: `sin${suffix}`, ...(masked ? { mask: maskName(window) } : {}) };
    const writes = { hidden_out: "hidden" };
    const structure = JSON.stringify(layer);
    const template = templates.get(structure);
    if (template === undefined) {
      const writer = new BlockWriter(`${input.family}.${templates.size}`, name, `${name}.`, tensors);
      writeLayer(writer, decoder, layer);
      const block = writer.block("block", reads, writes);
      templates.set(structure, writer.template(block));
      blocks.push(block);
    } else blocks.push(bindBlock(template, name, tensors, reads, writes));
  }
  const head = writeHead(input, decoder, prefix);
  return {
    blocks: [writePrologue(input, decoder, prefix, windows), ...blocks, head.block],
    inputs: [
      { name: "input_ids", dtype: "I64", shape: ["batch", "sequence"] },
      { name: "position_ids", dtype: "I64", shape: ["batch", "sequence"] },
    ],
    outputs: [head.output],
    output: head.output,
    vocabularySize: decoder.vocabulary,
    hiddenSize: decoder.hidden,
    tiedHead: head.tied,
  };
}

function ropeSuffix(decoder: Decoder, rope: number): string {
  return decoder.ropes.length === 1 ? "" : `_${rope}`;
}

function maskName(window: number | undefined): string {
  return window === undefined ? "causal_mask" : `window_mask_${window}`;
}

function writePrologue(
  { family, tensors }: ArchitectureInput,
  decoder: Decoder,
  prefix: string,
  windows: ReadonlySet<number | undefined>,
): Block {
  const writer = new BlockWriter(`${family}.embeddings`, "embeddings", prefix, tensors);
  const { graph } = writer;
  const ids = graph.input("input_ids", "I64", ["batch", "sequence"]);
  const positions = graph.input("position_ids", "I64", ["batch", "sequence"]);
  const table = writer.weight(EMBEDDING, [decoder.vocabulary, decoder.hidden]);
  if (decoder.embeddingScale === undefined) graph.op("Gather", [table, ids], { axis: 0 }, "hidden");
  else graph.op("Mul", [graph.op("Gather", [table, ids], { axis: 0 }), graph.float32(decoder.embeddingScale)], {}, "hidden");
  const names = ["hidden"];
  for (const [index, rope] of decoder.ropes.entries()) {
    const { cos, sin } = ropeTables(writer, positions, rope, ropeSuffix(decoder, index));
    names.push(cos, sin);
  }
  for (const window of windows) names.push(causalMask(graph, positions, window, maskName(window)));
  const same = (list: readonly string[]): Record<string, string> => Object.fromEntries(list.map((name) => [name, name]));
  return writer.block("prologue", same(["input_ids", "position_ids"]), same(names));
}

function writeLayer(writer: BlockWriter, { hidden, norm }: Decoder, { attention, mlp, sandwich }: DecoderLayer): void {
  const { graph } = writer;
  const stream = graph.input("hidden", "F32", ["batch", "sequence", hidden]);
  const half = attention.rotarySize / 2;
  const cos = graph.input("cos", "F32", ["batch", "sequence", half]);
  const sin = graph.input("sin", "F32", ["batch", "sequence", half]);
  const mask = attention.masked ? graph.input("mask", "BOOL", ["batch", 1, "sequence", "sequence"]) : undefined;
  const rows = graph.op("Concat", [graph.op("Shape", [stream], { start: 0, end: 2 }), graph.int64([-1])], { axis: 0 });
  const entered = graph.op("Reshape", [stream, graph.int64([-1, hidden])]);
  const context = { rows, cos, sin, ...(mask === undefined ? {} : { mask }) };
  const attended = rotaryAttention(writer, rmsNorm(writer, entered, "input_layernorm", hidden, norm), hidden, attention, context);
  const between = graph.op("Add", [entered, sandwich ? rmsNorm(writer, attended, "post_attention_layernorm", hidden, norm) : attended]);
  const normed = rmsNorm(writer, between, sandwich ? "pre_feedforward_layernorm" : "post_attention_layernorm", hidden, norm);
  const fed = mlp.kind === "gated" ? gatedMlp(writer, normed, hidden, mlp) : expertMixture(writer, normed, hidden, mlp);
  const left = graph.op("Add", [between, sandwich ? rmsNorm(writer, fed, "post_feedforward_layernorm", hidden, norm) : fed]);
  graph.op("Reshape", [left, rows], {}, "hidden_out");
}

function writeHead(
  { family, tensors, className }: ArchitectureInput,
  decoder: Decoder,
  prefix: string,
): { readonly block: Block; readonly output: "logits" | "last_hidden_state"; readonly tied: boolean } {
  const { hidden, vocabulary, norm, logitSoftcap } = decoder;
  const writer = new BlockWriter(`${family}.head`, "head", prefix, tensors);
  const { graph } = writer;
  const stream = graph.input("hidden", "F32", ["batch", "sequence", hidden]);
  const reads = { hidden: "hidden" };
  const rows = graph.op("Concat", [graph.op("Shape", [stream], { start: 0, end: 2 }), graph.int64([-1])], { axis: 0 });
  const normed = rmsNorm(writer, graph.op("Reshape", [stream, graph.int64([-1, hidden])]), "norm", hidden, norm);
  const stored = ["lm_head.weight", "language_model.lm_head.weight"].find((name) => tensors.has(name));
  const tied = stored === undefined && decoder.tiedHead;
  if (stored === undefined && className.endsWith("Model")) {
    graph.op("Reshape", [normed, rows], {}, "last_hidden_state");
    return { block: writer.block("epilogue", reads, { last_hidden_state: "last_hidden_state" }), output: "last_hidden_state", tied: false };
  }
  const scores = writer.linear(normed, "lm_head", vocabulary, hidden, {
    module: "lm_head",
    tensor: tied ? prefix + EMBEDDING : (stored ?? "lm_head.weight"),
  });
  const shaped = graph.op("Reshape", [scores, rows], {}, logitSoftcap === undefined ? "logits" : undefined);
  if (logitSoftcap !== undefined) {
    const cap = graph.float32(logitSoftcap);
    graph.op("Mul", [graph.op("Tanh", [graph.op("Div", [shaped, cap])]), cap], {}, "logits");
  }
  return { block: writer.block("epilogue", reads, { logits: "logits" }), output: "logits", tied };
}
