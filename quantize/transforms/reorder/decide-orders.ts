/**
 * Which channels of a block change places: keys with their queries, values with the columns behind attention, and the inside of an MLP.
 * @module
 */
import type { KeyStatistics } from "../../../calibrate/keys.ts";
import { tensorOf, toFloat32, type Tensor } from "../../../core/tensor.ts";
import { producers, type GraphNode } from "../../../model/graph/graph.ts";
import { findPairs, type FoldPair } from "../../../model/graph/pairs.ts";
import type { Block, LinearSite } from "../../../model/model.ts";
import type { TensorOrder } from "../../decisions.ts";
import { compilePattern } from "../../patterns.ts";
import type { ReorderSettings } from "../../settings.ts";
import { findKeyRows, type KeyRows, type ProjectedRows } from "./key-rows.ts";
import { absMaxKey, gainBefore, normKey } from "./keys.ts";
import { searchOrder, sortedBy, type BlockRule } from "./search.ts";

/** What ordering one block looks at. */
export interface OrderContext {
  readonly block: Block;
  readonly settings: ReorderSettings;
  /** What a block is and how its numbers round, for keys and for inputs of linear layers. */
  readonly rule: BlockRule;
  /** Whether keys may be ordered; else the reason. */
  readonly keys: true | string;
  readonly statistics: KeyStatistics | undefined;
  /** Calibrated largest magnitudes of a site's input, folds applied; `order=absmax` and `order=score` read it. */
  absmax(site: LinearSite): Float32Array;
}

/** Orders of one block. */
export interface BlockOrders {
  /** By tensor name. */
  readonly orders: Map<string, TensorOrder>;
  /** New tensors: the order of each rotated key head. */
  readonly added: Map<string, Tensor>;
  /** For the report: what was ordered, and what was left with the reason. */
  readonly done: readonly string[];
  readonly left: readonly string[];
}

/** Local name of the tensor that holds the orders of rotated key heads, F32 [kvHeads, headSize] (integers). */
export const ROPE_ORDER = "rope_order";

export async function decideOrders(context: OrderContext): Promise<BlockOrders> {
  const found = { orders: new Map<string, TensorOrder>(), added: new Map<string, Tensor>(), done: [] as string[], left: [] as string[] };
  const { sites } = context.settings;
  const isAsked = asksFor(sites);
  const rows = findKeyRows(context.block);
  if (sites === "all" || ordersKeys(sites, rows)) await orderKeys(context, rows, found);
  if (sites !== "k") {
    const pairs = findPairs(context.block).filter(({ consumers }) => consumers.some(isAsked));
    for (const pair of pairs) await orderPair(context, pair, found);
    const absorbed = new Set(pairs.filter(({ kind }) => kind !== "norm").flatMap(({ consumers }) => consumers.map(({ name }) => name)));
    for (const site of context.block.sites) {
      const { name, kind } = site;
      const isKeys = sites !== "all" && site.name === rows?.k.site.name;
      if (kind === "linear" && isAsked(site) && !absorbed.has(name) && !isKeys)
        found.left.push(`${name}: what makes its input also feeds the residual stream or is not linear, so nothing absorbs an order`);
    }
  }
  return found;
}

type Found = {
  readonly orders: Map<string, TensorOrder>;
  readonly added: Map<string, Tensor>;
  readonly done: string[];
  readonly left: string[];
};

/** Whether `sites` asks for the input of a site. */
function asksFor(sites: string): (site: LinearSite) => boolean {
  if (sites === "k") return () => false;
  if (sites === "all") return () => true;
  const matches = compilePattern(sites);
  return ({ name }) => matches(name);
}

/** Whether `sites` asks for the order of the keys that these rows make. */
export function ordersKeys(sites: string, rows: KeyRows | undefined): boolean {
  return sites === "k" || (rows !== undefined && asksFor(sites)(rows.k.site));
}

async function orderKeys(context: OrderContext, rows: KeyRows | undefined, found: Found): Promise<void> {
  const { block, rule } = context;
  const name = `${block.name}: keys`;
  if (rows === undefined) {
    found.left.push(`${name}: what makes queries and keys is not known, or they are ordered already`);
    return;
  }
  if (context.keys !== true && rows.k.rotated) {
    found.left.push(`${name}: ${context.keys}`);
    return;
  }
  if (rule.block >= rows.headSize) {
    found.left.push(`${name}: a block of ${rule.block} holds a whole head of ${rows.headSize}, so no order matters`);
    return;
  }
  if (context.settings.order !== "norm" && context.statistics === undefined) {
    found.left.push(`${name}: what enters attention cannot be observed; order=norm needs no data`);
    return;
  }
  const orders = await headOrders(context, rows);
  const { heads, kvHeads } = rows;
  orderRows(block, rows.k, orders, found.orders);
  orderRows(
    block,
    rows.q,
    Array.from({ length: heads }, (_, head) => orders[Math.floor((head * kvHeads) / heads)]!),
    found.orders,
  );
  if (rows.k.rotated) {
    const [place] = block.attentions!;
    found.added.set(
      `${block.name}.${place!.module}.${ROPE_ORDER}`,
      tensorOf(Float32Array.from(orders.flatMap((order) => [...order])), [kvHeads, rows.headSize]),
    );
  }
  found.done.push(`${name} by ${context.settings.order}, blocks of ${rule.block}`);
}

/** One order a key head; one for all heads where a norm shares its weight between them. */
async function headOrders(context: OrderContext, rows: KeyRows): Promise<Int32Array[]> {
  const { block, settings, statistics } = context;
  const { kvHeads, headSize, k } = rows;
  const shared = k.norm !== undefined || rows.q.norm !== undefined;
  if (settings.order === "norm") {
    const norms = normKey(
      toFloat32(await block.weights.get(k.site.weight)!.read()),
      k.site,
      k.firstRow,
      kvHeads * headSize,
      await gainBefore(block, k.site),
    );
    const perHead = Array.from({ length: kvHeads }, (_, head) => norms.subarray(head * headSize, (head + 1) * headSize));
    if (!shared) return perHead.map((keys) => inPairs(sortedBy(keys), settings, headSize, rows));
    const joint = Float64Array.from({ length: headSize }, (_, c) => Math.hypot(...perHead.map((keys) => keys[c]!)));
    const order = inPairs(sortedBy(joint), settings, headSize, rows);
    return perHead.map(() => order);
  }
  const sampled = Array.from({ length: kvHeads }, (_, head) => ({
    channels: headSize,
    values: statistics!.drawn[head]!,
    weights: statistics!.queryPower.subarray(head * headSize, (head + 1) * headSize),
  }));
  const orderOf = (sample: (typeof sampled)[number]): Int32Array =>
    inPairs(
      settings.order === "score" ? searchOrder(sample, context.rule) : sortedBy(absMaxKey(sample.values, headSize)),
      settings,
      headSize,
      rows,
    );
  if (!shared) return sampled.map(orderOf);
  const joint = {
    channels: headSize,
    values: Float32Array.from(sampled.flatMap(({ values }) => [...values])),
    weights: Float64Array.from({ length: headSize }, (_, c) => sampled.reduce((sum, { weights }) => sum + weights[c]!, 0)),
  };
  const order = orderOf(joint);
  return sampled.map(() => order);
}

/** With `rope=interleaved`: the partner of each channel moves in right behind it, in the order of the first of the two. */
function inPairs(order: Int32Array, { rope }: ReorderSettings, headSize: number, { k }: KeyRows): Int32Array {
  if (rope === "free" || !k.rotated) return order;
  const half = headSize / 2;
  const taken = new Set<number>();
  return Int32Array.from(
    [...order].flatMap((c) => {
      if (taken.has(c)) return [];
      const low = c % half;
      taken.add(low).add(low + half);
      return [low, low + half];
    }),
  );
}

/** Give the rows of a projection (with bias and head norm) the orders of its heads. */
function orderRows(
  block: Block,
  { site, firstRow, norm }: ProjectedRows,
  heads: readonly Int32Array[],
  orders: Map<string, TensorOrder>,
): void {
  const rows = identity(site.rows);
  for (const [head, order] of heads.entries()) {
    const from = firstRow + head * order.length;
    rows.set(
      order.map((c) => from + c),
      from,
    );
  }
  addRows(block, site.weight, rows, orders, firstRow, heads.length * heads[0]!.length);
  if (site.bias !== undefined) addRows(block, site.bias, rows, orders, firstRow, heads.length * heads[0]!.length);
  if (norm !== undefined) orders.set(tensorNameOf(block, norm), { rows: heads[0]! });
}

/** Rows [from, from + count) of a tensor take `rows`; others keep what they have: a fused matrix is ordered in parts. */
function addRows(block: Block, slot: string, rows: Int32Array, orders: Map<string, TensorOrder>, from: number, count: number): void {
  const name = tensorNameOf(block, slot);
  const known = orders.get(name);
  const merged = known?.rows?.slice() ?? identity(rows.length);
  merged.set(rows.subarray(from, from + count), from);
  orders.set(name, { ...known, rows: merged });
}

/** v → o inside each head, up (and gate) → down: the rows in front and the columns behind take the same order. */
async function orderPair(context: OrderContext, pair: FoldPair, { orders, done, left }: Found): Promise<void> {
  const { block, rule } = context;
  const [consumer] = pair.consumers;
  if (pair.kind === "norm" || consumer === undefined || pair.producer.site === undefined) return;
  const producer = pair.producer.site;
  const partner = pair.kind === "up-down" ? gateOf(block, pair, producer) : { gate: undefined };
  if (partner === undefined) {
    left.push(`${consumer.name}: what multiplies its input is no linear layer`);
    return;
  }
  const width = pair.repeat?.headSize ?? pair.channels;
  if (rule.block >= width) {
    left.push(`${consumer.name}: a block of ${rule.block} holds all ${width} channels that may change places`);
    return;
  }
  const key = await channelKey(context, pair, consumer);
  const rows = new Int32Array(pair.channels);
  for (let from = 0; from < pair.channels; from += width) {
    rows.set(
      sortedBy(key.subarray(from, from + width)).map((c) => from + c),
      from,
    );
  }
  for (const site of [producer, ...(partner.gate === undefined ? [] : [partner.gate])]) {
    addRows(block, site.weight, rows, orders, 0, rows.length);
    if (site.bias !== undefined) addRows(block, site.bias, rows, orders, 0, rows.length);
  }
  const { group = 1, headSize = pair.channels } = pair.repeat ?? {};
  const cols = Int32Array.from({ length: consumer.cols }, (_, c) => {
    const kvHead = Math.floor(c / (headSize * group));
    return c - (c % headSize) + (rows[kvHead * headSize + (c % headSize)]! - kvHead * headSize);
  });
  const name = tensorNameOf(block, consumer.weight);
  orders.set(name, { ...orders.get(name), cols });
  done.push(`${consumer.name}: input by ${context.settings.order}`);
}

/**
 * What the channels in front of a linear layer are sorted by. Its input and its weight columns share blocks alike, so `score` weighs the
 * largest activation of a channel by the energy of its column: channels are alike when their products are.
 */
async function channelKey(context: OrderContext, pair: FoldPair, consumer: LinearSite): Promise<Float64Array> {
  const { block, settings } = context;
  const columns = new Float64Array(consumer.cols);
  const weight = toFloat32(await block.weights.get(consumer.weight)!.read());
  for (let i = 0; i < weight.length; i++) {
    const c = consumer.channelAxis === 0 ? i % consumer.cols : Math.floor(i / consumer.rows);
    columns[c]! += weight[i]! * weight[i]!;
  }
  const most = settings.order === "norm" ? undefined : context.absmax(consumer);
  const { group = 1, headSize = pair.channels } = pair.repeat ?? {};
  const key = new Float64Array(pair.channels);
  for (let c = 0; c < consumer.cols; c++) {
    const channel = Math.floor(c / (headSize * group)) * headSize + (c % headSize);
    const value = most === undefined ? Math.sqrt(columns[c]!) : settings.order === "absmax" ? most[c]! : most[c]! * Math.sqrt(columns[c]!);
    key[channel] = Math.max(key[channel]!, value);
  }
  return key;
}

/** Operators that work on each channel alone. */
const ELEMENTWISE: ReadonlySet<string> = new Set([
  "Sigmoid",
  "Tanh",
  "Gelu",
  "Erf",
  "Mul",
  "Add",
  "Div",
  "Pow",
  "Sqrt",
  "Relu",
  "Identity",
  "Neg",
  "Softplus",
]);

/**
 * The layer beside `up`, whose rows must move with it: the gate, behind its activation.
 *
 * @returns `gate` undefined when there is none (a plain ReLU); undefined when something else multiplies the value.
 */
function gateOf(block: Block, pair: FoldPair, up: LinearSite): { readonly gate: LinearSite | undefined } | undefined {
  const made = producers(block.graph);
  const sites = new Map(block.sites.map((site) => [site.node, site]));
  const found = new Set<LinearSite>();
  const visit = (value: string): boolean => {
    if (block.graph.constants.has(value)) return true;
    const node: GraphNode | undefined = made.get(value);
    const site = node === undefined ? undefined : sites.get(node.name);
    if (site !== undefined) {
      found.add(site);
      return true;
    }
    return node !== undefined && ELEMENTWISE.has(node.op) && node.inputs.every(visit);
  };
  if (!visit(pair.value)) return undefined;
  found.delete(up);
  const [gate, ...others] = found;
  if (others.length > 0 || (gate !== undefined && gate.rows !== up.rows)) return undefined;
  return { gate };
}

function identity(count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => i);
}

function tensorNameOf(block: Block, slot: string): string {
  return block.weights.get(slot)!.name;
}
