/**
 * Trials on one block: how far its output moves when some of its sites are
 * quantized, under folds that are not decided yet.
 * @module
 */
import type { ActivationScheme, SiteActivations } from "../core/scheme.ts";
import type { HostTensor, Values } from "../model/engines/engine.ts";
import { withActivations } from "../model/fake-quant.ts";
import type { Graph, ValueType } from "../model/graph/graph.ts";
import type { FoldPair } from "../model/graph/pairs.ts";
import type { Block, LinearSite, Model } from "../model/model.ts";
import type { BlockContext } from "../model/walk-types.ts";
import type { WeightFold } from "./decisions.ts";
import { foldWeight, tensorName, type FoldState } from "./fold-state.ts";
import { meanTokenError } from "./token-error.ts";
import { findTrialPart, type TrialPart } from "./trial-graph.ts";

/** What a trial needs to know about sites; `undefined` leaves that part float. */
export interface TrialRules {
  /** Weight as it would read back from the artifact. @param folded - row-major as stored. @param out - receives it. @returns `out`. */
  weight(site: LinearSite, folded: Float32Array, out: Float32Array): Float32Array | undefined;
  input(site: LinearSite, state: FoldState): ActivationScheme | undefined;
  output(site: LinearSite, state: FoldState): ActivationScheme | undefined;
}

/** Which parts of which sites are quantized in a trial. */
export interface Trial {
  readonly weights: readonly LinearSite[];
  readonly activations: readonly LinearSite[];
}

/** A trial's part of a block. */
interface TrialGraph {
  readonly graph: Graph;
  readonly part: TrialPart;
}

/** What trials of all blocks share: blocks of equal structure have the same graphs, which engines compile once, and matrices of the same sizes. */
export class TrialCache {
  readonly parts = new Map<Graph, Map<string, TrialGraph>>();
  readonly whole = new Map<Graph, Map<string, Graph>>();
  readonly #buffers = new Map<string, Float32Array>();

  /** Memory for one matrix, used again: fresh pages cost more than the arithmetic. */
  buffer(purpose: string, length: number): Float32Array {
    const known = this.#buffers.get(purpose);
    if (known?.length === length) return known;
    const fresh = new Float32Array(length);
    this.#buffers.set(purpose, fresh);
    return fresh;
  }
}

/** A weight made for a trial, and what it was made from. */
interface MadeWeight {
  readonly fold: WeightFold | undefined;
  readonly data: Float32Array;
}

/** Runs trials on the calibration inputs of the block the walk stands at. */
export class BlockTrials {
  readonly #model: Model;
  readonly #context: BlockContext;
  readonly #rules: TrialRules;
  readonly #cache: TrialCache;
  readonly #made = new Map<string, MadeWeight>();
  readonly #groups: readonly ReadonlySet<string>[];
  readonly #given = new Map<string, Promise<readonly Values[]>>();

  /** @param pairs - the folds that transforms may use in this block. */
  constructor(model: Model, context: BlockContext, rules: TrialRules, cache: TrialCache, pairs: readonly FoldPair[]) {
    this.#cache = cache;
    this.#model = model;
    this.#context = context;
    this.#rules = rules;
    this.#groups = slotGroups(pairs);
  }

  /**
   * Mean relative error over tokens (`meanTokenError`) where the trial's paths join the residual stream again, against the float block.
   * Folds that no site of the trial takes part in are exact and left out.
   */
  async error(state: FoldState, trial: Trial): Promise<number> {
    const { block: rewritten, structure } = this.#quantizedBlock(trial.activations, state);
    const weights = await this.#slots(rewritten, state, trial, this.#foldedTogether(trial));
    const { graph, part } = await this.#partOf(rewritten, structure, new Set(weights.keys()));
    const float = await this.#float([...part.given, ...part.measured]);
    let sum = 0;
    let tokens = 0;
    for (const [batch, feeds] of float.entries()) {
      const values = await this.#context.run(batch, { graph, weights, outputs: part.measured, feeds });
      sum += meanTokenError(feeds, values) * this.#context.batchTokens(batch);
      tokens += this.#context.batchTokens(batch);
    }
    return sum / tokens;
  }

  /** The block's outputs under a trial, batch by batch. */
  async runner(state: FoldState, trial: Trial): Promise<(batch: number) => Promise<Values>> {
    const { block } = this.#context;
    const { block: rewritten, structure } = this.#quantizedBlock(trial.activations, state);
    const whole = this.#cache.whole.get(block.graph) ?? new Map<string, Graph>();
    this.#cache.whole.set(block.graph, whole);
    const graph = whole.get(structure) ?? rewritten.graph;
    whole.set(structure, graph);
    const weights = await this.#slots(rewritten, state, trial, undefined);
    return (batch) => this.#context.run(batch, { graph, weights, outputs: block.graph.outputs });
  }

  /** Values of the float block, every batch. */
  #float(names: readonly string[]): Promise<readonly Values[]> {
    const key = JSON.stringify(names);
    const known = this.#given.get(key);
    if (known !== undefined) return known;
    const { block } = this.#context;
    const inputs = new Set(block.graph.inputs.map(({ name }) => name));
    const outputs = names.filter((name) => !inputs.has(name));
    const run = async (): Promise<readonly Values[]> => {
      const batches: Values[] = [];
      for (let batch = 0; batch < this.#context.batches; batch++) batches.push(await this.#context.run(batch, { outputs }));
      return batches;
    };
    const values = run();
    this.#given.set(key, values);
    return values;
  }

  /** Slots whose folds meet in the trial's sites. */
  #foldedTogether({ weights, activations }: Trial): ReadonlySet<string> {
    const own = new Set([...weights, ...activations].map(({ weight }) => weight));
    for (const group of this.#groups) if ([...group].some((slot) => own.has(slot))) for (const slot of group) own.add(slot);
    return own;
  }

  /** Weights that differ from the block's. @param among - slots whose folds count; undefined = all. */
  async #slots(
    rewritten: Block,
    state: FoldState,
    { weights }: Trial,
    among: ReadonlySet<string> | undefined,
  ): Promise<Map<string, HostTensor>> {
    const { block } = this.#context;
    const slots = new Map<string, HostTensor>();
    const sites = new Map(block.sites.map((site) => [site.weight, site]));
    for (const [slot, tensor] of this.#context.weights) {
      const site = sites.get(slot);
      const name = tensorName(block, slot);
      const isQuantized = site !== undefined && weights.includes(site);
      const isFolded = (among === undefined || among.has(slot)) && (state.folds.has(name) || state.replaced.has(name));
      if (tensor.dtype !== "F32" || !(isQuantized || isFolded)) continue;
      const stored = tensor.data as Float32Array;
      const data =
        site === undefined ? state.weightOf(block, slot, stored) : this.#weight(site, stored, state.folds.get(name), isQuantized);
      slots.set(slot, { dtype: "F32", shape: tensor.shape, data });
    }
    for (const [slot, lazy] of rewritten.weights) {
      if (block.weights.has(slot)) continue;
      const tensor = await lazy.read();
      slots.set(slot, { dtype: "F32", shape: tensor.shape, data: new Float32Array(tensor.bytes.slice().buffer) });
    }
    return slots;
  }

  /** A site's weight under a fold, in memory that the next trial with another fold overwrites. */
  #weight(site: LinearSite, stored: Float32Array, fold: WeightFold | undefined, isQuantized: boolean): Float32Array {
    const { length } = stored;
    const make = (kind: string, work: (out: Float32Array) => Float32Array): Float32Array => {
      const key = `${kind} ${site.weight}`;
      const known = this.#made.get(key);
      if (known !== undefined && known.fold === fold) return known.data;
      const data = work(this.#cache.buffer(key, length));
      this.#made.set(key, { fold, data });
      return data;
    };
    const folded = fold === undefined ? stored : make("folded", (out) => foldWeight(stored, fold, site, out));
    return isQuantized ? make("quantized", (out) => this.#rules.weight(site, folded, out) ?? folded) : folded;
  }

  /** The part of the block that the trial changes, as a graph of its own. */
  async #partOf(rewritten: Block, structure: string, changed: ReadonlySet<string>): Promise<TrialGraph> {
    const { block } = this.#context;
    const byKey = this.#cache.parts.get(block.graph) ?? new Map<string, TrialGraph>();
    this.#cache.parts.set(block.graph, byKey);
    const key = JSON.stringify([structure, [...changed]]);
    const known = byKey.get(key);
    if (known !== undefined) return known;
    const part = findTrialPart(rewritten.graph, block.graph, changed);
    const declared = new Map(rewritten.graph.inputs.map((input) => [input.name, input]));
    const [first] = await this.#float([...part.given, ...part.measured]);
    const inputs = part.given.map((name): ValueType => declared.get(name) ?? anyShape(name, first![name]!));
    const read = new Set(part.nodes.flatMap((node) => node.inputs));
    const weights = rewritten.graph.weights.filter(({ name }) => read.has(name));
    const found = { graph: { ...rewritten.graph, inputs, weights, nodes: part.nodes, outputs: part.measured }, part };
    byKey.set(key, found);
    return found;
  }

  /** The block with the activations of `sites` quantized. Static scales are weight slots, so blocks that differ in them only share a graph. */
  #quantizedBlock(sites: readonly LinearSite[], state: FoldState): { block: Block; structure: string } {
    const { block } = this.#context;
    const activations = new Map<string, SiteActivations>();
    const structure: unknown[] = [];
    for (const site of sites) {
      const [input, output] = [this.#rules.input(site, state), this.#rules.output(site, state)];
      if (input === undefined && output === undefined) continue;
      activations.set(site.name, { ...(input && { input }), ...(output && { output }) });
      structure.push([site.localName, input?.scheme, output?.scheme]);
    }
    const rewritten = withActivations({ ...this.#model, blocks: [block], activations }).blocks[0]!;
    return { block: rewritten, structure: JSON.stringify(structure) };
  }
}

/** A value of the float block as an input; sizes are left open, so that batches of any shape fit. */
function anyShape(name: string, { dtype, shape }: HostTensor): ValueType {
  return { name, dtype, shape: shape.map((_, axis) => `${name}.${axis}`) };
}

/** Slots that folds tie together: each fold's producer and consumers, joined where they share one. */
function slotGroups(pairs: readonly FoldPair[]): readonly ReadonlySet<string>[] {
  let groups: ReadonlySet<string>[] = [];
  for (const { producer, consumers } of pairs) {
    const slots = [producer.weight, ...(producer.bias === undefined ? [] : [producer.bias]), ...consumers.map(({ weight }) => weight)];
    const touching = groups.filter((group) => slots.some((slot) => group.has(slot)));
    groups = [...groups.filter((group) => !touching.includes(group)), new Set([...slots, ...touching.flatMap((group) => [...group])])];
  }
  return groups;
}
