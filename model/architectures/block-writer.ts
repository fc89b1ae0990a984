/**
 * BlockWriter: one block's graph, its weight slots and its sites, written together.
 * The graph of the first block of a structure becomes a template that later blocks
 * of the same structure only bind their tensors to.
 * @module
 */
import type { LazyTensor } from "../../core/tensor.ts";
import { GraphBuilder } from "../graph/builder.ts";
import type { Graph } from "../graph/graph.ts";
import type { AttentionPlace, Block, LinearSite } from "../model.ts";
import type { TensorTable } from "./tensors.ts";

/** What equal blocks share. */
export interface BlockTemplate {
  readonly graph: Graph;
  readonly slots: ReadonlyMap<string, readonly number[]>;
  readonly sites: readonly LinearSite[];
  readonly attentions: readonly AttentionPlace[];
}

export interface LinearOptions {
  readonly bias?: boolean;
  /** "out-in": Linear, stored [rows, cols]. "in-out": Conv1D, stored [cols, rows]. */
  readonly layout?: "out-in" | "in-out";
  readonly kind?: LinearSite["kind"];
  /** Module in the checkpoint when it is not the block's prefix + local name. */
  readonly module?: string;
  /** Tensor that is the weight when it is not `<module>.weight`, as a tied head. */
  readonly tensor?: string;
}

export class BlockWriter {
  readonly graph: GraphBuilder;
  readonly #name: string;
  readonly #prefix: string;
  readonly #tensors: TensorTable;
  readonly #weights = new Map<string, LazyTensor>();
  readonly #slots = new Map<string, readonly number[]>();
  readonly #sites: LinearSite[] = [];
  readonly #attentions: AttentionPlace[] = [];

  /** @param prefix - before a slot's name in the checkpoint, e.g. "model.layers.0.". */
  constructor(graphName: string, blockName: string, prefix: string, tensors: TensorTable) {
    this.graph = new GraphBuilder(graphName);
    this.#name = blockName;
    this.#prefix = prefix;
    this.#tensors = tensors;
  }

  /** Whether the checkpoint has this tensor of the block. */
  has(local: string): boolean {
    return this.#tensors.has(this.#prefix + local);
  }

  /** Declare a slot and bind the tensor of the same local name. @throws as `TensorTable.take`. */
  weight(slot: string, shape: readonly number[], tensor: string = this.#prefix + slot): string {
    this.#weights.set(slot, this.#tensors.take(tensor, shape));
    this.#slots.set(slot, shape);
    return this.graph.weight(slot, shape);
  }

  /** Declare a slot for a tensor that is computed, not stored. */
  derived(slot: string, tensor: LazyTensor): string {
    this.#weights.set(slot, tensor);
    return this.graph.weight(slot, tensor.shape);
  }

  /**
   * A linear layer on rows, and its site.
   *
   * @param input - value [tokens, cols].
   * @returns value [tokens, rows], named `local`.
   */
  linear(input: string, local: string, rows: number, cols: number, options: LinearOptions = {}): string {
    const { layout = "out-in", kind = "linear", module = this.#prefix + local } = options;
    const shape = layout === "out-in" ? [rows, cols] : [cols, rows];
    const weight = this.weight(`${local}.weight`, shape, options.tensor ?? `${module}.weight`);
    const bias = options.bias === true ? this.weight(`${local}.bias`, [rows], `${module}.bias`) : undefined;
    const transB = layout === "out-in" ? 1 : 0;
    const output = this.graph.op("Gemm", bias === undefined ? [input, weight] : [input, weight, bias], { transB }, local);
    this.#sites.push({
      name: module,
      localName: local,
      kind,
      node: `Gemm:${output}`,
      input,
      output,
      weight,
      ...(bias === undefined ? {} : { bias }),
      channelAxis: layout === "out-in" ? 0 : 1,
      rows,
      cols,
    });
    return output;
  }

  /** Note where the graph attends. */
  attention(place: AttentionPlace): void {
    this.#attentions.push(place);
  }

  /** The finished block. `reads` and `writes` map graph values to carried values. */
  block(role: Block["role"], reads: Readonly<Record<string, string>>, writes: Readonly<Record<string, string>>): Block {
    const graph = this.graph.build(Object.keys(writes));
    return { name: this.#name, role, graph, weights: this.#weights, reads, writes, sites: this.#sites, attentions: this.#attentions };
  }

  /** What later blocks of the same structure need of a block made here. */
  template(block: Block): BlockTemplate {
    return { graph: block.graph, slots: this.#slots, sites: this.#sites, attentions: this.#attentions };
  }
}

/** A block of a structure that was written before, on its own tensors. @throws as `TensorTable.take`. */
export function bindBlock(
  template: BlockTemplate,
  name: string,
  tensors: TensorTable,
  reads: Readonly<Record<string, string>>,
  writes: Readonly<Record<string, string>>,
): Block {
  const weights = new Map<string, LazyTensor>();
  for (const [slot, shape] of template.slots) weights.set(slot, tensors.take(`${name}.${slot}`, shape));
  const sites = template.sites.map((site): LinearSite => ({ ...site, name: `${name}.${site.localName}` }));
  return { name, role: "block", graph: template.graph, weights, reads, writes, sites, attentions: template.attentions };
}
