/**
 * Which operators of a graph an engine lacks.
 * @module
 */
import { UnsupportedError } from "../../core/errors.ts";
import type { Graph, GraphNode } from "../graph/graph.ts";

/** "Gemm", or "com.microsoft::MatMulNBits" outside the standard domain. */
export function operatorName(node: GraphNode): string {
  return node.domain === "" || node.domain === "ai.onnx" ? node.op : `${node.domain}::${node.op}`;
}

/** Every operator of a graph and of the graphs in its attributes, once each, sorted. */
export function operatorsOf(graph: Graph): readonly string[] {
  const found = new Set<string>();
  const visit = ({ nodes }: Graph): void => {
    for (const node of nodes) {
      found.add(operatorName(node));
      for (const attribute of Object.values(node.attributes)) if (attribute.kind === "graph") visit(attribute.value);
    }
  };
  visit(graph);
  return [...found].toSorted();
}

/** @throws {UnsupportedError} `unsupported.backend` for a graph that stands for a whole ONNX file: only engines that speak ONNX run it. */
export function assertOwnGraph(engine: string, graph: Graph): void {
  if (graph.whole === undefined) return;
  throw new UnsupportedError("unsupported.backend", `engine ${engine} runs no ONNX files (${graph.name}); use --engine onnxruntime`, {
    engine,
    graph: graph.name,
  });
}

/** @throws {UnsupportedError} `unsupported.operator` naming every operator of `graph` that `operators` lacks. */
export function assertOperators(engine: string, operators: ReadonlySet<string>, graph: Graph): void {
  const missing = operatorsOf(graph).filter((name) => !operators.has(name));
  if (missing.length === 0) return;
  throw new UnsupportedError(
    "unsupported.operator",
    `engine ${engine} lacks ${missing.join(", ")}, which graph ${graph.name} uses; try another engine (--engine)`,
    { engine, graph: graph.name, operators: missing },
  );
}
