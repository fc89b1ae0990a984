/**
 * How far stored keys move the scores of attention: what an order or a centre is judged by, beside perplexity.
 *
 * The squared error of the keys themselves misleads: it counts channels that queries hardly meet.
 * @module
 */
import type { Engine } from "../engines/engine.ts";
import { floatsOf } from "../host-tensor.ts";
import type { Block, Model } from "../model.ts";
import type { Samples } from "../sample-list.ts";
import { walk } from "../walk.ts";
import { decodeRows, encodeRows } from "./codes.ts";
import { findAttention, type AttentionTaps } from "./cut.ts";
import { prepareKeys } from "./layer.ts";
import type { KvScheme } from "./scheme.ts";

export interface ScoreErrorOptions {
  readonly engine: Engine;
  /** Every so many rows of scores are looked at. Default 7. */
  readonly rowStride?: number;
  readonly signal?: AbortSignal;
}

/**
 * Relative error of the scores q · k that stored keys give, by scheme: over the layers the mean of √(Σ error² / Σ score²), causal pairs only.
 *
 * Queries stay as they are. The constant by which centred keys shift a row of scores is no error, since softmax does not see it.
 */
export async function scoreErrors(
  model: Model,
  schemes: readonly KvScheme[],
  samples: Samples,
  { engine, rowStride = 7, signal }: ScoreErrorOptions,
): Promise<number[]> {
  const tapsOf = (block: Block): AttentionTaps | undefined => (block.role === "block" ? findAttention(block) : undefined);
  const last = model.blocks.findLastIndex((block) => tapsOf(block) !== undefined);
  const means = schemes.map(() => 0);
  let layers = 0;
  let taps: AttentionTaps | undefined;
  let power = 0;
  let wrong = new Float64Array(schemes.length);
  if (last < 0) return means;
  await walk(model, samples, {
    engine,
    to: last,
    ...(signal && { signal }),
    visitor: {
      instrument(block) {
        taps = tapsOf(block);
        power = 0;
        wrong = new Float64Array(schemes.length);
        return { graph: block.graph, outputs: taps === undefined ? [] : [taps.q, taps.k] };
      },
      observe(context, batch, values) {
        if (taps === undefined) return;
        const [q, k] = [floatsOf(values[taps.q]!, "queries"), floatsOf(values[taps.k]!, "keys")];
        const count = context.batchSamples(batch).length;
        const errors = schemes.map((scheme) => keyErrors(scheme, k, taps!, context.block.name));
        for (let sample = 0; sample < count; sample++) {
          const part = (x: Float32Array): Float32Array => x.subarray((sample * x.length) / count, ((sample + 1) * x.length) / count);
          power += causalPower(part(q), part(k), taps, rowStride);
          for (const [i, error] of errors.entries()) wrong[i]! += causalPower(part(q), part(error), taps, rowStride);
        }
        if (batch < context.batches - 1) return;
        layers++;
        for (let i = 0; i < means.length; i++) means[i]! += power === 0 ? 0 : Math.sqrt(wrong[i]! / power);
      },
    },
  });
  return means.map((sum) => sum / layers);
}

/** What storing adds to each key, in the model's own order of channels. */
function keyErrors(scheme: KvScheme, k: Float32Array, { kvHeads, headSize }: AttentionTaps, block: string): Float32Array {
  const channels = kvHeads * headSize;
  const ops = scheme.ops.get(block) ?? [];
  const prepared = prepareKeys(k, channels, ops);
  const stored = decodeRows(scheme.k, encodeRows(scheme.k, prepared, headSize), headSize);
  const place = ops.find((op) => op.op === "perm")?.index;
  const error = new Float32Array(k.length);
  for (let i = 0; i < k.length; i++) {
    const c = i % channels;
    error[i - c + (place?.[c] ?? c)] = stored[i]! - prepared[i]!;
  }
  return error;
}

/** Σ (q_t · x_j)² over j ≤ t, for some rows t and all heads. */
function causalPower(q: Float32Array, x: Float32Array, { heads, kvHeads, headSize }: AttentionTaps, rowStride: number): number {
  const tokens = x.length / (kvHeads * headSize);
  let total = 0;
  for (let head = 0; head < heads; head++) {
    const kvHead = Math.floor((head * kvHeads) / heads);
    for (let t = Math.min(tokens - 1, rowStride >> 1); t < tokens; t += rowStride) {
      for (let j = 0; j <= t; j++) {
        const [a, b] = [(t * heads + head) * headSize, (j * kvHeads + kvHead) * headSize];
        let sum = 0;
        for (let c = 0; c < headSize; c++) sum += q[a + c]! * x[b + c]!;
        total += sum * sum;
      }
    }
  }
  return total;
}
