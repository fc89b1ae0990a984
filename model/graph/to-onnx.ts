/**
 * Graph → ONNX model: weights become graph inputs, constants initializers.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import type { Tensor } from "../../core/tensor.ts";
import type { OnnxAttribute, OnnxGraph, OnnxModel, OnnxNode, OnnxValueInfo } from "../../formats/containers/onnx/model.ts";
import { onnxTensorOf, type OnnxTensor } from "../../formats/containers/onnx/tensor.ts";
import type { Attribute, Graph, GraphNode } from "./graph.ts";

/** First IR version that knows an opset, newest first (ONNX's version table). */
const IR_BY_OPSET: readonly (readonly [opset: number, ir: number])[] = [
  [25, 13],
  [24, 12],
  [23, 11],
  [21, 10],
  [19, 9],
  [15, 8],
  [12, 7],
  [11, 6],
  [10, 5],
  [9, 4],
  [1, 3],
];

/**
 * The ONNX form of a graph. Outputs are named without a type: the runtime infers it, and any value can be one.
 *
 * @param outputs - values to return instead of `graph.outputs`.
 * @throws {InputError} `input.value` naming outputs that the graph does not have.
 */
export function graphToOnnx(graph: Graph, outputs: readonly string[] = graph.outputs): OnnxModel {
  if (graph.whole !== undefined) return withOutputs(graph, graph.whole.model, outputs);
  const opset = graph.opsets[""] ?? 1;
  return {
    irVersion: IR_BY_OPSET.find(([from]) => opset >= from)?.[1] ?? 3,
    opsets: new Map(Object.entries(graph.opsets)),
    producerName: "bitwright",
    graph: convertGraph(graph, outputs),
    functions: [],
  };
}

/** A file's model with other outputs; those it had keep their types. */
function withOutputs(graph: Graph, model: OnnxModel, outputs: readonly string[]): OnnxModel {
  assertValues(graph, outputs);
  const declared = new Map(model.graph.outputs.map((value) => [value.name, value]));
  return { ...model, graph: { ...model.graph, outputs: outputs.map((name) => declared.get(name) ?? { name }) } };
}

function convertGraph(graph: Graph, outputs: readonly string[]): OnnxGraph {
  assertValues(graph, outputs);
  return {
    name: graph.name,
    nodes: graph.nodes.map(convertNode),
    initializers: convertConstants(graph.constants),
    inputs: [...graph.inputs, ...graph.weights],
    outputs: outputs.map((name): OnnxValueInfo => ({ name })),
  };
}

function convertConstants(constants: ReadonlyMap<string, Tensor>): ReadonlyMap<string, OnnxTensor> {
  return new Map([...constants].map(([name, tensor]) => [name, onnxTensorOf(tensor)]));
}

/**
 * @throws {InputError} `input.value` naming every one of `names` that no input, weight, constant or node of the graph gives.
 */
export function assertValues(graph: Graph, names: readonly string[]): void {
  const values = new Set<string>(graph.constants.keys());
  for (const value of [...graph.inputs, ...graph.weights]) values.add(value.name);
  for (const node of graph.nodes) for (const output of node.outputs) values.add(output);
  const missing = names.filter((name) => name === "" || !values.has(name));
  if (missing.length > 0) {
    throw new InputError("input.value", `graph ${graph.name} has no value ${missing.map((name) => JSON.stringify(name)).join(", ")}`, {
      graph: graph.name,
      missing,
    });
  }
}

function convertNode(node: GraphNode): OnnxNode {
  const attributes = Object.entries(node.attributes).map(([name, value]): [string, OnnxAttribute] => [name, convertAttribute(value)]);
  return { ...node, attributes: new Map(attributes) };
}

function convertAttribute(attribute: Attribute): OnnxAttribute {
  if (attribute.kind === "tensor") return { kind: "tensor", value: onnxTensorOf(attribute.value) };
  if (attribute.kind !== "graph") return attribute;
  return { kind: "graph", value: convertSubgraph(attribute.value) };
}

/** A branch or loop body reads outer values by name, so its outputs may come from outside and are not checked. */
function convertSubgraph(graph: Graph): OnnxGraph {
  return {
    name: graph.name,
    nodes: graph.nodes.map(convertNode),
    initializers: convertConstants(graph.constants),
    inputs: [...graph.inputs, ...graph.weights],
    outputs: graph.outputs.map((name): OnnxValueInfo => ({ name })),
  };
}
