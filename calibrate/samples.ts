/**
 * Samples: data files → token sequences.
 *
 * Documents are taken in file order and either *packed* (ids joined and cut
 * into windows of the sequence length, the rest dropped) or *truncated* (each
 * document its own sequence, cut at the sequence length). Text, JSON lines and
 * parquet are packed, lists of ids that are already sequences are truncated,
 * unless the caller chooses. Reading stops when there are enough sequences.
 * @module
 */
import { InputError, throwIfAborted } from "../core/errors.ts";
import { createRandom, shuffled, type Random } from "../core/random.ts";
import type { Model } from "../model/model.ts";
import { loadTokenizer } from "../model/tokenizer.ts";
import type { Packing, SampleDocument } from "./samples/document.ts";
import { readDocuments } from "./samples/sources.ts";
import { DocumentTokenizer, type TokenizeOptions } from "./samples/tokenize.ts";

export const DEFAULT_SAMPLES = 128;
export const DEFAULT_SEQUENCE_LENGTH = 512;
/** Documents a shuffle draws from, at least; and per sample. */
const SHUFFLE_POOL = 1024;
const SHUFFLE_POOL_PER_SAMPLE = 8;

export interface SequenceOptions extends TokenizeOptions {
  /** Sequences wanted: exactly so many. Left out: up to 128. */
  readonly samples?: number;
  /** Ids a sequence. Left out: 512, or `maxPositions` where that is less. */
  readonly sequenceLength?: number;
  /** Longest sequence the model's positions allow. */
  readonly maxPositions?: number;
  readonly packing?: Packing;
  /** Draw documents and windows at random instead of taking the first ones. */
  readonly shuffle?: boolean;
  /** For `shuffle`. Default 0. */
  readonly seed?: number;
  readonly signal?: AbortSignal;
}

/**
 * @returns sequences of ids: each of `sequenceLength` when packed, at most that when truncated.
 * @throws {InputError} `input.no-data` without paths, `input.path`, `input.option`, and `input.data` when there is too
 *   little data (naming what is there and what is needed), for ids outside the vocabulary and malformed records.
 * @throws {FormatError} naming a file that breaks its format.
 */
export async function loadSequences(paths: readonly string[], options: SequenceOptions): Promise<number[][]> {
  const { shuffle = false, seed = 0 } = options;
  const wanted = positiveInteger("samples", options.samples ?? DEFAULT_SAMPLES);
  const length = sequenceLengthOf(options);
  const cutter = new SequenceCutter(length, options);
  if (shuffle) {
    const random = createRandom(seed);
    const pool = await drawDocuments(readDocuments(paths), Math.max(SHUFFLE_POOL, SHUFFLE_POOL_PER_SAMPLE * wanted), random);
    for (const document of pool) await cutter.add(document, Infinity);
    const sequences = shuffled(cutter.sequences, random).slice(0, wanted);
    return checkCount(sequences, cutter, paths, options);
  }
  for await (const document of readDocuments(paths)) {
    throwIfAborted(options.signal);
    await cutter.add(document, wanted);
    if (cutter.sequences.length >= wanted) break;
  }
  return checkCount(cutter.sequences.slice(0, wanted), cutter, paths, options);
}

/** Sequences for a model: its own tokenizer, vocabulary and positions. @throws as {@link loadSequences}, and what the tokenizer throws. */
export async function loadCalibrationSequences(
  model: Model,
  paths: readonly string[],
  options: Omit<SequenceOptions, "tokenizer" | "vocabularySize" | "maxPositions"> = {},
): Promise<number[][]> {
  const { directory, facts } = model;
  return loadSequences(paths, {
    ...options,
    vocabularySize: facts.vocabularySize,
    maxPositions: facts.maxPositions,
    ...(directory !== undefined && { tokenizer: () => loadTokenizer(directory) }),
  });
}

export interface TokenIdOptions {
  /** Directory with the tokenizer, for text. */
  readonly directory?: string;
  readonly vocabularySize: number;
  /** Ids after which nothing more is read. Default: all. */
  readonly maxTokens?: number;
}

/**
 * All ids of the data in one row, each file tokenized whole with special tokens at its start only: what perplexity is
 * measured on.
 *
 * @throws {InputError} as {@link loadSequences}; `input.data` when there are no ids at all.
 */
export async function loadTokenIds(paths: readonly string[], options: TokenIdOptions): Promise<number[]> {
  const { directory, vocabularySize, maxTokens = Infinity } = options;
  const tokenizer = new DocumentTokenizer({
    vocabularySize,
    ...(directory !== undefined && { tokenizer: () => loadTokenizer(directory) }),
  });
  const all: number[] = [];
  for await (const document of readDocuments(paths)) {
    for (const id of await tokenizer.tokenize(document, maxTokens - all.length)) all.push(id);
    if (all.length >= maxTokens) break;
  }
  if (all.length === 0) throw new InputError("input.data", `${paths.join(", ")}: no text and no ids`, { paths });
  return all.slice(0, maxTokens);
}

/**
 * Lists of ids as they are: `[[1, 2, ...], ...]`, one flat list, or rows of an id tensor.
 *
 * @throws {InputError} `input.data` for text, empty lists and ids outside the vocabulary.
 */
export async function loadIdSequences(path: string, vocabularySize: number): Promise<number[][]> {
  const tokenizer = new DocumentTokenizer({ vocabularySize });
  const sequences: number[][] = [];
  for await (const document of readDocuments([path])) {
    const ids = await tokenizer.tokenize(document, Infinity);
    if (ids.length === 0)
      throw new InputError("input.data", `${document.where} is empty; a sequence has at least one id`, { where: document.where });
    sequences.push([...ids]);
  }
  return sequences;
}

function sequenceLengthOf({ sequenceLength, maxPositions = Infinity }: SequenceOptions): number {
  const length = positiveInteger("seq-len", sequenceLength ?? Math.min(DEFAULT_SEQUENCE_LENGTH, maxPositions));
  if (length > maxPositions) {
    throw new InputError("input.option", `seq-len is ${length}, but the model has ${maxPositions} positions; use at most ${maxPositions}`, {
      sequenceLength: length,
      maxPositions,
    });
  }
  return length;
}

function positiveInteger(name: string, value: number): number {
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new InputError("input.option", `${name} is ${value}; it must be an integer from 1`, { [name]: value });
}

function checkCount(sequences: number[][], cutter: SequenceCutter, paths: readonly string[], options: SequenceOptions): number[][] {
  const needed = options.samples ?? 1;
  if (sequences.length >= needed) return sequences;
  const { ids, documents, length } = cutter;
  const source = paths.length === 1 ? paths[0]! : `${paths.length} paths`;
  throw new InputError(
    "input.data",
    `${source}: ${documents} documents with ${ids} ids make ${sequences.length} sequences of ${length}; ${needed} are needed` +
      (sequences.length > 0
        ? ` (--samples ${sequences.length} takes what is there)`
        : `; give at least ${length} ids or a smaller --seq-len`),
    { sequences: sequences.length, needed, ids, documents, sequenceLength: length },
  );
}

/** A random choice of at most `size` documents in random order, from one pass (reservoir sampling). */
async function drawDocuments(documents: AsyncIterable<SampleDocument>, size: number, random: Random): Promise<SampleDocument[]> {
  const pool: SampleDocument[] = [];
  let seen = 0;
  for await (const document of documents) {
    seen++;
    if (pool.length < size) {
      pool.push(document);
    } else {
      const slot = random.below(seen);
      if (slot < size) pool[slot] = document;
    }
  }
  return shuffled(pool, random);
}

/** Turns documents into sequences as they come. */
class SequenceCutter {
  readonly sequences: number[][] = [];
  readonly length: number;
  /** Ids and documents seen, for messages. */
  ids = 0;
  documents = 0;
  readonly #packing: Packing | undefined;
  readonly #tokenizer: DocumentTokenizer;
  /** Ids of the window being filled. */
  #open: number[] = [];

  constructor(length: number, options: SequenceOptions) {
    this.length = length;
    this.#packing = options.packing;
    this.#tokenizer = new DocumentTokenizer(options);
  }

  /** @param wanted - sequences after which nothing more is read. */
  async add(document: SampleDocument, wanted: number): Promise<void> {
    const packing = this.#packing ?? document.packing;
    const missing = packing === "truncate" ? this.length : (wanted - this.sequences.length) * this.length - this.#open.length;
    const ids = await this.#tokenizer.tokenize(document, missing);
    if (ids.length === 0) return;
    this.documents++;
    this.ids += ids.length;
    if (packing === "truncate") {
      this.sequences.push(ids.slice(0, this.length));
      return;
    }
    for (let start = 0; start < ids.length;) {
      const end = Math.min(ids.length, start + this.length - this.#open.length);
      for (let i = start; i < end; i++) this.#open.push(ids[i]!);
      start = end;
      if (this.#open.length === this.length) {
        this.sequences.push(this.#open);
        this.#open = [];
        if (this.sequences.length >= wanted) return;
      }
    }
  }
}
