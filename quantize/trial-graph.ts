/**
 * The part of a block that a trial can change: nodes behind a changed weight
 * or an inserted node, up to the residual sum where their paths join again.
 * Everything else is given, from one run of the float block.
 * @module
 */
import { consumers, type Graph, type GraphNode } from "../model/graph/graph.ts";

/** Where a trial starts and ends in a graph. */
export interface TrialPart {
  /** Nodes to run, in order. */
  readonly nodes: readonly GraphNode[];
  /** Values of the float block that they read. */
  readonly given: readonly string[];
  /** Values to measure. */
  readonly measured: readonly string[];
}

/**
 * @param graph - the block with quantize-dequantize nodes inserted.
 * @param original - the block as it is.
 * @param changed - slots bound to other weights than the block's.
 */
export function findTrialPart(graph: Graph, original: Graph, changed: ReadonlySet<string>): TrialPart {
  const known = new Set(original.nodes.map(({ name }) => name));
  const moved = new Set<string>();
  const behind = graph.nodes.filter(({ name, inputs, outputs }) => {
    const isChanged = !known.has(name) || inputs.some((input) => changed.has(input) || moved.has(input));
    if (isChanged) for (const output of outputs) moved.add(output);
    return isChanged;
  });
  const joint = firstJoint(graph, behind, moved);
  const measured = joint === undefined ? graph.outputs.filter((output) => moved.has(output)) : [joint];
  const needed = new Set(measured);
  const nodes = behind.toReversed().filter(({ inputs, outputs }) => {
    const isNeeded = outputs.some((output) => needed.has(output));
    if (isNeeded) for (const input of inputs) needed.add(input);
    return isNeeded;
  });
  const fixed = new Set([...graph.weights.map(({ name }) => name), ...graph.constants.keys(), ""]);
  return { nodes: nodes.toReversed(), given: [...needed].filter((name) => !moved.has(name) && !fixed.has(name)), measured };
}

/** The first residual sum that every path from the changed nodes leads through. */
function firstJoint(graph: Graph, behind: readonly GraphNode[], moved: ReadonlySet<string>): string | undefined {
  const readers = consumers(graph);
  const fixed = new Set([...graph.weights.map(({ name }) => name), ...graph.constants.keys()]);
  // Nodes that start without a moved input: no value is a joint before the last of them has run.
  let starts = behind.filter(({ inputs }) => !inputs.some((input) => moved.has(input))).length;
  const open = new Map<string, number>();
  for (const { op, inputs, outputs } of behind) {
    const read = [...new Set(inputs)].filter((input) => moved.has(input));
    if (read.length === 0) starts--;
    for (const input of read) {
      const left = open.get(input)! - 1;
      if (left === 0) open.delete(input);
      else open.set(input, left);
    }
    for (const output of outputs) {
      const count = (readers.get(output)?.length ?? 0) + Number(graph.outputs.includes(output));
      if (count > 0) open.set(output, count);
    }
    const [sum] = outputs;
    const isResidual = op === "Add" && inputs.some((input) => !moved.has(input) && !fixed.has(input));
    if (isResidual && starts === 0 && open.size === 1 && open.has(sum!)) return sum;
  }
  return undefined;
}
