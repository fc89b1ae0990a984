/**
 * Nodes and values that no output needs, taken out.
 * @module
 */
import type { Graph, GraphNode } from "../graph/graph.ts";

/** The graph less nodes, weights and constants that do not reach an output; inputs stay. */
export function pruneGraph(graph: Graph): Graph {
  const needed = new Set(graph.outputs);
  const kept: GraphNode[] = [];
  for (const node of graph.nodes.toReversed()) {
    if (!node.outputs.some((output) => needed.has(output))) continue;
    for (const input of node.inputs) needed.add(input);
    kept.push(node);
  }
  return {
    ...graph,
    nodes: kept.toReversed(),
    weights: graph.weights.filter(({ name }) => needed.has(name)),
    constants: new Map([...graph.constants].filter(([name]) => needed.has(name))),
  };
}

/** Names of the inputs that a node reads. */
export function usedInputs(graph: Graph): ReadonlySet<string> {
  return new Set(graph.nodes.flatMap(({ inputs }) => inputs));
}
