/**
 * Every tensor of a model, wherever it is.
 * @module
 */
import type { OnnxAttribute, OnnxGraph, OnnxModel, OnnxNode, OnnxSparseTensor } from "./model.ts";
import type { OnnxTensor } from "./tensor.ts";

/** A model with every tensor replaced; one that is there twice is mapped once. */
export async function mapTensors(model: OnnxModel, map: (tensor: OnnxTensor) => Promise<OnnxTensor>): Promise<OnnxModel> {
  const known = new Map<OnnxTensor, OnnxTensor>();
  const mapOne = async (tensor: OnnxTensor): Promise<OnnxTensor> => {
    const found = known.get(tensor) ?? (await map(tensor));
    known.set(tensor, found);
    return found;
  };
  const mapSparse = async (sparse: OnnxSparseTensor): Promise<OnnxSparseTensor> => ({
    ...sparse,
    values: await mapOne(sparse.values),
    indices: await mapOne(sparse.indices),
  });
  const mapAll = async <Item>(items: readonly Item[], one: (item: Item) => Promise<Item>): Promise<Item[]> => {
    const result: Item[] = [];
    for (const item of items) result.push(await one(item));
    return result;
  };
  const mapAttribute = async (attribute: OnnxAttribute): Promise<OnnxAttribute> => {
    switch (attribute.kind) {
      case "tensor":
        return { ...attribute, value: await mapOne(attribute.value) };
      case "tensors":
        return { ...attribute, value: await mapAll(attribute.value, mapOne) };
      case "sparse_tensor":
        return { ...attribute, value: await mapSparse(attribute.value) };
      case "sparse_tensors":
        return { ...attribute, value: await mapAll(attribute.value, mapSparse) };
      case "graph":
        return { ...attribute, value: await mapGraph(attribute.value) };
      case "graphs":
        return { ...attribute, value: await mapAll(attribute.value, mapGraph) };
      default:
        return attribute;
    }
  };
  const mapNode = async (node: OnnxNode): Promise<OnnxNode> => {
    const attributes = new Map<string, OnnxAttribute>();
    for (const [name, attribute] of node.attributes) attributes.set(name, await mapAttribute(attribute));
    return { ...node, attributes };
  };
  const mapGraph = async (graph: OnnxGraph): Promise<OnnxGraph> => {
    const nodes = await mapAll(graph.nodes, mapNode);
    const initializers = new Map<string, OnnxTensor>();
    for (const [name, tensor] of graph.initializers) initializers.set(name, await mapOne(tensor));
    const sparseInitializers = new Map<string, OnnxSparseTensor>();
    for (const [name, sparse] of graph.sparseInitializers ?? []) sparseInitializers.set(name, await mapSparse(sparse));
    return { ...graph, nodes, initializers, ...(sparseInitializers.size > 0 && { sparseInitializers }) };
  };
  const functions = await mapAll(model.functions, async (item) => ({ ...item, nodes: await mapAll(item.nodes, mapNode) }));
  return { ...model, graph: await mapGraph(model.graph), functions };
}

/** Bytes of the initializers of a model's graphs, main graph and those inside it. */
export function tensorBytes({ graph }: OnnxModel): number {
  let bytes = 0;
  for (const tensor of initializersOf(graph)) bytes += tensor.byteLength;
  return bytes;
}

/** Initializers of a graph and of the graphs inside it, in order. */
export function* initializersOf(graph: OnnxGraph): Generator<OnnxTensor> {
  yield* graph.initializers.values();
  for (const node of graph.nodes) for (const inner of subgraphsOf(node)) yield* initializersOf(inner);
}

/** Graphs in the attributes of a node, in order. */
export function subgraphsOf(node: OnnxNode): readonly OnnxGraph[] {
  const graphs: OnnxGraph[] = [];
  for (const attribute of node.attributes.values()) {
    if (attribute.kind === "graph") graphs.push(attribute.value);
    else if (attribute.kind === "graphs") graphs.push(...attribute.value);
  }
  return graphs;
}
