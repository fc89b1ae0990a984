/**
 * Writes calls of local functions out, as far as the model does not grow beyond a bound.
 * @module
 */
import { callKey, functionKey } from "../../formats/containers/onnx/check-functions.ts";
import type { OnnxAttribute, OnnxFunction, OnnxGraph, OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import { subgraphsOf } from "../../formats/containers/onnx/tensors.ts";

/** Nodes that inlining may add. onnxruntime writes every call out when it loads a model, so larger ones load badly anyway. */
const MAX_ADDED_NODES = 100_000;

/**
 * The model with calls replaced by the nodes they stand for. A call stays where it would add more nodes than are left of the
 * bound, where the function speaks other operator sets than the model, and where it is told apart by attributes of attributes
 * (references that nothing gives a value). Functions that nobody calls any more are left out.
 *
 * @param maxAdded - bound on the nodes added.
 */
export function inlineFunctions(model: OnnxModel, maxAdded: number = MAX_ADDED_NODES): OnnxModel {
  if (model.functions.length === 0) return model;
  const inliner = new Inliner(model, maxAdded);
  const graph = inliner.inlineGraph(model.graph);
  const functions = reachable(model.functions, graph);
  return { ...model, opsets: inliner.opsets, graph, functions };
}

function reachable(functions: readonly OnnxFunction[], graph: OnnxGraph): readonly OnnxFunction[] {
  const byKey = new Map(functions.map((item) => [functionKey(item), item]));
  const called = new Set<string>();
  const visit = (nodes: readonly OnnxNode[]): void => {
    for (const node of nodes) {
      const key = callKey(node);
      const item = byKey.get(key);
      if (item !== undefined && !called.has(key)) {
        called.add(key);
        visit(item.nodes);
      }
      for (const inner of subgraphsOf(node)) visit(inner.nodes);
    }
  };
  visit(graph.nodes);
  return functions.filter((item) => called.has(functionKey(item)));
}

class Inliner {
  readonly #functions: ReadonlyMap<string, OnnxFunction>;
  readonly #sizes = new Map<string, number>();
  readonly #used: Set<string>;
  #left: number;
  #calls = 0;
  opsets: ReadonlyMap<string, number>;

  constructor(model: OnnxModel, maxAdded: number) {
    this.#functions = new Map(model.functions.map((item) => [functionKey(item), item]));
    this.#left = maxAdded;
    this.#used = prefixesOf(model.graph);
    this.opsets = model.opsets;
  }

  inlineGraph(graph: OnnxGraph): OnnxGraph {
    return { ...graph, nodes: this.#inlineNodes(graph.nodes) };
  }

  #inlineNodes(nodes: readonly OnnxNode[]): readonly OnnxNode[] {
    return nodes.flatMap((node) => {
      const item = this.#functions.get(callKey(node));
      if (item !== undefined) {
        const size = this.#sizeOf(item);
        if (size <= this.#left && this.#speaksAlike(item)) {
          this.#left -= item.nodes.length;
          return this.#inlineNodes(this.#expand(node, item));
        }
      }
      if (subgraphsOf(node).length === 0) return [node];
      return [mapGraphs(node, (graph) => this.inlineGraph(graph))];
    });
  }

  /** Nodes of a function with its calls written out. */
  #sizeOf(item: OnnxFunction): number {
    const key = functionKey(item);
    const known = this.#sizes.get(key);
    if (known !== undefined) return known;
    const count = (nodes: readonly OnnxNode[]): number =>
      nodes.reduce((sum, node) => {
        const callee = this.#functions.get(callKey(node));
        return (
          sum + 1 + (callee === undefined ? 0 : this.#sizeOf(callee)) + subgraphsOf(node).reduce((inner, g) => inner + count(g.nodes), 0)
        );
      }, 0);
    const size = count(item.nodes);
    this.#sizes.set(key, size);
    return size;
  }

  /** Whether nodes of the function mean the same in the model; operator sets that the model lacks are imported. */
  #speaksAlike({ opsets }: OnnxFunction): boolean {
    for (const [domain, version] of opsets) if ((this.opsets.get(domain) ?? version) !== version) return false;
    this.opsets = new Map([...opsets, ...this.opsets]);
    return true;
  }

  /** The nodes of a function with the names and attributes of one call. */
  #expand(call: OnnxNode, item: OnnxFunction): readonly OnnxNode[] {
    const prefix = this.#nextPrefix(call);
    const names = new Map<string, string>();
    for (const [i, input] of item.inputs.entries()) names.set(input, call.inputs[i] ?? "");
    const passed: OnnxNode[] = [];
    for (const [i, output] of item.outputs.entries()) {
      const name = call.outputs[i] ?? "";
      if (name === "") continue;
      // An output that is an input, or given twice, keeps its value under another name.
      if (names.has(output)) {
        passed.push({ name: "", op: "Identity", domain: "", inputs: [names.get(output)!], outputs: [name], attributes: new Map() });
      } else names.set(output, name);
    }
    const attributes = new Map([...item.attributeDefaults, ...call.attributes]);
    return [...item.nodes.map((node) => rename(node, names, prefix, attributes)), ...passed];
  }

  #nextPrefix(call: OnnxNode): string {
    for (;;) {
      const prefix = `${call.name === "" ? call.op : call.name}/${this.#calls++}`;
      if (!this.#used.has(prefix)) return `${prefix}/`;
    }
  }
}

/** Everything up to the second "/" of the names of a graph: prefixes that are taken. */
function prefixesOf(graph: OnnxGraph): Set<string> {
  const used = new Set<string>();
  const add = (name: string): void => {
    for (let at = name.indexOf("/"); at !== -1; at = name.indexOf("/", at + 1)) used.add(name.slice(0, at));
  };
  const visit = ({ nodes, initializers, inputs }: OnnxGraph): void => {
    for (const name of initializers.keys()) add(name);
    for (const { name } of inputs) add(name);
    for (const node of nodes) {
      for (const name of node.outputs) add(name);
      for (const inner of subgraphsOf(node)) visit(inner);
    }
  };
  visit(graph);
  return used;
}

type Attributes = ReadonlyMap<string, OnnxAttribute>;

function rename(node: OnnxNode, names: Map<string, string>, prefix: string, given: Attributes): OnnxNode {
  const nameOf = (name: string): string => {
    if (name === "") return "";
    const known = names.get(name);
    if (known !== undefined) return known;
    names.set(name, prefix + name);
    return prefix + name;
  };
  const attributes = new Map<string, OnnxAttribute>();
  for (const [name, attribute] of node.attributes) {
    const value = attribute.kind === "reference" ? given.get(attribute.value) : attribute;
    if (value !== undefined) attributes.set(name, value);
  }
  const renamed: OnnxNode = {
    ...node,
    name: node.name === "" ? "" : prefix + node.name,
    inputs: node.inputs.map(nameOf),
    outputs: node.outputs.map(nameOf),
    attributes,
  };
  return mapGraphs(renamed, (graph) => renameGraph(graph, names, prefix, given));
}

function renameGraph(graph: OnnxGraph, outer: Map<string, string>, prefix: string, given: Attributes): OnnxGraph {
  // Names of the inner graph hide those around it.
  const names = new Map(outer);
  const own = [...graph.inputs.map(({ name }) => name), ...graph.initializers.keys(), ...(graph.sparseInitializers?.keys() ?? [])];
  for (const name of [...own, ...graph.nodes.flatMap((node) => node.outputs)]) if (name !== "") names.set(name, `${prefix}${name}`);
  const nameOf = (name: string): string => names.get(name) ?? prefix + name;
  return {
    ...graph,
    nodes: graph.nodes.map((node) => rename(node, names, prefix, given)),
    initializers: new Map([...graph.initializers].map(([name, tensor]) => [nameOf(name), tensor])),
    ...(graph.sparseInitializers && {
      sparseInitializers: new Map([...graph.sparseInitializers].map(([name, tensor]) => [nameOf(name), tensor])),
    }),
    inputs: graph.inputs.map((value) => ({ ...value, name: nameOf(value.name) })),
    outputs: graph.outputs.map((value) => ({ ...value, name: nameOf(value.name) })),
    ...(graph.valueInfos && { valueInfos: graph.valueInfos.map((value) => ({ ...value, name: nameOf(value.name) })) }),
  };
}

function mapGraphs(node: OnnxNode, map: (graph: OnnxGraph) => OnnxGraph): OnnxNode {
  if (subgraphsOf(node).length === 0) return node;
  const attributes = new Map(node.attributes);
  for (const [name, attribute] of node.attributes) {
    if (attribute.kind === "graph") attributes.set(name, { ...attribute, value: map(attribute.value) });
    if (attribute.kind === "graphs") attributes.set(name, { ...attribute, value: attribute.value.map(map) });
  }
  return { ...node, attributes };
}
