/**
 * The cache of one layer and one sequence: appended to, read back, counted.
 *
 * What `materialize` returns is exactly what `scores` and `weighted` use: stored keys stay permuted and centred, and queries meet
 * them permuted alike. A constant subtracted from all keys shifts every score of a row by the same amount, which softmax does not see.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { decodeRows, encodeRows, type StoredRows } from "./codes.ts";
import type { KvCode, KvScheme, ModelKv, StaticOp } from "./scheme.ts";

/** Bytes of the buffers of a cache, by what they hold. */
export interface CacheBytes {
  readonly codes: number;
  readonly scales: number;
}

/** One layer's cache of one sequence. */
export class KvLayer {
  readonly #scheme: KvScheme;
  readonly #model: ModelKv;
  readonly #ops: readonly StaticOp[];
  readonly #keys: StoredRows[] = [];
  readonly #values: StoredRows[] = [];
  #tokens = 0;

  /** @param block - name of the block, which picks the static transforms. */
  constructor(scheme: KvScheme, model: ModelKv, block: string) {
    this.#scheme = scheme;
    this.#model = model;
    this.#ops = scheme.ops.get(block) ?? [];
  }

  get tokens(): number {
    return this.#tokens;
  }

  /**
   * Store tokens behind those there are: a prompt at once, or one token.
   *
   * @param k - after rotation, [tokens, kvHeads · headSize]; @param v - the same shape.
   * @throws {InputError} `input.shape` for lengths that are no whole tokens or differ.
   */
  append(k: Float32Array, v: Float32Array): void {
    const channels = this.#model.kvHeads * this.#model.headSize;
    if (k.length !== v.length || k.length % channels !== 0) {
      throw new InputError(
        "input.shape",
        `the cache takes keys and values of ${channels} channels a token, got ${k.length} and ${v.length} numbers`,
        {
          channels,
          keys: k.length,
          values: v.length,
        },
      );
    }
    this.#keys.push(encodeRows(this.#scheme.k, prepareKeys(k, channels, this.#ops), this.#model.headSize));
    this.#values.push(encodeRows(this.#scheme.v, v, this.#model.headSize));
    this.#tokens += k.length / channels;
  }

  /** Stored keys and values as they are read, [tokens, kvHeads · headSize]. */
  materialize(): { readonly k: Float32Array; readonly v: Float32Array } {
    const { headSize } = this.#model;
    return { k: joined(this.#keys, this.#scheme.k, headSize), v: joined(this.#values, this.#scheme.v, headSize) };
  }

  /**
   * Products of one token's queries with every stored key.
   *
   * @param q - after rotation, [heads, headSize]; @param out - receives [heads, tokens].
   */
  scores(q: Float32Array, out: Float32Array): void {
    const { heads, kvHeads, headSize } = this.#model;
    const { k } = this.materialize();
    const asked = prepareQueries(q, this.#model, this.#ops);
    for (let h = 0; h < heads; h++) {
      const kvHead = Math.floor((h * kvHeads) / heads);
      for (let t = 0; t < this.#tokens; t++) {
        let sum = 0;
        for (let c = 0; c < headSize; c++) sum += asked[h * headSize + c]! * k[(t * kvHeads + kvHead) * headSize + c]!;
        out[h * this.#tokens + t] = sum;
      }
    }
  }

  /** Stored values mixed by weights. @param p - [heads, tokens]; @param out - receives [heads, headSize]. */
  weighted(p: Float32Array, out: Float32Array): void {
    const { heads, kvHeads, headSize } = this.#model;
    const { v } = this.materialize();
    for (let h = 0; h < heads; h++) {
      const kvHead = Math.floor((h * kvHeads) / heads);
      for (let c = 0; c < headSize; c++) {
        let sum = 0;
        for (let t = 0; t < this.#tokens; t++) sum += p[h * this.#tokens + t]! * v[(t * kvHeads + kvHead) * headSize + c]!;
        out[h * headSize + c] = sum;
      }
    }
  }

  /** Lengths of the buffers held. */
  bytes(): CacheBytes {
    const stored = [...this.#keys, ...this.#values];
    return {
      codes: stored.reduce((sum, { codes }) => sum + codes.byteLength, 0),
      scales: stored.reduce((sum, { scales }) => sum + scales.byteLength, 0),
    };
  }
}

/** Keys as they are stored: static transforms applied. @returns `k` itself when there are none, else a copy. */
export function prepareKeys(k: Float32Array, channels: number, ops: readonly StaticOp[]): Float32Array {
  let keys = k;
  for (const op of ops) keys = op.op === "perm" ? gather(keys, channels, op.index) : subtract(keys, channels, op.mean);
  return keys;
}

/** Queries in the order of the stored keys, [heads · headSize] a token. */
export function prepareQueries(q: Float32Array, { heads, kvHeads, headSize }: ModelKv, ops: readonly StaticOp[]): Float32Array {
  let queries = q;
  for (const op of ops) {
    if (op.op !== "perm") continue;
    const index = Int32Array.from({ length: heads * headSize }, (_, i) => {
      const head = Math.floor(i / headSize);
      const kvHead = Math.floor((head * kvHeads) / heads);
      return op.index[kvHead * headSize + (i % headSize)]! + (head - kvHead) * headSize;
    });
    queries = gather(queries, heads * headSize, index);
  }
  return queries;
}

function gather(x: Float32Array, channels: number, index: Int32Array): Float32Array {
  const out = new Float32Array(x.length);
  for (let row = 0; row < x.length; row += channels) for (let c = 0; c < channels; c++) out[row + c] = x[row + index[c]!]!;
  return out;
}

function subtract(x: Float32Array, channels: number, mean: Float32Array): Float32Array {
  return Float32Array.from(x, (value, i) => value - mean[i % channels]!);
}

function joined(parts: readonly StoredRows[], code: KvCode, headSize: number): Float32Array {
  if (parts.length === 1) return decodeRows(code, parts[0]!, headSize);
  const decoded = parts.map((part) => decodeRows(code, part, headSize));
  const all = new Float32Array(decoded.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of decoded) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
