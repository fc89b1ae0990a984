/**
 * A block cut at its attention: the half that makes queries, keys and values, and the half that reads them.
 * Between the two a cache can store keys and values in its own form.
 * @module
 */
import { GraphBuilder } from "../graph/builder.ts";
import type { Graph, GraphNode, ValueType } from "../graph/graph.ts";
import { pruneGraph } from "../graph/prune.ts";
import type { Block } from "../model.ts";
import type { ModelKv } from "./scheme.ts";

/** The attention of a block: the values that enter it. */
export interface AttentionTaps extends ModelKv {
  /** Values [batch, sequence, heads × headSize], after rotation where there is one. */
  readonly q: string;
  readonly k: string;
  readonly v: string;
  /** Scores pass a tanh, so a constant added to all keys is seen. */
  readonly capped: boolean;
  /** The mask the attention reads, if it reads one: a graph input. */
  readonly mask?: string;
}

/** The one causal attention of a block; undefined when it has none, several, or one that looks ahead. */
export function findAttention({ attentions = [] }: Block): AttentionTaps | undefined {
  const [place] = attentions;
  if (place === undefined || attentions.length > 1 || !(place.causal || place.mask !== undefined)) return undefined;
  const { query, key, value, heads, kvHeads, headSize, mask, softcap } = place;
  return { q: query, k: key, v: value, heads, kvHeads, headSize, capped: softcap !== undefined, ...(mask === undefined ? {} : { mask }) };
}

/** Carried names of what passes between the halves. */
export const CARRIED = { q: "kv.q", k: "kv.k", v: "kv.v", mask: "kv.mask" } as const;

/** Two blocks that do what one did. */
export interface Halves {
  /** Writes `CARRIED.q`, `.k` and `.v`; when masked also `CARRIED.mask`: the attention's own mask, or the query's shape where it has none. */
  readonly before: Block;
  /** Reads them; with `masked` also `CARRIED.mask`, BOOL [batch or 1, 1, sequence, keys], in place of the attention's own. */
  readonly after: Block;
}

/** Cuts blocks; those that share a graph share the halves' graphs. */
export class BlockCutter {
  readonly #graphs = new Map<Graph, { readonly before: Graph; readonly after: Graph }>();
  readonly #masked: boolean;

  /** @param masked - the second half reads a mask and as many keys as it is given. */
  constructor(masked: boolean) {
    this.#masked = masked;
  }

  cut(block: Block, taps: AttentionTaps): Halves {
    const known = this.#graphs.get(block.graph) ?? this.#cutGraph(block.graph, taps);
    this.#graphs.set(block.graph, known);
    const part = (graph: Graph, reads: Block["reads"], writes: Block["writes"]): Block => ({
      ...block,
      graph,
      weights: new Map(graph.weights.map(({ name }) => [name, block.weights.get(name)!])),
      reads: Object.fromEntries(Object.entries(reads).filter(([input]) => graph.inputs.some(({ name }) => name === input))),
      writes,
      sites: block.sites.filter(({ node }) => graph.nodes.some(({ name }) => name === node)),
    });
    const { q, k, v } = taps;
    const passed = { [q]: CARRIED.q, [k]: CARRIED.k, [v]: CARRIED.v, [CARRIED.mask]: CARRIED.mask };
    return {
      before: part(known.before, block.reads, {
        [q]: CARRIED.q,
        [k]: CARRIED.k,
        [v]: CARRIED.v,
        ...(this.#masked && { [CARRIED.mask]: CARRIED.mask }),
      }),
      after: part(known.after, { ...block.reads, ...passed }, block.writes),
    };
  }

  #cutGraph(graph: Graph, taps: AttentionTaps): { readonly before: Graph; readonly after: Graph } {
    const { q, k, v, heads, kvHeads, headSize } = taps;
    const entering: readonly ValueType[] = [
      { name: q, dtype: "F32", shape: ["batch", "sequence", heads * headSize] },
      { name: k, dtype: "F32", shape: ["batch", "keys", kvHeads * headSize] },
      { name: v, dtype: "F32", shape: ["batch", "keys", kvHeads * headSize] },
      ...(this.#masked ? [{ name: CARRIED.mask, dtype: "BOOL", shape: ["rows", 1, "sequence", "keys"] } as const] : []),
    ];
    const nodes = this.#masked ? graph.nodes.map((node) => readMask(node, taps)) : graph.nodes;
    const made = this.#masked ? withMaskOutput(graph, taps) : graph;
    const outputs = [q, k, v, ...(this.#masked ? [CARRIED.mask] : [])];
    return {
      before: pruneGraph({ ...made, name: `${graph.name}.qkv`, outputs }),
      after: pruneGraph({ ...graph, name: `${graph.name}.attend`, nodes }, entering),
    };
  }
}

/** The attention's own mask as a value to hand over; where it has none, the query's shape, which nothing reads: the cache makes the mask. */
function withMaskOutput(graph: Graph, { q, mask }: AttentionTaps): Graph {
  const builder = GraphBuilder.from(graph);
  builder.op(mask === undefined ? "Shape" : "Identity", [mask ?? q], {}, CARRIED.mask);
  return builder.build(graph.outputs);
}

/** The node with the cut's mask in place of its own: the Attention operator, or the Where of an attention that is written out. */
function readMask(node: GraphNode, { q, k, mask }: AttentionTaps): GraphNode {
  if (node.op === "Attention" && node.inputs[0] === q && node.inputs[1] === k) {
    const attributes: GraphNode["attributes"] = { ...node.attributes, is_causal: { kind: "int", value: 0 } };
    return { ...node, inputs: [...node.inputs.slice(0, 3), CARRIED.mask], attributes };
  }
  if (mask !== undefined && node.op === "Where" && node.inputs[0] === mask)
    return { ...node, inputs: [CARRIED.mask, ...node.inputs.slice(1)] };
  return node;
}
