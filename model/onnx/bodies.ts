/**
 * Bodies: lists of nodes in one scope of names. The main graph, graphs in attributes (branches, loop bodies), functions.
 * @module
 */
import type { OnnxAttribute, OnnxFunction, OnnxGraph, OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import { makeLazyOnnxTensor, type OnnxTensor } from "../../formats/containers/onnx/tensor.ts";

/**
 * Where a body is: "" is the main graph; "3.then_branch" the graph in that attribute of its node 3, and so on inwards with
 * "/"; graphs of a list have their place appended: "3.bodies[1]". "function 0" is the body of the model's first function.
 */
export type BodyPath = string;

/** What rewrites see of a body. */
export interface OnnxBody {
  readonly nodes: readonly OnnxNode[];
  /** Of a function: none, and those a rewrite gives become Constant nodes. */
  readonly initializers: ReadonlyMap<string, OnnxTensor>;
  /** Operator sets the nodes speak. */
  readonly opsets: ReadonlyMap<string, number>;
}

/** A body and its surroundings. */
export interface PlacedBody extends OnnxBody {
  readonly path: BodyPath;
  /** The graph, unless it is a function's body. */
  readonly graph?: OnnxGraph;
  readonly function?: OnnxFunction;
  /** Body whose names this one sees as well: that of the node that holds it. */
  readonly outer?: PlacedBody;
}

/** Every body of a model, outer ones before inner ones, functions last. */
export function bodiesOf(model: OnnxModel): readonly PlacedBody[] {
  const found: PlacedBody[] = [];
  const visit = (body: PlacedBody): void => {
    found.push(body);
    for (const [path, graph] of innerGraphs(body)) {
      visit({ path, nodes: graph.nodes, initializers: graph.initializers, opsets: body.opsets, graph, outer: body });
    }
  };
  visit({ path: "", nodes: model.graph.nodes, initializers: model.graph.initializers, opsets: model.opsets, graph: model.graph });
  for (const [i, item] of model.functions.entries()) {
    visit({ path: `function ${i}`, nodes: item.nodes, initializers: new Map(), opsets: item.opsets, function: item });
  }
  return found;
}

function* innerGraphs({ path, nodes }: PlacedBody): Generator<[BodyPath, OnnxGraph]> {
  for (const [i, node] of nodes.entries()) {
    for (const [name, attribute] of node.attributes) {
      const at = innerPath(path, i, name);
      if (attribute.kind === "graph") yield [at, attribute.value];
      if (attribute.kind === "graphs") for (const [k, graph] of attribute.value.entries()) yield [`${at}[${k}]`, graph];
    }
  }
}

function innerPath(path: BodyPath, index: number, attribute: string): BodyPath {
  return `${path === "" ? "" : `${path}/`}${index}.${attribute}`;
}

/** The parts of a body a rewrite may replace. */
export type BodyRewrite = (body: OnnxBody, path: BodyPath) => Partial<Pick<OnnxBody, "nodes" | "initializers">>;

/**
 * The model with every body rewritten, inner ones first; paths are those of the model given. A body whose rewrite returns
 * nothing stays the same object unless one inside it changed.
 */
export function mapBodies(model: OnnxModel, rewrite: BodyRewrite): OnnxModel {
  const mapNodes = (nodes: readonly OnnxNode[], path: BodyPath, opsets: ReadonlyMap<string, number>): readonly OnnxNode[] => {
    const mapped = nodes.map((node, i) => {
      let attributes: Map<string, OnnxAttribute> | undefined;
      for (const [name, attribute] of node.attributes) {
        const at = innerPath(path, i, name);
        let next: OnnxAttribute = attribute;
        if (attribute.kind === "graph") {
          const value = mapGraph(attribute.value, at, opsets);
          if (value !== attribute.value) next = { ...attribute, value };
        } else if (attribute.kind === "graphs") {
          const value = attribute.value.map((graph, k) => mapGraph(graph, `${at}[${k}]`, opsets));
          if (value.some((graph, k) => graph !== attribute.value[k])) next = { ...attribute, value };
        }
        if (next !== attribute) (attributes ??= new Map(node.attributes)).set(name, next);
      }
      return attributes === undefined ? node : { ...node, attributes };
    });
    return mapped.every((node, i) => node === nodes[i]) ? nodes : mapped;
  };
  const mapGraph = (graph: OnnxGraph, path: BodyPath, opsets: ReadonlyMap<string, number>): OnnxGraph => {
    const inner = mapNodes(graph.nodes, path, opsets);
    const { nodes = inner, initializers = graph.initializers } = rewrite({ nodes: inner, initializers: graph.initializers, opsets }, path);
    return nodes === graph.nodes && initializers === graph.initializers ? graph : { ...graph, nodes, initializers };
  };
  const graph = mapGraph(model.graph, "", model.opsets);
  const functions = model.functions.map((item, i) => {
    const path = `function ${i}`;
    const inner = mapNodes(item.nodes, path, item.opsets);
    const { nodes = inner, initializers } = rewrite({ nodes: inner, initializers: new Map(), opsets: item.opsets }, path);
    const all = [...(initializers ?? [])].map(([name, tensor]) => constantNode(name, tensor));
    return nodes === item.nodes && all.length === 0 ? item : { ...item, nodes: [...all, ...nodes] };
  });
  return { ...model, graph, functions };
}

/** A Constant node that gives `tensor` the name `output`. */
export function constantNode(output: string, tensor: OnnxTensor): OnnxNode {
  const { name: _, ...value } = tensor;
  return {
    name: "",
    op: "Constant",
    domain: "",
    inputs: [],
    outputs: [output],
    attributes: new Map([["value", { kind: "tensor", value }]]),
  };
}

/** The tensor with another type and shape of the same length, its bytes computed from its own when they are read. */
export function mapTensor(
  tensor: OnnxTensor,
  to: { readonly dtype?: OnnxTensor["dtype"]; readonly shape?: readonly number[] },
  compute: (bytes: Uint8Array) => Uint8Array | Promise<Uint8Array>,
): OnnxTensor {
  return makeLazyOnnxTensor(to.dtype ?? tensor.dtype, to.shape ?? tensor.shape, async () => compute(await tensor.read()));
}
