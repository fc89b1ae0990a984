/**
 * Trials on one block: how far its output moves when some of its sites are
 * quantized, under folds that are not decided yet.
 * @module
 */
import type { ActivationScheme, SiteActivations } from "../core/scheme.ts";
import type { HostTensor, Values } from "../model/engines/engine.ts";
import { withActivations } from "../model/fake-quant.ts";
import type { Graph } from "../model/graph/graph.ts";
import type { Block, LinearSite, Model } from "../model/model.ts";
import type { BlockContext, BlockVariant } from "../model/walk-types.ts";
import { tensorName, type FoldState } from "./fold-state.ts";
import { meanTokenError } from "./token-error.ts";

/** What a trial needs to know about sites; `undefined` leaves that part float. */
export interface TrialRules {
  /** Weight as it would read back from the artifact. @param folded - row-major as stored. */
  weight(site: LinearSite, folded: Float32Array): Float32Array | undefined;
  input(site: LinearSite, state: FoldState): ActivationScheme | undefined;
  output(site: LinearSite): ActivationScheme | undefined;
}

/** Which parts of which sites are quantized in a trial. */
export interface Trial {
  readonly weights: readonly LinearSite[];
  readonly activations: readonly LinearSite[];
}

/** Rewritten graphs, shared by all blocks of equal structure so that engines compile each once. */
export type TrialGraphs = Map<Graph, Map<string, Graph>>;

/** Runs trials on the calibration inputs of the block the walk stands at. */
export class BlockTrials {
  readonly #model: Model;
  readonly #context: BlockContext;
  readonly #rules: TrialRules;
  readonly #graphs: TrialGraphs;
  #reference: Promise<readonly Values[]> | undefined;

  constructor(model: Model, context: BlockContext, rules: TrialRules, graphs: TrialGraphs) {
    this.#graphs = graphs;
    this.#model = model;
    this.#context = context;
    this.#rules = rules;
  }

  /** Mean relative error of the block's output over tokens (`meanTokenError`), y the float block's output. */
  async error(state: FoldState, trial: Trial): Promise<number> {
    this.#reference ??= this.#runAll({});
    const reference = await this.#reference;
    const outputs = await this.#runAll(await this.#variant(state, trial));
    const errors = outputs.map((values, i) => meanTokenError(reference[i]!, values) * this.#context.batchTokens(i));
    const tokens = outputs.reduce((sum, _, i) => sum + this.#context.batchTokens(i), 0);
    return errors.reduce((sum, error) => sum + error, 0) / tokens;
  }

  /** The block's outputs under a trial, batch by batch. */
  async runner(state: FoldState, trial: Trial): Promise<(batch: number) => Promise<Values>> {
    const variant = await this.#variant(state, trial);
    return (batch) => this.#context.run(batch, variant);
  }

  async #runAll(variant: BlockVariant): Promise<readonly Values[]> {
    const results: Values[] = [];
    for (let batch = 0; batch < this.#context.batches; batch++) results.push(await this.#context.run(batch, variant));
    return results;
  }

  async #variant(state: FoldState, { weights, activations }: Trial): Promise<BlockVariant> {
    const { block } = this.#context;
    const slots = new Map<string, HostTensor>();
    const sites = new Map(block.sites.map((site) => [site.weight, site]));
    for (const [slot, tensor] of this.#context.weights) {
      const site = sites.get(slot);
      const name = tensorName(block, slot);
      const isQuantized = site !== undefined && weights.includes(site);
      if (tensor.dtype !== "F32" || !(isQuantized || state.folds.has(name) || state.replaced.has(name))) continue;
      const folded = state.weightOf(block, slot, tensor.data as Float32Array, site);
      const stored = isQuantized ? (this.#rules.weight(site, folded) ?? folded) : folded;
      slots.set(slot, { dtype: "F32", shape: tensor.shape, data: stored });
    }
    const rewritten = this.#quantizedBlock(activations, state);
    for (const [slot, lazy] of rewritten.weights) {
      if (block.weights.has(slot)) continue;
      const tensor = await lazy.read();
      slots.set(slot, { dtype: "F32", shape: tensor.shape, data: new Float32Array(tensor.bytes.slice().buffer) });
    }
    return { graph: rewritten.graph, weights: slots, outputs: block.graph.outputs };
  }

  /** The block with the activations of `sites` quantized. Static scales are weight slots, so blocks that differ in them only share a graph. */
  #quantizedBlock(sites: readonly LinearSite[], state: FoldState): Block {
    const { block } = this.#context;
    const activations = new Map<string, SiteActivations>();
    const structure: unknown[] = [];
    for (const site of sites) {
      const [input, output] = [this.#rules.input(site, state), this.#rules.output(site)];
      if (input === undefined && output === undefined) continue;
      activations.set(site.name, { ...(input && { input }), ...(output && { output }) });
      structure.push([site.localName, input?.scheme, output?.scheme]);
    }
    const rewritten = withActivations({ ...this.#model, blocks: [block], activations }).blocks[0]!;
    const known = this.#graphs.get(block.graph) ?? new Map<string, Graph>();
    this.#graphs.set(block.graph, known);
    const key = JSON.stringify(structure);
    const graph = known.get(key) ?? rewritten.graph;
    known.set(key, graph);
    return { ...rewritten, graph };
  }
}
