/**
 * A model as a graph of ONNX operators: plain data, no behaviour.
 *
 * Architecture builders and the ONNX reader produce graphs; engines run them,
 * rewrites (taps, fake quantization) return new ones; nothing changes one in place.
 * Operator semantics are those of ONNX opset `opsets[""]`.
 * @module
 */
import type { DType } from "../../core/dtype.ts";
import type { Tensor } from "../../core/tensor.ts";
import type { OnnxModel } from "../../formats/containers/onnx/model.ts";

/** One attribute of a node, tagged as ONNX `AttributeProto.type`. */
export type Attribute =
  | { readonly kind: "int"; readonly value: number }
  | { readonly kind: "float"; readonly value: number }
  | { readonly kind: "string"; readonly value: string }
  | { readonly kind: "ints"; readonly value: readonly number[] }
  | { readonly kind: "floats"; readonly value: readonly number[] }
  | { readonly kind: "strings"; readonly value: readonly string[] }
  | { readonly kind: "tensor"; readonly value: Tensor }
  | { readonly kind: "graph"; readonly value: Graph };

/** Name, element type and shape of a value; a string is a symbolic dimension. */
export interface ValueType {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly (number | string)[];
}

export interface GraphNode {
  /** Unique in its graph. */
  readonly name: string;
  /** ONNX operator type, e.g. "Gemm". */
  readonly op: string;
  /** "" = the standard ONNX domain. */
  readonly domain: string;
  /** Value names; "" = an optional input left out. */
  readonly inputs: readonly string[];
  /** Value names; "" = an optional output not wanted. */
  readonly outputs: readonly string[];
  readonly attributes: Readonly<Record<string, Attribute>>;
}

/**
 * A graph with two kinds of inputs: `inputs` change with every run, `weights`
 * are slots bound to tensors from outside. Keeping weights out of the graph is
 * what lets one compiled graph serve all blocks of the same structure.
 */
export interface Graph {
  readonly name: string;
  readonly inputs: readonly ValueType[];
  readonly weights: readonly ValueType[];
  /** Small values that belong to the structure: shapes, epsilons, axes. */
  readonly constants: ReadonlyMap<string, Tensor>;
  /** In topological order. */
  readonly nodes: readonly GraphNode[];
  /** Names of values. */
  readonly outputs: readonly string[];
  /** Operator set version by domain, e.g. `{ "": 23 }`. */
  readonly opsets: Readonly<Record<string, number>>;
  /**
   * The ONNX file this graph stands for, weights included. Engines that speak ONNX run it as it is; `nodes` then only say
   * what is in its main graph, and rewrites go by the file's own form (model/onnx).
   */
  readonly whole?: { readonly model: OnnxModel; readonly path?: string };
}

/** The node that produces each value. */
export function producers(graph: Graph): ReadonlyMap<string, GraphNode> {
  const map = new Map<string, GraphNode>();
  for (const node of graph.nodes) for (const output of node.outputs) if (output !== "") map.set(output, node);
  return map;
}

/** The nodes that read each value, in order; graph outputs do not count. */
export function consumers(graph: Graph): ReadonlyMap<string, readonly GraphNode[]> {
  const map = new Map<string, GraphNode[]>();
  for (const node of graph.nodes) {
    for (const input of new Set(node.inputs)) {
      if (input === "") continue;
      const list = map.get(input);
      if (list === undefined) map.set(input, [node]);
      else list.push(node);
    }
  }
  return map;
}
