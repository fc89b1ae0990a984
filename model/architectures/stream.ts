/**
 * The residual stream: blocks carry it as [batch, sequence, hidden] and work on rows [tokens, hidden].
 * @module
 */
import { bindBlock, BlockWriter, type BlockTemplate } from "./block-writer.ts";
import type { GraphBuilder } from "../graph/builder.ts";
import type { Block } from "../model.ts";
import type { TensorTable } from "./tensors.ts";

export interface Stream {
  /** Value [tokens, hidden]. */
  readonly tokens: string;
  /** Value I64 [3]: batch, sequence, -1; reshapes rows back whatever their width. */
  readonly rows: string;
}

/** Declare the carried input "hidden" and flatten it. */
export function enterStream(graph: GraphBuilder, hidden: number): Stream {
  const carried = graph.input("hidden", "F32", ["batch", "sequence", hidden]);
  return flatten(graph, carried, hidden);
}

/** @param value - [batch, sequence, width]. */
export function flatten(graph: GraphBuilder, value: string, width: number): Stream {
  const rows = graph.op("Concat", [graph.op("Shape", [value], { start: 0, end: 2 }), graph.int64([-1])], { axis: 0 });
  return { tokens: graph.op("Reshape", [value, graph.int64([-1, width])]), rows };
}

/** The same names on both sides, for `Block.reads` and `Block.writes`. */
export function sameNames(names: readonly string[]): Readonly<Record<string, string>> {
  return Object.fromEntries(names.map((name) => [name, name]));
}

/** Writes layers; those whose structure was written before only bind their tensors to its graph. */
export class LayerBlocks {
  readonly #family: string;
  readonly #tensors: TensorTable;
  readonly #templates = new Map<string, BlockTemplate>();

  constructor(family: string, tensors: TensorTable) {
    this.#family = family;
    this.#tensors = tensors;
  }

  /**
   * @param name - the layer's prefix in the checkpoint, e.g. "model.layers.0".
   * @param structure - equal for layers that `write` would write alike.
   * @param reads - graph input → carried value. The layer writes "hidden_out", carried as "hidden".
   */
  layer(name: string, structure: string, reads: Readonly<Record<string, string>>, write: (writer: BlockWriter) => void): Block {
    const writes = { hidden_out: "hidden" };
    const template = this.#templates.get(structure);
    if (template !== undefined) return bindBlock(template, name, this.#tensors, reads, writes);
    const writer = new BlockWriter(`${this.#family}.${this.#templates.size}`, name, `${name}.`, this.#tensors);
    write(writer);
    const block = writer.block("block", reads, writes);
    this.#templates.set(structure, writer.template(block));
    return block;
  }
}
