/**
 * The walk: runs a model block by block over all samples.
 *
 * Memory is one block's weights (and the next block's while they are small),
 * and the carried values of the samples. A visitor may tap any value, look at
 * it, and put another form of the block in its place before the next one runs.
 * @module
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { InputError, throwIfAborted } from "../core/errors.ts";
import { readBatches, type Batch } from "./batches.ts";
import { CarriedValues } from "./carried.ts";
import type { CompiledGraph, Engine, HostTensor, Values } from "./engines/engine.ts";
import type { Graph } from "./graph/graph.ts";
import type { Block, Model } from "./model.ts";
import { loadWeights, weightBytes } from "./weights.ts";
import type { Samples } from "./sample-list.ts";
import type { BlockContext, BlockVariant, WalkOptions } from "./walk-types.ts";

/** Tokens a run: enough to keep the matrix kernels busy, few enough that activations stay small. */
export const DEFAULT_BATCH_TOKENS = 1024;
const DEFAULT_MAX_MEMORY = 2 ** 30;
/** Larger blocks are read when they are due, so that two of them never lie in memory together. */
const PREFETCH_LIMIT = 256 * 2 ** 20;

/**
 * Run every block on all samples, in order, with the visitor's taps.
 *
 * @throws {InputError} for samples that do not fit the model, before anything runs.
 * @throws {InterruptedError} when the signal is aborted; the scratch file is gone by then.
 */
export async function walk(model: Model, samples: Samples, options: WalkOptions): Promise<void> {
  const { engine, visitor, batchTokens = DEFAULT_BATCH_TOKENS, maxMemory = DEFAULT_MAX_MEMORY, from = 0, signal } = options;
  const to = Math.min(options.to ?? Infinity, model.blocks.length - 1);
  throwIfAborted(signal);
  const batches: Batch[] = [];
  const live = liveAfter(model.blocks, to);
  const carried = new CarriedValues({
    maxMemory,
    ...(options.scratchDirectory !== undefined && { scratchDirectory: options.scratchDirectory }),
  });
  const compiled = new CompiledGraphs(engine);
  const weights = new WeightQueue(model.blocks, to);
  try {
    for await (const { batch, values } of readBatches(model.inputs, samples, batchTokens)) {
      throwIfAborted(signal);
      await carried.replace(batches.length, Object.entries(values), new Set());
      batches.push(batch);
    }
    const sampleTokens = batches.reduce((sum, batch) => sum + batch.tokens, 0);
    for (let index = 0; index <= to; index++) {
      const block = model.blocks[index]!;
      const stand = new BlockStand(block, index, await weights.take(index), { engine, batches, carried, compiled, live: live[index]! });
      const progress = (batch: number, total: number, doneTokens: number): void =>
        options.onProgress?.({
          block: index,
          blocks: to + 1,
          blockName: block.name,
          batch,
          batches: total,
          tokens: index * sampleTokens + doneTokens,
          totalTokens: (to + 1) * sampleTokens,
        });
      const observed = index >= from;
      const decides = observed && visitor.decide !== undefined;
      const variant = observed ? visitor.instrument?.(block, index) : undefined;
      let doneTokens = 0;
      for (const [i, batch] of batches.entries()) {
        throwIfAborted(signal);
        const wanted = observed ? (variant?.outputs ?? (variant?.graph ?? block.graph).outputs) : [];
        const values = await stand.runPass(i, variant ?? {}, wanted);
        if (observed) await visitor.observe?.(stand, i, pick(values, wanted, block));
        // A block that may be decided on keeps its inputs until then, and its outputs beside them.
        await stand.carry(i, values, decides);
        doneTokens += batch.tokens;
        progress(i + 1, batches.length, doneTokens);
        await nextTurn();
      }
      if (decides) {
        throwIfAborted(signal);
        const chosen = await visitor.decide!(stand);
        for (let i = 0; i < batches.length; i++) {
          throwIfAborted(signal);
          await stand.settle(i, chosen);
          if (chosen !== undefined) progress(batches.length + i + 1, 2 * batches.length, doneTokens);
          if (chosen !== undefined) await nextTurn();
        }
      }
      await compiled.endBlock();
    }
  } finally {
    await weights.drain();
    await compiled.releaseAll();
    await carried.close();
  }
}

/** For each block up to `to`: the carried values some later block reads before they are written again. */
function liveAfter(blocks: readonly Block[], to: number): ReadonlySet<string>[] {
  const result: ReadonlySet<string>[] = [];
  let live = new Set<string>();
  for (let i = to; i >= 0; i--) {
    result[i] = live;
    const { reads, writes } = blocks[i]!;
    live = new Set([...live].filter((name) => !Object.values(writes).includes(name)));
    for (const name of Object.values(reads)) live.add(name);
  }
  return result;
}

function pick(values: Values, names: readonly string[], block: Block): Values {
  return Object.fromEntries(
    names.map((name) => {
      const value = values[name];
      if (value === undefined)
        throw new InputError("input.value", `block ${block.name}: the engine returned no "${name}"`, { block: block.name, value: name });
      return [name, value];
    }),
  );
}

interface Surroundings {
  readonly engine: Engine;
  readonly batches: readonly Batch[];
  readonly carried: CarriedValues;
  readonly compiled: CompiledGraphs;
  /** Carried values that later blocks read. */
  readonly live: ReadonlySet<string>;
}

/** Names under which outputs wait beside inputs; no graph name contains a newline. */
const pendingName = (name: string): string => `pending\n${name}`;

/** The walk's place at one block: what visitors see, and the moves between blocks. */
class BlockStand implements BlockContext {
  readonly block: Block;
  readonly index: number;
  readonly engine: Engine;
  readonly weights: ReadonlyMap<string, HostTensor>;
  readonly batches: number;
  readonly #around: Surroundings;
  /** Graph outputs that later blocks read. */
  readonly #written: readonly string[];

  constructor(block: Block, index: number, weights: ReadonlyMap<string, HostTensor>, around: Surroundings) {
    this.block = block;
    this.index = index;
    this.engine = around.engine;
    this.weights = weights;
    this.batches = around.batches.length;
    this.#around = around;
    this.#written = Object.keys(block.writes).filter((output) => around.live.has(block.writes[output]!));
  }

  batchTokens(batch: number): number {
    return this.#around.batches[batch]!.tokens;
  }

  batchSamples(batch: number): readonly number[] {
    return this.#around.batches[batch]!.samples;
  }

  async run(batch: number, variant: BlockVariant = {}): Promise<Values> {
    const graph = variant.graph ?? this.block.graph;
    return this.#runGraph(batch, graph, variant.outputs ?? graph.outputs, variant);
  }

  /** Run for `outputs` and everything later blocks need. */
  async runPass(batch: number, variant: BlockVariant, outputs: readonly string[]): Promise<Values> {
    const values = await this.#runGraph(batch, variant.graph ?? this.block.graph, [...new Set([...outputs, ...this.#written])], variant);
    return this.block.host === undefined || Object.keys(values).length === 0 ? values : { ...values, ...this.block.host(values) };
  }

  /** Keep what later blocks read; with `pending` beside the block's inputs, which stay for now. */
  async carry(batch: number, values: Values, pending: boolean): Promise<void> {
    const { carried, live } = this.#around;
    const rename = (name: string): string => (pending ? pendingName(name) : name);
    const written = this.#written.map((output): [string, HostTensor] => [rename(this.block.writes[output]!), values[output]!]);
    await carried.replace(batch, written, pending ? this.#inputsAndLive() : live);
  }

  /** After the decision: keep the pending outputs, or those of the chosen variant. */
  async settle(batch: number, chosen: BlockVariant | undefined): Promise<void> {
    const { carried, live } = this.#around;
    if (chosen !== undefined) {
      await this.carry(batch, await this.runPass(batch, { ...chosen, outputs: [] }, []), false);
      return;
    }
    carried.rename(
      batch,
      this.#written.map((output) => [pendingName(this.block.writes[output]!), this.block.writes[output]!]),
      live,
    );
  }

  #inputsAndLive(): ReadonlySet<string> {
    return new Set([...Object.values(this.block.reads), ...this.#around.live]);
  }

  async #runGraph(batch: number, graph: Graph, outputs: readonly string[], variant: BlockVariant): Promise<Values> {
    // Nothing wanted: the last block of a walk nobody looks at.
    if (outputs.length === 0) return {};
    const { carried, compiled } = this.#around;
    const form = await compiled.get(graph, outputs);
    const feeds: Record<string, HostTensor> = {};
    for (const [slot, tensor] of this.weights) feeds[slot] = tensor;
    for (const [slot, tensor] of variant.weights ?? []) feeds[slot] = tensor;
    for (const [input, value] of Object.entries(variant.feeds ?? {})) feeds[input] = value;
    for (const [input, name] of Object.entries(this.block.reads)) {
      if (Object.hasOwn(feeds, input)) continue;
      const value = await carried.get(batch, name);
      if (value === undefined) {
        throw new InputError("input.value", `block ${this.block.name} reads "${name}", which no earlier block and no sample gives`, {
          block: this.block.name,
          value: name,
        });
      }
      feeds[input] = value;
    }
    return form.run(feeds);
  }
}

/** Compiled graphs of this block and the one before; equal blocks share graph objects and so their compiled form. */
class CompiledGraphs {
  readonly #engine: Engine;
  readonly #forms = new Map<Graph, Map<string, { form: CompiledGraph; used: boolean }>>();

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  async get(graph: Graph, outputs: readonly string[]): Promise<CompiledGraph> {
    const byOutputs = this.#forms.get(graph) ?? new Map<string, { form: CompiledGraph; used: boolean }>();
    this.#forms.set(graph, byOutputs);
    const key = JSON.stringify(outputs);
    const known = byOutputs.get(key) ?? { form: await this.#engine.compile(graph, { outputs }), used: true };
    known.used = true;
    byOutputs.set(key, known);
    return known.form;
  }

  /** Release what this block did not use. */
  async endBlock(): Promise<void> {
    await this.#releaseWhere((entry) => !entry.used);
    for (const byOutputs of this.#forms.values()) for (const entry of byOutputs.values()) entry.used = false;
  }

  async releaseAll(): Promise<void> {
    await this.#releaseWhere(() => true);
  }

  async #releaseWhere(condition: (entry: { used: boolean }) => boolean): Promise<void> {
    for (const [graph, byOutputs] of this.#forms) {
      for (const [key, entry] of byOutputs) {
        if (!condition(entry)) continue;
        byOutputs.delete(key);
        await entry.form.release();
      }
      if (byOutputs.size === 0) this.#forms.delete(graph);
    }
  }
}

type LoadedWeights = Promise<ReadonlyMap<string, HostTensor>>;

/** Hands out each block's weights once and reads small blocks one ahead. */
class WeightQueue {
  readonly #blocks: readonly Block[];
  readonly #to: number;
  #ahead: { index: number; weights: LoadedWeights } | undefined;

  constructor(blocks: readonly Block[], to: number) {
    this.#blocks = blocks;
    this.#to = to;
  }

  async take(index: number): LoadedWeights {
    const ahead = this.#ahead;
    this.#ahead = undefined;
    const weights = await (ahead?.index === index ? ahead.weights : loadWeights(this.#blocks[index]!));
    const next = this.#blocks[index + 1];
    if (next !== undefined && index < this.#to && weightBytes(next) <= PREFETCH_LIMIT) {
      const loading = loadWeights(next);
      // A failed read is reported when the block is due, not as an unhandled rejection before.
      loading.catch(() => undefined);
      this.#ahead = { index: index + 1, weights: loading };
    }
    return weights;
  }

  /** Wait for a read still under way, so that nothing touches the files after the walk has ended. */
  async drain(): Promise<void> {
    await this.#ahead?.weights.catch(() => undefined);
    this.#ahead = undefined;
  }
}
