/**
 * Local functions: no cycle of calls, and a bounded number of nodes when every call is written out.
 * @module
 */
import { FormatError } from "../../../core/errors.ts";
import type { OnnxFunction, OnnxModel, OnnxNode } from "./model.ts";
import { subgraphsOf } from "./tensors.ts";

/** Nodes of a model with every call written out. onnxruntime writes them out, and hangs long after this. */
export const MAX_EXPANDED_NODES = 2_000_000;
/** Calls inside calls. */
const MAX_CALL_DEPTH = 256;

/** What tells functions apart, and calls of them. */
export function functionKey({ domain, name, overload = "" }: Pick<OnnxFunction, "domain" | "name" | "overload">): string {
  return JSON.stringify([domain, name, overload]);
}

/** The key of the function that a node calls, if there is one of it. */
export function callKey({ domain, op, overload = "" }: OnnxNode): string {
  return JSON.stringify([domain, op, overload]);
}

/**
 * @returns whether a node calls one of the functions.
 * @throws {FormatError} `format.duplicate` two functions of one name; `format.field` a cycle of calls; `format.limit` too many nodes.
 */
export function checkFunctions(model: OnnxModel, name: string): (node: OnnxNode) => boolean {
  const functions = new Map<string, OnnxFunction>();
  for (const item of model.functions) {
    const key = functionKey(item);
    if (item.name === "") throw new FormatError("format.field", `${name}: a function has no name`, { domain: item.domain });
    if (functions.has(key)) {
      throw new FormatError("format.duplicate", `${name}: two functions are named ${JSON.stringify(item.name)}`, {
        name: item.name,
        domain: item.domain,
      });
    }
    functions.set(key, item);
  }
  const sizes = new Map<string, number>();
  const open = new Set<string>();
  const sizeOf = (key: string): number => {
    const known = sizes.get(key);
    if (known !== undefined) return known;
    const item = functions.get(key)!;
    if (open.has(key)) {
      throw new FormatError("format.field", `${name}: function ${JSON.stringify(item.name)} calls itself`, { function: item.name });
    }
    if (open.size >= MAX_CALL_DEPTH) {
      throw new FormatError("format.limit", `${name}: function calls nest deeper than ${MAX_CALL_DEPTH}`, { limit: MAX_CALL_DEPTH });
    }
    open.add(key);
    const size = nodesOf(item.nodes);
    open.delete(key);
    sizes.set(key, size);
    return size;
  };
  const nodesOf = (nodes: readonly OnnxNode[]): number => {
    let sum = 0;
    for (const node of nodes) {
      const key = callKey(node);
      sum += functions.has(key) ? sizeOf(key) : 1;
      for (const graph of subgraphsOf(node)) sum += nodesOf(graph.nodes);
    }
    return sum;
  };
  for (const key of functions.keys()) sizeOf(key);
  const total = functions.size === 0 ? 0 : nodesOf(model.graph.nodes);
  if (total > MAX_EXPANDED_NODES) {
    throw new FormatError("format.limit", `${name}: its function calls come to ${total} nodes; at most ${MAX_EXPANDED_NODES}`, {
      nodes: total,
      limit: MAX_EXPANDED_NODES,
    });
  }
  return (node) => functions.has(callKey(node));
}
