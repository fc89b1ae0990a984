/**
 * Where queries and keys come from: the rows of W_q and W_k behind an attention, and what stands between.
 * @module
 */
import { producers, type Graph, type GraphNode } from "../../../model/graph/graph.ts";
import type { Block, LinearSite } from "../../../model/model.ts";

/** Rows of a site that make one of the attention's inputs. */
export interface ProjectedRows {
  readonly site: LinearSite;
  /** First row: 0 unless q, k and v share a matrix. */
  readonly firstRow: number;
  /** Slot of the weight of a norm over each head (QK-norm), [headSize]. */
  readonly norm?: string;
  /** Whether positions are rotated in. */
  readonly rotated: boolean;
}

/** The projections of queries and keys of one attention. */
export interface KeyRows {
  readonly q: ProjectedRows;
  readonly k: ProjectedRows;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
}

/** The rows behind a block's attention; undefined when there is none, or something stands between that is not known. */
export function findKeyRows(block: Block): KeyRows | undefined {
  const [place] = block.attentions ?? [];
  if (place === undefined || block.attentions!.length > 1) return undefined;
  const search = { block, made: producers(block.graph) };
  const [q, k] = [trace(search, place.query), trace(search, place.key)];
  if (q === undefined || k === undefined) return undefined;
  const { heads, kvHeads, headSize } = place;
  return { q, k, heads, kvHeads, headSize };
}

interface Search {
  readonly block: Block;
  readonly made: ReadonlyMap<string, GraphNode>;
}

function trace(search: Search, value: string): ProjectedRows | undefined {
  const { block, made } = search;
  const node = made.get(value);
  if (node === undefined) return undefined;
  const site = block.sites.find((one) => one.node === node.name);
  if (site !== undefined) return { site, firstRow: 0, rotated: false };
  const before = node.inputs[0] === undefined ? undefined : trace(search, node.inputs[0]);
  if (before === undefined) return undefined;
  switch (node.op) {
    case "Reshape":
    case "Identity":
      return before;
    case "RotaryEmbedding":
      return { ...before, rotated: true };
    case "Split":
      return { ...before, firstRow: before.firstRow + splitOffset(block.graph, node, value) };
    case "RMSNormalization":
      return before.norm === undefined ? { ...before, norm: normSlot(search, node.inputs[1]!) } : undefined;
    default:
      return undefined;
  }
}

/** The weight slot of a norm: itself, or what 1 is added to (Gemma). */
function normSlot({ block, made }: Search, value: string): string {
  if (block.weights.has(value)) return value;
  return made.get(value)?.inputs.find((input) => block.weights.has(input)) ?? value;
}

/** Channels in front of one output of a Split. */
function splitOffset({ constants }: Graph, node: GraphNode, value: string): number {
  const sizes = constants.get(node.inputs[1] ?? "");
  if (sizes === undefined) return 0;
  const view = new DataView(sizes.bytes.buffer, sizes.bytes.byteOffset, sizes.bytes.byteLength);
  let offset = 0;
  for (let i = 0; node.outputs[i] !== value; i++) offset += Number(view.getBigInt64(8 * i, true));
  return offset;
}
