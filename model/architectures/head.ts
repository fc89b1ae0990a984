/**
 * The end of a decoder: logits, or the last hidden state where the checkpoint is a model without a head.
 * @module
 */
import type { Block } from "../model.ts";
import type { ArchitectureInput } from "./architecture.ts";
import type { BlockWriter } from "./block-writer.ts";

export interface LanguageHead {
  /** Value [tokens, width], normed. */
  readonly input: string;
  /** Value I64 [3]: batch, sequence, -1. */
  readonly rows: string;
  readonly width: number;
  readonly vocabulary: number;
  /** Whether config.json says that the head is the embedding matrix. */
  readonly tied: boolean;
  /** Name of the embedding matrix. */
  readonly table: string;
  /** c: logits become c · tanh(logits / c). */
  readonly softcap?: number;
}

export interface WrittenHead {
  readonly block: Block;
  readonly output: "logits" | "last_hidden_state";
  readonly tied: boolean;
}

const STORED_HEADS = ["lm_head.weight", "language_model.lm_head.weight"];

/** A head stored beside a tied embedding is used as stored. @throws {FormatError} `format.missing` */
export function writeLanguageHead(writer: BlockWriter, { tensors, className }: ArchitectureInput, head: LanguageHead): WrittenHead {
  const { graph } = writer;
  const reads = { hidden: "hidden" };
  const stored = STORED_HEADS.find((name) => tensors.has(name));
  if (stored === undefined && className.endsWith("Model") && !className.endsWith("LMHeadModel")) {
    graph.op("Reshape", [head.input, head.rows], {}, "last_hidden_state");
    return { block: writer.block("epilogue", reads, { last_hidden_state: "last_hidden_state" }), output: "last_hidden_state", tied: false };
  }
  const tied = stored === undefined && head.tied;
  const scores = writer.linear(head.input, "lm_head", head.vocabulary, head.width, {
    module: (stored ?? STORED_HEADS[0]!).slice(0, -".weight".length),
    ...(tied ? { tensor: head.table } : {}),
  });
  const shaped = graph.op("Reshape", [scores, head.rows], {}, head.softcap === undefined ? "logits" : undefined);
  if (head.softcap !== undefined) {
    const cap = graph.float32(head.softcap);
    graph.op("Mul", [graph.op("Tanh", [graph.op("Div", [shaped, cap])]), cap], {}, "logits");
  }
  return { block: writer.block("epilogue", reads, { logits: "logits" }), output: "logits", tied };
}
