/**
 * What keys and the queries that meet them look like: the statistics that orders and centres of a key-value cache are made of.
 *
 * A rounding error of a key matters by the attention the key gets: to second order the divergence of a row of attention is
 * ½ Var_p(error of the scores), p = the row. So tokens are weighed by p (1 − p), averaged over rows, mixed half and half with equal
 * weights. Without it the first tokens of a sequence, which all later ones attend to and whose keys look like no other, would not count.
 * @module
 */
import type { Engine } from "../model/engines/engine.ts";
import { floatsOf } from "../model/host-tensor.ts";
import { findAttention, type AttentionTaps } from "../model/kv/cut.ts";
import type { Block, Model } from "../model/model.ts";
import type { Samples } from "../model/sample-list.ts";
import { walk } from "../model/walk.ts";
import type { BlockContext } from "../model/walk-types.ts";

/** Keys of one block, after rotation. */
export interface KeyStatistics {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  /** Tokens seen. */
  readonly tokens: number;
  /** Mean key, half of it weighed by attention, F32 [kvHeads · headSize]. */
  readonly mean: Float32Array;
  /** Mean square of the queries that meet a channel, over tokens and the query heads of its key head, [kvHeads · headSize]. */
  readonly queryPower: Float64Array;
  /** Keys drawn by their weight, by key head: [tokens drawn, headSize]. */
  readonly drawn: readonly Float32Array[];
}

export interface ObserveKeysOptions {
  readonly engine: Engine;
  /** Keys drawn a head, about. Default 256. */
  readonly draws?: number;
  readonly batchTokens?: number;
  readonly maxMemory?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { readonly done: number; readonly total: number; readonly detail: string }) => void;
}

const DEFAULT_DRAWS = 256;
/** Every so many rows of attention are looked at. A prime, so that no rhythm of the text is hit. */
const ROW_STRIDE = 23;

/** Keys and queries of every block that attends, by block name. */
export async function observeKeys(model: Model, samples: Samples, options: ObserveKeysOptions): Promise<Map<string, KeyStatistics>> {
  const result = new Map<string, KeyStatistics>();
  const perSample = Math.max(1, Math.ceil((options.draws ?? DEFAULT_DRAWS) / samples.length));
  let fold: KeyFold | undefined;
  const tapsOf = (block: Block): AttentionTaps | undefined => (block.role === "block" ? findAttention(block) : undefined);
  const last = model.blocks.findLastIndex((block) => tapsOf(block) !== undefined);
  if (last < 0) return result;
  await walk(model, samples, {
    engine: options.engine,
    to: last,
    ...(options.batchTokens !== undefined && { batchTokens: options.batchTokens }),
    ...(options.maxMemory !== undefined && { maxMemory: options.maxMemory }),
    ...(options.signal !== undefined && { signal: options.signal }),
    ...(options.onProgress !== undefined && {
      onProgress: ({ tokens, totalTokens, blockName }) => options.onProgress!({ done: tokens, total: totalTokens, detail: blockName }),
    }),
    visitor: {
      instrument(block) {
        const taps = tapsOf(block);
        fold = taps && new KeyFold(taps, perSample);
        return { graph: block.graph, outputs: taps === undefined ? [] : [taps.q, taps.k] };
      },
      observe(context: BlockContext, batch, values) {
        if (fold === undefined) return;
        fold.update(floatsOf(values[fold.taps.q]!, "queries"), floatsOf(values[fold.taps.k]!, "keys"), context.batchSamples(batch).length);
        if (batch === context.batches - 1) result.set(context.block.name, fold.finish());
      },
    },
  });
  return result;
}

class KeyFold {
  readonly taps: AttentionTaps;
  readonly #draws: number;
  readonly #plain: Float64Array;
  readonly #attended: Float64Array;
  readonly #power: Float64Array;
  readonly #drawn: Float32Array[][];
  #tokens = 0;

  constructor(taps: AttentionTaps, draws: number) {
    const { kvHeads, headSize } = taps;
    this.taps = taps;
    this.#draws = draws;
    this.#plain = new Float64Array(kvHeads * headSize);
    this.#attended = new Float64Array(kvHeads * headSize);
    this.#power = new Float64Array(kvHeads * headSize);
    this.#drawn = Array.from({ length: kvHeads }, () => []);
  }

  /** Fold a batch: `q` [samples, tokens, heads · headSize], `k` [samples, tokens, kvHeads · headSize]. */
  update(q: Float32Array, k: Float32Array, samples: number): void {
    for (let sample = 0; sample < samples; sample++) {
      const part = (x: Float32Array): Float32Array => x.subarray((sample * x.length) / samples, ((sample + 1) * x.length) / samples);
      this.#updateSequence(part(q), part(k));
    }
  }

  #updateSequence(q: Float32Array, k: Float32Array): void {
    const { heads, kvHeads, headSize } = this.taps;
    const channels = kvHeads * headSize;
    const tokens = k.length / channels;
    const group = heads / kvHeads;
    this.#tokens += tokens;
    for (let i = 0; i < k.length; i++) this.#plain[i % channels]! += k[i]!;
    for (let i = 0; i < q.length; i++) {
      const channel = i % (heads * headSize);
      const kvHead = Math.floor(channel / headSize / group);
      this.#power[kvHead * headSize + (channel % headSize)]! += q[i]! * q[i]!;
    }
    for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
      const weight = this.#attentionOn(q, k, kvHead, tokens);
      const total = weight.reduce((sum, a) => sum + a, 0);
      const mixed = weight.map((a) => 0.5 / tokens + (total === 0 ? 0.5 / tokens : (0.5 * a) / total));
      for (let t = 0; t < tokens; t++) {
        const share = total === 0 ? 1 / tokens : weight[t]! / total;
        for (let c = 0; c < headSize; c++)
          this.#attended[kvHead * headSize + c]! += share * tokens * k[(t * kvHeads + kvHead) * headSize + c]!;
      }
      this.#draw(k, kvHead, mixed);
    }
  }

  /** Σ over some rows and all query heads of p (1 − p), by token. */
  #attentionOn(q: Float32Array, k: Float32Array, kvHead: number, tokens: number): Float64Array {
    const { heads, kvHeads, headSize } = this.taps;
    const group = heads / kvHeads;
    const found = new Float64Array(tokens);
    const row = new Float64Array(tokens);
    for (let head = kvHead * group; head < (kvHead + 1) * group; head++) {
      for (let t = Math.min(tokens - 1, ROW_STRIDE >> 1); t < tokens; t += ROW_STRIDE) {
        let most = -Infinity;
        for (let j = 0; j <= t; j++) {
          let sum = 0;
          for (let c = 0; c < headSize; c++) sum += q[(t * heads + head) * headSize + c]! * k[(j * kvHeads + kvHead) * headSize + c]!;
          row[j] = sum / Math.sqrt(headSize);
          most = Math.max(most, row[j]!);
        }
        let total = 0;
        for (let j = 0; j <= t; j++) total += row[j] = Math.exp(row[j]! - most);
        for (let j = 0; j <= t; j++) found[j]! += (row[j]! / total) * (1 - row[j]! / total);
      }
    }
    return found;
  }

  /** Systematic draws: as many a token as its share says, the remainder carried on. */
  #draw(k: Float32Array, kvHead: number, share: Float64Array): void {
    const { kvHeads, headSize } = this.taps;
    let reached = 0;
    let next = 0.5 / this.#draws;
    for (const [t, weight] of share.entries()) {
      reached += weight;
      for (; next < reached; next += 1 / this.#draws) {
        const from = (t * kvHeads + kvHead) * headSize;
        this.#drawn[kvHead]!.push(k.slice(from, from + headSize));
      }
    }
  }

  finish(): KeyStatistics {
    const { heads, kvHeads, headSize } = this.taps;
    const tokens = Math.max(1, this.#tokens);
    const mean = Float32Array.from(this.#plain, (sum, c) => (0.5 * sum) / tokens + (0.5 * this.#attended[c]!) / tokens);
    const queryPower = this.#power.map((sum) => sum / (tokens * (heads / kvHeads)));
    const drawn = this.#drawn.map((rows) => {
      const all = new Float32Array(rows.length * headSize);
      for (const [i, row] of rows.entries()) all.set(row, i * headSize);
      return all;
    });
    return { heads, kvHeads, headSize, tokens: this.#tokens, mean, queryPower, drawn };
  }
}
