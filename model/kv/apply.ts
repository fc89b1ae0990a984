/**
 * A model whose keys and values really pass through a cache: every attention is cut, and between its halves keys and values are
 * encoded, counted and decoded. `evaluate`, `generate` and `logitsOf` run it like any other model.
 *
 * Storing is per token, so a prompt stored at once and tokens stored one by one leave the same bytes: prefill and decode are one path.
 * @module
 */
import { InputError, UnsupportedError } from "../../core/errors.ts";
import type { HostTensor, Values } from "../engines/engine.ts";
import { floatsOf } from "../host-tensor.ts";
import type { Block, Model } from "../model.ts";
import { decodeRows, encodeRows } from "./codes.ts";
import { BlockCutter, CARRIED, findAttention, type AttentionTaps } from "./cut.ts";
import { KvLayer, prepareKeys, prepareQueries } from "./layer.ts";
import type { KvScheme, StaticOp } from "./scheme.ts";

/** What the caches of a run took. */
export interface CacheUse {
  /** Tokens stored, each counted once whatever the number of layers. */
  readonly tokens: number;
  readonly layers: number;
  /** Bytes of the buffers of all layers: codes, scales, and tokens kept float at 16 bits. */
  readonly bytes: number;
  readonly bytesPerToken: number;
  /** The same keys and values at 16 bits. */
  readonly floatBytes: number;
  /** `bytes` / `floatBytes`. */
  readonly ratio: number;
}

export interface CachedModel {
  readonly model: Model;
  /** Counted so far: call it when the run is over. */
  readonly use: () => CacheUse;
}

/**
 * Put a cache into every attention of a model.
 *
 * @throws {UnsupportedError} `unsupported.architecture` for a model without attention, or one that does not only look back.
 * @throws {InputError} `input.option` for a group that does not fit the heads, or static transforms made for other heads.
 */
export function withKvCache(model: Model, scheme: KvScheme): CachedModel {
  if (model.facts.output !== "logits") {
    throw new UnsupportedError(
      "unsupported.architecture",
      `${model.facts.className} gives ${model.facts.output}; only models that generate text keep a key-value cache`,
      { className: model.facts.className },
    );
  }
  const counter = new Counter();
  const isStream = scheme.mode === "stream";
  const cutter = new BlockCutter(isStream);
  let layers = 0;
  const blocks = model.blocks.flatMap((block): Block[] => {
    const taps = block.role === "block" ? findAttention(block) : undefined;
    if (taps === undefined) return [block];
    checkScheme(scheme, taps, block.name);
    layers++;
    const { before, after } = cutter.cut(block, taps);
    const ops = scheme.ops.get(block.name) ?? [];
    const store = (values: Values): Values =>
      isStream ? storeStream(values, taps, scheme, ops, counter) : storeAll(values, taps, scheme, block.name, ops, counter);
    return [{ ...before, host: store }, after];
  });
  if (layers === 0) {
    throw new UnsupportedError(
      "unsupported.architecture",
      `no attention was found in ${model.facts.className}, so it has no cache to store`,
      {
        className: model.facts.className,
      },
    );
  }
  return { model: { ...model, blocks }, use: () => counter.use(layers) };
}

function checkScheme(scheme: KvScheme, { kvHeads, headSize, capped }: AttentionTaps, block: string): void {
  for (const op of scheme.ops.get(block) ?? []) {
    const length = op.op === "perm" ? op.index.length : op.mean.length;
    if (length === kvHeads * headSize) {
      if (op.op !== "centre" || !capped) continue;
      throw new UnsupportedError(
        "unsupported.scheme",
        `--kv ${scheme.method}: ${block} caps its scores, so a constant subtracted from all keys would be seen; leave centre=mean out`,
        { block },
      );
    }
    throw new InputError(
      "input.option",
      `--kv ${scheme.method}: its statistics have ${length} channels in ${block}, the model ${kvHeads * headSize}; calibrate on this model`,
      { block, channels: kvHeads * headSize, given: length },
    );
  }
}

function storeAll(
  values: Values,
  taps: AttentionTaps,
  scheme: KvScheme,
  block: string,
  ops: readonly StaticOp[],
  counter: Counter,
): Values {
  const [q, k, v] = [values[taps.q]!, values[taps.k]!, values[taps.v]!];
  const [batch, tokens] = k.shape as [number, number, number];
  const keys = new Float32Array(k.data.length);
  const mixed = new Float32Array(v.data.length);
  const width = keys.length / batch;
  for (let sample = 0; sample < batch; sample++) {
    const cache = new KvLayer(scheme, taps, block);
    const part = (tensor: HostTensor): Float32Array => floatsOf(tensor, "keys and values").subarray(sample * width, (sample + 1) * width);
    cache.append(part(k), part(v));
    const stored = cache.materialize();
    keys.set(stored.k, sample * width);
    mixed.set(stored.v, sample * width);
    const { codes, scales } = cache.bytes();
    counter.add(tokens, codes + scales, 4 * width);
  }
  return {
    [taps.q]: { ...q, data: askedWith(floatsOf(q, "queries"), taps, scheme, ops) },
    [taps.k]: { ...k, data: keys },
    [taps.v]: { ...v, data: mixed },
  };
}

/** Queries as they meet stored keys: in their order, rounded to the scheme's format. */
function askedWith(q: Float32Array, taps: AttentionTaps, scheme: KvScheme, ops: readonly StaticOp[]): Float32Array {
  const ordered = prepareQueries(q, taps, ops);
  if (scheme.q.kind === "float" && scheme.q.dtype === "F32") return ordered;
  return decodeRows(scheme.q, encodeRows(scheme.q, ordered, taps.headSize), taps.headSize);
}

/**
 * Every token's row of scores sees the newest `window` and the first `sinks` tokens float and the rest stored: both forms of
 * every key stand side by side, [float ..., stored ...], and a mask says which of the two a row sees.
 */
function storeStream(values: Values, taps: AttentionTaps, scheme: KvScheme, ops: readonly StaticOp[], counter: Counter): Values {
  const [q, k, v] = [values[taps.q]!, values[taps.k]!, values[taps.v]!];
  const channels = taps.kvHeads * taps.headSize;
  const [batch, tokens] = k.shape as [number, number, number];
  const { sinks, window } = scheme.protect;
  const [keys, mixed] = [new Float32Array(2 * k.data.length), new Float32Array(2 * v.data.length)];
  const width = tokens * channels;
  const asFloat = Math.min(tokens, sinks + window);
  for (let sample = 0; sample < batch; sample++) {
    for (const [which, source, target] of [["k", k, keys] as const, ["v", v, mixed] as const]) {
      const own = floatsOf(source, "keys and values").subarray(sample * width, (sample + 1) * width);
      const plain = which === "k" ? prepareKeys(own, channels, ops) : own;
      const code = scheme[which];
      const stored = encodeRows(code, plain, taps.headSize);
      target.set(plain, 2 * sample * width);
      target.set(decodeRows(code, stored, taps.headSize), (2 * sample + 1) * width);
      // At the end of the sequence: stored tokens in the format, sinks and window at 16 bits.
      const bytesPerToken = (stored.codes.byteLength + stored.scales.byteLength) / tokens;
      counter.add(which === "k" ? tokens : 0, (tokens - asFloat) * bytesPerToken + asFloat * channels * 2, 2 * width);
    }
  }
  const both = (data: Float32Array): HostTensor => ({ dtype: "F32", shape: [batch, 2 * tokens, channels], data });
  return {
    [taps.q]: { ...q, data: askedWith(floatsOf(q, "queries"), taps, scheme, ops) },
    [taps.k]: both(keys),
    [taps.v]: both(mixed),
    [CARRIED.mask]: streamMask(tokens, scheme, taps.mask === undefined ? undefined : values[CARRIED.mask]!),
  };
}

/** BOOL [batch or 1, 1, tokens, 2 · tokens]: the float half where a token is a sink or in the window of the row, else the stored half. */
function streamMask(tokens: number, { protect: { sinks, window } }: KvScheme, own: HostTensor | undefined): HostTensor {
  const batch = own?.shape[0] ?? 1;
  const rows = own?.shape[2] ?? tokens;
  const data = new Uint8Array(batch * tokens * 2 * tokens);
  for (let b = 0; b < batch; b++) {
    for (let t = 0; t < tokens; t++) {
      const at = (b * tokens + t) * 2 * tokens;
      for (let j = 0; j <= t; j++) {
        const isSeen = own === undefined || Number(own.data[(b * rows + (rows === 1 ? 0 : t)) * tokens + j]) === 1;
        if (isSeen) data[at + (j < sinks || t - j < window ? j : tokens + j)] = 1;
      }
    }
  }
  return { dtype: "BOOL", shape: [batch, 1, tokens, 2 * tokens], data };
}

class Counter {
  #tokens = 0;
  #bytes = 0;
  #floatBytes = 0;

  add(tokens: number, bytes: number, floatBytes: number): void {
    this.#tokens += tokens;
    this.#bytes += bytes;
    this.#floatBytes += floatBytes;
  }

  use(layers: number): CacheUse {
    const tokens = this.#tokens / layers;
    return {
      tokens,
      layers,
      bytes: this.#bytes,
      bytesPerToken: tokens === 0 ? 0 : this.#bytes / tokens,
      floatBytes: this.#floatBytes,
      ratio: this.#floatBytes === 0 ? 1 : this.#bytes / this.#floatBytes,
    };
  }
}
