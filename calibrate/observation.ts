/**
 * Observation: a graph with the reductions of statistics appended to it.
 * @module
 */
import { GraphBuilder } from "../model/graph/builder.ts";
import type { Graph } from "../model/graph/graph.ts";
import type { Statistic } from "./statistic.ts";

/** A value to observe: shape [..., channels], f32. */
export interface Observation {
  readonly value: string;
  readonly channels: number;
}

/**
 * @returns the graph; the outputs wanted; by value and statistic the names its `update` gets; by value the name of its shape.
 */
export function observeValues(
  graph: Graph,
  values: readonly Observation[],
  statistics: readonly Statistic[],
): {
  readonly graph: Graph;
  readonly outputs: readonly string[];
  readonly parts: readonly (readonly (readonly string[])[])[];
  readonly shapes: readonly string[];
} {
  const builder = GraphBuilder.from(graph);
  const shapes = values.map(({ value }) => builder.op("Shape", [value]));
  const parts = values.map(({ value, channels }) => statistics.map((statistic) => statistic.reduce?.(builder, value, channels) ?? [value]));
  const outputs = [...new Set([...parts.flat(2), ...shapes])];
  return { graph: builder.build(graph.outputs), outputs, parts, shapes };
}
