/**
 * What some outputs need of a graph.
 * @module
 */
import type { Graph, GraphNode, ValueType } from "./graph.ts";

/**
 * The graph less inputs, nodes, weights and constants that do not reach its outputs.
 *
 * @param given - values that come from outside instead of being computed; those that are read become inputs.
 */
export function pruneGraph(graph: Graph, given: readonly ValueType[] = []): Graph {
  const fromOutside = new Set(given.map(({ name }) => name));
  const needed = new Set(graph.outputs);
  const kept: GraphNode[] = [];
  for (const node of graph.nodes.toReversed()) {
    if (!node.outputs.some((output) => needed.has(output) && !fromOutside.has(output))) continue;
    for (const input of node.inputs) needed.add(input);
    kept.push(node);
  }
  const isNeeded = ({ name }: { readonly name: string }): boolean => needed.has(name);
  return {
    ...graph,
    inputs: [...graph.inputs, ...given].filter(isNeeded),
    weights: graph.weights.filter(isNeeded),
    constants: new Map([...graph.constants].filter(([name]) => needed.has(name))),
    nodes: kept.toReversed(),
  };
}

/** Names of the inputs that a node reads. */
export function usedInputs(graph: Graph): ReadonlySet<string> {
  return new Set(graph.nodes.flatMap(({ inputs }) => inputs));
}
