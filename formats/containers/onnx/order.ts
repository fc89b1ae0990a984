/**
 * Topological order of nodes, values of outer graphs included.
 * @module
 */
import { FormatError } from "../../../core/errors.ts";
import type { OnnxGraph, OnnxModel, OnnxNode } from "./model.ts";
import { subgraphsOf } from "./tensors.ts";

/**
 * The model with the nodes of every graph and function in topological order; where they are in order, as they are.
 *
 * @throws {FormatError} `format.field` naming nodes of a cycle.
 */
export function sortModel(model: OnnxModel, name = "model"): OnnxModel {
  const graph = sortGraph(model.graph, name);
  const functions = model.functions.map((item) => {
    const nodes = sortNodes(item.nodes, `${name}: function ${item.name}`, name);
    return nodes === item.nodes ? item : { ...item, nodes };
  });
  const isSame = graph === model.graph && functions.every((item, i) => item === model.functions[i]);
  return isSame ? model : { ...model, graph, functions };
}

function sortGraph(graph: OnnxGraph, file: string): OnnxGraph {
  const nodes = sortNodes(graph.nodes, `${file}: graph ${JSON.stringify(graph.name)}`, file);
  return nodes === graph.nodes ? graph : { ...graph, nodes };
}

function sortNodes(list: readonly OnnxNode[], where: string, file: string): readonly OnnxNode[] {
  const inner = list.map((node) => sortInside(node, file));
  const nodes = inner.every((node, i) => node === list[i]) ? list : inner;
  const producer = new Map<string, number>();
  for (const [i, node] of nodes.entries()) for (const output of node.outputs) if (output !== "") producer.set(output, i);
  const waiting: number[] = [];
  const readers = new Map<number, number[]>();
  let isSorted = true;
  for (const [i, node] of nodes.entries()) {
    const needed = new Set<number>();
    for (const name of readNames(node)) {
      const from = producer.get(name);
      if (from === undefined) continue;
      needed.add(from);
      if (from >= i) isSorted = false;
    }
    waiting.push(needed.size);
    for (const from of needed) {
      const known = readers.get(from);
      if (known === undefined) readers.set(from, [i]);
      else known.push(i);
    }
  }
  if (isSorted) return nodes;
  // Kahn's algorithm; among nodes that are ready, the first of the file.
  const ready = new SmallestFirst();
  for (const [i, count] of waiting.entries()) if (count === 0) ready.push(i);
  const sorted: OnnxNode[] = [];
  for (let i = ready.pop(); i !== undefined; i = ready.pop()) {
    sorted.push(nodes[i]!);
    for (const next of readers.get(i) ?? []) if (--waiting[next]! === 0) ready.push(next);
  }
  if (sorted.length === nodes.length) return sorted;
  const stuck = nodes.filter((_, i) => waiting[i]! > 0).map(describeNode);
  throw new FormatError(
    "format.field",
    `${where}: nodes wait for one another: ${stuck.slice(0, 5).join(", ")}${stuck.length > 5 ? ", …" : ""}`,
    {
      where,
      nodes: stuck.slice(0, 5),
    },
  );
}

function sortInside(node: OnnxNode, file: string): OnnxNode {
  if (subgraphsOf(node).length === 0) return node;
  const attributes = new Map(node.attributes);
  let isSame = true;
  for (const [name, attribute] of node.attributes) {
    if (attribute.kind === "graph") {
      const value = sortGraph(attribute.value, file);
      if (value !== attribute.value) attributes.set(name, { ...attribute, value });
      isSame &&= value === attribute.value;
    } else if (attribute.kind === "graphs") {
      const value = attribute.value.map((graph) => sortGraph(graph, file));
      const isList = value.every((graph, i) => graph === attribute.value[i]);
      if (!isList) attributes.set(name, { ...attribute, value });
      isSame &&= isList;
    }
  }
  return isSame ? node : { ...node, attributes };
}

/** Names a node reads: its inputs, and what the graphs inside it read from around them. */
export function readNames(node: OnnxNode): ReadonlySet<string> {
  const names = new Set(node.inputs.filter((name) => name !== ""));
  for (const graph of subgraphsOf(node)) for (const name of outerNames(graph)) names.add(name);
  return names;
}

/** Names that a graph reads from the graphs around it. */
export function outerNames(graph: OnnxGraph): ReadonlySet<string> {
  const own = new Set<string>([...graph.initializers.keys(), ...(graph.sparseInitializers?.keys() ?? [])]);
  for (const { name } of graph.inputs) own.add(name);
  for (const node of graph.nodes) for (const output of node.outputs) own.add(output);
  const names = new Set<string>();
  for (const node of graph.nodes) for (const name of readNames(node)) if (!own.has(name)) names.add(name);
  for (const { name } of graph.outputs) if (!own.has(name)) names.add(name);
  return names;
}

/** A node for messages: its name where it has one, its operator and first output else. */
export function describeNode(node: OnnxNode): string {
  return node.name === "" ? `${node.op} (${node.outputs[0] ?? "no output"})` : `${node.op} ${JSON.stringify(node.name)}`;
}

/** A binary heap of numbers. */
class SmallestFirst {
  readonly #items: number[] = [];

  push(item: number): void {
    const items = this.#items;
    let at = items.push(item) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (items[parent]! <= item) break;
      items[at] = items[parent]!;
      at = parent;
    }
    items[at] = item;
  }

  pop(): number | undefined {
    const items = this.#items;
    const first = items[0];
    const last = items.pop();
    if (last === undefined || items.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child + 1 < items.length && items[child + 1]! < items[child]!) child++;
      if (child >= items.length || items[child]! >= last) break;
      items[at] = items[child]!;
      at = child;
    }
    items[at] = last;
    return first;
  }
}
