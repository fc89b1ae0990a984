/**
 * Pieces of the older transformers (GPT-2, OPT, BERT): attention without rotation, an MLP of two matrices.
 * @module
 */
import { activate, type ActivationName } from "./activations.ts";
import { attend, type Scores } from "./attention.ts";
import type { BlockWriter, LinearOptions } from "./block-writer.ts";
import { FormatError } from "../../core/errors.ts";
import type { ConfigReader } from "./config.ts";

/** Local names of an attention's matrices; `module` prefixes the tapped values. */
export interface PlainAttentionNames {
  readonly module: string;
  readonly q: string;
  readonly k: string;
  readonly v: string;
  readonly output: string;
}

export interface PlainAttention {
  readonly hidden: number;
  readonly heads: number;
  readonly bias: boolean;
  /** Of the output projection, where it is not as `bias`. */
  readonly outputBias?: boolean;
}

/**
 * @param input - value [tokens, hidden].
 * @param rows - value I64 [3]: batch, sequence, -1.
 * @returns value [tokens, hidden], the output projection.
 */
export function plainSelfAttention(
  writer: BlockWriter,
  input: string,
  rows: string,
  names: PlainAttentionNames,
  { hidden, heads, bias, outputBias = bias }: PlainAttention,
  scores: Scores,
): string {
  const [query, key, value] = [names.q, names.k, names.v].map((name) => writer.linear(input, name, hidden, hidden, { bias }));
  const mixed = attendRows(writer, names.module, [query!, key!, value!], rows, hidden, heads, scores);
  return writer.linear(mixed, names.output, hidden, hidden, { bias: outputBias });
}

/** Attention of projections [tokens, hidden] (query, key, value), all with the same heads. @returns value [tokens, hidden]. */
export function attendRows(
  writer: BlockWriter,
  module: string,
  projections: readonly [string, string, string],
  rows: string,
  hidden: number,
  heads: number,
  scores: Scores,
): string {
  const [query, key, value] = (["q", "k", "v"] as const).map((which, i) =>
    writer.graph.op("Reshape", [projections[i]!, rows], {}, `${module}.${which}`),
  );
  const shape = { heads, kvHeads: heads, headSize: hidden / heads };
  return attend(writer, module, { query: query!, key: key!, value: value! }, shape, scores);
}

/** output(act(input(x))). @returns value [tokens, hidden]. */
export function plainMlp(
  writer: BlockWriter,
  input: string,
  names: { readonly input: string; readonly output: string },
  hidden: number,
  size: number,
  activation: ActivationName,
  options: LinearOptions,
): string {
  const wide = activate(writer.graph, activation, writer.linear(input, names.input, size, hidden, options));
  return writer.linear(wide, names.output, hidden, size, options);
}

/** Heads that divide the hidden size. @throws {FormatError} `format.config` */
export function readDividingHeads(config: ConfigReader, key: string, fallback: number, hidden: number): number {
  const heads = config.size(key, fallback);
  if (hidden % heads !== 0) {
    throw new FormatError("format.config", `config.json: ${key} is ${heads}, expected a divisor of the hidden size ${hidden}`, {
      key,
      value: heads,
      hidden,
    });
  }
  return heads;
}
