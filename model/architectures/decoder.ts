/**
 * Decoders of the Llama family: rotary attention and a gated MLP or experts, with RMS norms.
 * A family file turns config.json into this data; here it becomes blocks.
 * @module
 */
import type { Block } from "../model.ts";
import type { ArchitectureInput, ModelParts } from "./architecture.ts";
import { rotaryAttention, type RotaryAttention } from "./attention.ts";
import { BlockWriter } from "./block-writer.ts";
import { writeLanguageHead, type WrittenHead } from "./head.ts";
import { causalMask, causalMaskName } from "./masks.ts";
import { gatedMlp, type GatedMlp } from "./mlp.ts";
import { expertMixture, type ExpertMixture } from "./moe.ts";
import { rmsNorm, type RmsNorm } from "./norms.ts";
import { ropeTables, type Rope } from "./rope.ts";
import { enterStream, LayerBlocks, sameNames } from "./stream.ts";

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
  const windows = new Set<number | undefined>();
  const blocks = new LayerBlocks(input.family, tensors);
  const stack: Block[] = [];
  for (let index = 0; index < decoder.layers; index++) {
    const { rope, window, ...plain } = decoder.layer(index);
    const isOrdered = tensors.has(`${prefix}layers.${index}.self_attn.rope_order`);
    const layer = isOrdered ? { ...plain, attention: { ...plain.attention, ordered: true } } : plain;
    const { masked } = layer.attention;
    if (masked) windows.add(window);
    const suffix = ropeSuffix(decoder, rope);
    const reads = { hidden: "hidden", cos: `cos${suffix}`, sin: `sin${suffix}`, ...(masked ? { mask: causalMaskName(window) } : {}) };
    const write = (writer: BlockWriter): void => writeLayer(writer, decoder, layer);
    stack.push(blocks.layer(`${prefix}layers.${index}`, JSON.stringify(layer), reads, write));
  }
  const prologue = writePrologue(input, decoder, prefix, windows);
  const head = writeEnd(input, decoder, prefix);
  return {
    blocks: [prologue, ...stack, head.block],
    inputs: prologue.graph.inputs,
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
  for (const window of windows) names.push(causalMask(graph, positions, window, causalMaskName(window)));
  return writer.block("prologue", sameNames(["input_ids", "position_ids"]), sameNames(names));
}

function writeLayer(writer: BlockWriter, { hidden, norm }: Decoder, { attention, mlp, sandwich }: DecoderLayer): void {
  const { graph } = writer;
  const { tokens: entered, rows } = enterStream(graph, hidden);
  const half = attention.rotarySize / 2;
  const cos = graph.input("cos", "F32", ["batch", "sequence", half]);
  const sin = graph.input("sin", "F32", ["batch", "sequence", half]);
  const mask = attention.masked ? graph.input("mask", "BOOL", ["batch", 1, "sequence", "sequence"]) : undefined;
  const context = { rows, cos, sin, ...(mask === undefined ? {} : { mask }) };
  const attended = rotaryAttention(writer, rmsNorm(writer, entered, "input_layernorm", hidden, norm), hidden, attention, context);
  const between = graph.op("Add", [entered, sandwich ? rmsNorm(writer, attended, "post_attention_layernorm", hidden, norm) : attended]);
  const normed = rmsNorm(writer, between, sandwich ? "pre_feedforward_layernorm" : "post_attention_layernorm", hidden, norm);
  const fed = mlp.kind === "gated" ? gatedMlp(writer, normed, hidden, mlp) : expertMixture(writer, normed, hidden, mlp);
  const left = graph.op("Add", [between, sandwich ? rmsNorm(writer, fed, "post_feedforward_layernorm", hidden, norm) : fed]);
  graph.op("Reshape", [left, rows], {}, "hidden_out");
}

function writeEnd(input: ArchitectureInput, decoder: Decoder, prefix: string): WrittenHead {
  const { hidden, vocabulary, norm, logitSoftcap, tiedHead } = decoder;
  const writer = new BlockWriter(`${input.family}.head`, "head", prefix, input.tensors);
  const { tokens, rows } = enterStream(writer.graph, hidden);
  return writeLanguageHead(writer, input, {
    input: rmsNorm(writer, tokens, "norm", hidden, norm),
    rows,
    width: hidden,
    vocabulary,
    tied: tiedHead,
    table: prefix + EMBEDDING,
    ...(logitSoftcap === undefined ? {} : { softcap: logitSoftcap }),
  });
}
