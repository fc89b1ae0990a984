/**
 * Graph pieces that statistics share: activations as rows of channels.
 * @module
 */
import type { GraphBuilder } from "../../model/graph/builder.ts";

/** [..., channels] → [rows, channels]. */
export function asRows(graph: GraphBuilder, value: string, channels: number): string {
  return graph.op("Reshape", [value, graph.int64([-1, channels])]);
}

/** |value| as [rows, channels]. */
export function magnitudesByRow(graph: GraphBuilder, value: string, channels: number): string {
  return graph.op("Abs", [asRows(graph, value, channels)]);
}

/** One number a channel: [rows, channels] → [channels]. */
export function overRows(graph: GraphBuilder, op: "ReduceMax" | "ReduceMin" | "ReduceSum", rows: string): string {
  return graph.op(op, [rows, graph.int64([0])], { keepdims: 0 });
}
