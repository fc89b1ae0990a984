/**
 * Foldable pairs, found on a block's graph: a place where channels can be divided by s and the matrices
 * behind multiplied by s without changing the function. Found by structure alone: a pair is only given
 * when every reader of the scaled value is known, so nothing else sees the change.
 * @module
 */
import type { Block, LinearSite } from "../model.ts";
import { consumers, producers, type Graph, type GraphNode } from "./graph.ts";

export interface FoldPair {
  /**
   * norm: a norm's weight (and bias), then the linears that read it, a router among them.
   * value-output: v_proj, then o_proj, through attention.
   * up-down: the factor beside the activation (or before a ReLU), then the matrix behind.
   */
  readonly kind: "norm" | "value-output" | "up-down";
  /** Unique in the block: the producer's local name. */
  readonly name: string;
  /** Channels that can be scaled: rows of the producer. */
  readonly channels: number;
  readonly producer: {
    /** Slot. Its `axis` runs over the channels. */
    readonly weight: string;
    readonly bias?: string;
    /** 1: the factor is the stored weight + 1 (Gemma), so dividing by s stores (w + 1) / s - 1. */
    readonly offset: 0 | 1;
    readonly axis: 0 | 1;
    /** The producer as a site; undefined for norms. */
    readonly site?: LinearSite;
  };
  /** Sites whose input columns are multiplied by s; they are all the readers. */
  readonly consumers: readonly LinearSite[];
  /** The value the consumers read: where statistics are taken. */
  readonly value: string;
  /**
   * Query heads a key-value head serves. Column c of a consumer is scaled by channel
   * `floor(c / (headSize · group)) · headSize + c mod headSize`; absent: column c by channel c.
   */
  readonly repeat?: { readonly group: number; readonly headSize: number };
}

/** What a search needs to know of a block. */
interface Search {
  readonly block: Block;
  readonly graph: Graph;
  readonly readers: ReadonlyMap<string, readonly GraphNode[]>;
  readonly makers: ReadonlyMap<string, GraphNode>;
  readonly sitesByNode: ReadonlyMap<string, LinearSite>;
}

/** Every exact pair of a block, in graph order. */
export function findPairs(block: Block): readonly FoldPair[] {
  const { graph } = block;
  const search: Search = {
    block,
    graph,
    readers: consumers(graph),
    makers: producers(graph),
    sitesByNode: new Map(block.sites.map((site) => [site.node, site])),
  };
  const pairs = graph.nodes.flatMap((node) => [normPair(search, node), valuePair(search, node), upPair(search, node)]);
  return pairs.filter((pair) => pair !== undefined);
}

const NORMS: ReadonlySet<string> = new Set(["RMSNormalization", "LayerNormalization"]);

function normPair(search: Search, node: GraphNode): FoldPair | undefined {
  const { block } = search;
  if (!NORMS.has(node.op)) return undefined;
  const scale = normWeight(search, node.inputs[1]!);
  const bias = node.inputs[2] ?? "";
  if (scale === undefined || !isOwn(search, scale.slot) || (bias !== "" && !isOwn(search, bias))) return undefined;
  const value = node.outputs[0]!;
  const sites = linearReaders(search, value);
  if (sites === undefined || sites.length === 0) return undefined;
  const channels = block.weights.get(scale.slot)!.shape[0]!;
  if (sites.some(({ cols }) => cols !== channels)) return undefined;
  const producer = { weight: scale.slot, ...(bias === "" ? {} : { bias }), offset: scale.offset, axis: 0 as const };
  return { kind: "norm", name: value, channels, producer, consumers: sites, value };
}

/** A slot, or a slot plus the constant 1. */
function normWeight({ block, graph, makers }: Search, value: string): { readonly slot: string; readonly offset: 0 | 1 } | undefined {
  if (block.weights.has(value)) return { slot: value, offset: 0 };
  const node = makers.get(value);
  if (node?.op !== "Add") return undefined;
  const slot = node.inputs.find((input) => block.weights.has(input));
  const constant = graph.constants.get(node.inputs.find((input) => input !== slot) ?? "");
  if (slot === undefined || constant?.dtype !== "F32" || constant.shape.length !== 0) return undefined;
  const { bytes } = constant;
  return new DataView(bytes.buffer, bytes.byteOffset).getFloat32(0, true) === 1 ? { slot, offset: 1 } : undefined;
}

/** v_proj whose output reaches one linear through attention alone. */
function valuePair(search: Search, node: GraphNode): FoldPair | undefined {
  const producer = search.sitesByNode.get(node.name);
  if (producer === undefined || !isOwnSite(search, producer)) return undefined;
  const attention = followSingle(search, producer.output, PASS_THROUGH);
  if (attention === undefined) return undefined;
  const mixed = attention.node.op === "Attention" ? throughAttention(attention, producer.rows) : throughProducts(search, attention);
  if (mixed === undefined) return undefined;
  const sites = linearReaders(search, mixed.value);
  const [output] = sites ?? [];
  if (output === undefined || sites!.length !== 1 || !isOwnSite(search, output) || output.cols !== mixed.heads * mixed.headSize)
    return undefined;
  const group = mixed.heads / mixed.kvHeads;
  if (producer.rows !== mixed.kvHeads * mixed.headSize) return undefined;
  return {
    kind: "value-output",
    name: producer.localName,
    channels: producer.rows,
    producer: sitePart(producer),
    consumers: [output],
    value: output.input,
    repeat: { group, headSize: mixed.headSize },
  };
}

/** The linear (times an activation, or under a ReLU) in front of exactly one linear. */
function upPair(search: Search, node: GraphNode): FoldPair | undefined {
  const producer = search.sitesByNode.get(node.name);
  if (producer === undefined || producer.kind !== "linear" || !isOwnSite(search, producer)) return undefined;
  const next = soleReader(search, producer.output);
  if (next === undefined) return undefined;
  const linear = next.op === "Relu" || (next.op === "Mul" && isBesideActivation(search, next, producer.output));
  if (!linear) return undefined;
  const value = next.outputs[0]!;
  const sites = linearReaders(search, value);
  const [down] = sites ?? [];
  if (down === undefined || sites!.length !== 1 || down.cols !== producer.rows || !isOwnSite(search, down)) return undefined;
  return { kind: "up-down", name: producer.localName, channels: producer.rows, producer: sitePart(producer), consumers: [down], value };
}

/** A product whose other factor does not depend on `value`; the readers of `value` being this node alone is checked before. */
function isBesideActivation({ makers, block }: Search, product: GraphNode, value: string): boolean {
  const other = product.inputs.find((input) => input !== value);
  return product.inputs.length === 2 && other !== undefined && makers.has(other) && !block.weights.has(other);
}

function sitePart(site: LinearSite): FoldPair["producer"] {
  return { weight: site.weight, ...(site.bias === undefined ? {} : { bias: site.bias }), offset: 0, axis: site.channelAxis, site };
}

/** Rows go through these unchanged, whatever their order: channels keep their place on the last axis. */
const PASS_THROUGH: ReadonlySet<string> = new Set(["Reshape", "Identity"]);

/**
 * All sites that read `value`, through reshapes of rows and gathered rows; undefined when anything else
 * reads it, or when it leaves the block.
 */
function linearReaders(search: Search, value: string): readonly LinearSite[] | undefined {
  if (search.graph.outputs.includes(value)) return undefined;
  const sites: LinearSite[] = [];
  for (const node of search.readers.get(value) ?? []) {
    const site = search.sitesByNode.get(node.name);
    if (site !== undefined && site.input === value && isOwnSite(search, site)) {
      sites.push(site);
      continue;
    }
    if (!keepsChannels(search, node, value)) return undefined;
    const behind = linearReaders(search, node.outputs[0]!);
    if (behind === undefined) return undefined;
    sites.push(...behind);
  }
  return sites;
}

/** Reshape that only merges or splits rows is told by its site's width, which callers check; Gather of rows; Identity. */
function keepsChannels(search: Search, node: GraphNode, value: string): boolean {
  if (node.inputs[0] !== value) return false;
  if (node.op === "Gather") return node.attributes["axis"]?.kind === "int" && node.attributes["axis"].value === 0;
  return PASS_THROUGH.has(node.op);
}

function soleReader({ readers, graph }: Search, value: string): GraphNode | undefined {
  const nodes = readers.get(value) ?? [];
  return nodes.length === 1 && !graph.outputs.includes(value) ? nodes[0] : undefined;
}

interface Followed {
  readonly node: GraphNode;
  /** The value it was reached by. */
  readonly value: string;
}

/** The first node not in `ops` behind `value`, when every value on the way has one reader. */
function followSingle(search: Search, value: string, ops: ReadonlySet<string>): Followed | undefined {
  const node = soleReader(search, value);
  if (node === undefined) return undefined;
  return ops.has(node.op) && node.inputs[0] === value ? followSingle(search, node.outputs[0]!, ops) : { node, value };
}

interface Mixed {
  /** Value [.., heads × headSize]. */
  readonly value: string;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
}

/** The Attention operator, entered by its value input. */
function throughAttention({ node, value }: Followed, rows: number): Mixed | undefined {
  const heads = integer(node, "q_num_heads");
  const kvHeads = integer(node, "kv_num_heads");
  if (node.op !== "Attention" || node.inputs.indexOf(value) !== 2 || heads === undefined || kvHeads === undefined) return undefined;
  return { value: node.outputs[0]!, heads, kvHeads, headSize: rows / kvHeads };
}

/** Attention written out: [batch, sequence, kvHeads, headSize] turned to heads, mixed by a product from the left, turned back. */
function throughProducts(search: Search, { node, value }: Followed): Mixed | undefined {
  const [kvHeads, headSize] = reshapedTo(search, value)?.slice(2) ?? [];
  if (kvHeads === undefined || headSize === undefined || !swapsHeads(node)) return undefined;
  const product = soleReader(search, node.outputs[0]!);
  if (product?.op !== "MatMul" || product.inputs[1] !== node.outputs[0] || product.inputs[0] === product.inputs[1]) return undefined;
  const split = soleReader(search, product.outputs[0]!);
  const shape = split === undefined ? undefined : reshapedTo(search, split.outputs[0]!);
  const back = split === undefined ? undefined : soleReader(search, split.outputs[0]!);
  if (shape?.length !== 4 || shape[3] !== headSize || back === undefined || !swapsHeads(back)) return undefined;
  return { value: back.outputs[0]!, heads: shape[1]!, kvHeads, headSize };
}

/** The constant shape of the Reshape that makes `value`. */
function reshapedTo({ graph, makers }: Search, value: string): readonly number[] | undefined {
  const node = makers.get(value);
  const shape = node?.op === "Reshape" ? graph.constants.get(node.inputs[1]!) : undefined;
  if (shape?.dtype !== "I64") return undefined;
  const view = new DataView(shape.bytes.buffer, shape.bytes.byteOffset, shape.bytes.byteLength);
  return Array.from({ length: shape.bytes.byteLength / 8 }, (_, i) => Number(view.getBigInt64(8 * i, true)));
}

function swapsHeads(node: GraphNode): boolean {
  const perm = node.attributes["perm"];
  return node.op === "Transpose" && perm?.kind === "ints" && perm.value.join() === "0,2,1,3";
}

function integer(node: GraphNode, attribute: string): number | undefined {
  const value = node.attributes[attribute];
  return value?.kind === "int" ? value.value : undefined;
}

/** Whether a site's weight is its own tensor: a tied head's is the embedding's too and must not change. */
function isOwnSite({ block }: Search, site: LinearSite): boolean {
  return block.weights.get(site.weight)?.name === `${site.name}.weight`;
}

function isOwn({ block }: Search, slot: string): boolean {
  return block.weights.get(slot)?.name.endsWith(slot) ?? false;
}
