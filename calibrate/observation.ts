/**
 * Observation: the reductions of statistics behind the values of a graph.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { toFloat32 } from "../core/tensor.ts";
import type { CompiledGraph, Engine, HostTensor, Values } from "../model/engines/engine.ts";
import { GraphBuilder } from "../model/graph/builder.ts";
import type { Graph } from "../model/graph/graph.ts";
import { bytesOf } from "../model/host-tensor.ts";
import type { Statistic } from "./statistic.ts";

/** A value to observe: shape [..., channels], f32. */
export interface Observation {
  readonly value: string;
  readonly channels: number;
}

/** What runs in place of a graph, and where its results are. */
export interface ObservedGraph {
  readonly graph: Graph;
  /** Values wanted of it. */
  readonly outputs: readonly string[];
  /** For each observed value and statistic: what its `update` gets. */
  readonly parts: readonly (readonly (readonly string[])[])[];
  /** For each observed value: its shape, whose last axis is the channels. */
  readonly shapes: readonly string[];
  /** Run on the wanted values, each as [rows, channels]; `parts` and `shapes` are then its outputs. */
  readonly reduction?: Graph;
}

/**
 * Our own graphs get the reductions appended. A graph that stands for a whole ONNX file may be of an opset in which they are
 * written differently: its values leave the engine and are reduced by a graph of their own.
 */
export function observeValues(graph: Graph, values: readonly Observation[], statistics: readonly Statistic[]): ObservedGraph {
  if (graph.whole === undefined) {
    const builder = GraphBuilder.from(graph);
    const { parts, shapes } = appendReductions(builder, values, statistics);
    return { graph: builder.build(graph.outputs), outputs: wantedOf(parts, shapes), parts, shapes };
  }
  const builder = new GraphBuilder(`${graph.name}.statistics`);
  for (const [i, { value, channels }] of values.entries()) builder.input(value, "F32", [`rows.${i}`, channels]);
  const { parts, shapes } = appendReductions(builder, values, statistics);
  const reduction = builder.build(wantedOf(parts, shapes));
  return { graph, outputs: values.map(({ value }) => value), parts, shapes, reduction };
}

function appendReductions(
  builder: GraphBuilder,
  values: readonly Observation[],
  statistics: readonly Statistic[],
): Pick<ObservedGraph, "parts" | "shapes"> {
  const shapes = values.map(({ value }) => builder.op("Shape", [value]));
  const parts = values.map(({ value, channels }) => statistics.map((statistic) => statistic.reduce?.(builder, value, channels) ?? [value]));
  return { parts, shapes };
}

function wantedOf(parts: ObservedGraph["parts"], shapes: readonly string[]): readonly string[] {
  return [...new Set([...parts.flat(2), ...shapes])];
}

/** Runs the reductions that are graphs of their own, each compiled once. */
export class Reductions {
  readonly #engine: Engine;
  readonly #compiled = new Map<Graph, CompiledGraph>();

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /**
   * @param values - what the observed graph gave.
   * @throws {InputError} `input.shape` for a value whose numbers are not rows of its channels.
   */
  async apply({ reduction }: ObservedGraph, values: Values): Promise<Values> {
    if (reduction === undefined) return values;
    const outputs = reduction.outputs.filter((name) => !reduction.inputs.some((input) => input.name === name));
    const known = this.#compiled.get(reduction) ?? (await this.#engine.compile(reduction, { outputs }));
    this.#compiled.set(reduction, known);
    const feeds = Object.fromEntries(reduction.inputs.map(({ name, shape }) => [name, inRows(name, values[name]!, shape[1] as number)]));
    return { ...feeds, ...(await known.run(feeds)) };
  }

  async release(): Promise<void> {
    for (const compiled of this.#compiled.values()) await compiled.release();
    this.#compiled.clear();
  }
}

function inRows(name: string, value: HostTensor, channels: number): HostTensor {
  const { dtype, shape } = value;
  const data = value.data instanceof Float32Array ? value.data : toFloat32({ dtype, shape, bytes: bytesOf(value) });
  if (data.length % channels === 0) return { dtype: "F32", shape: [data.length / channels, channels], data };
  throw new InputError("input.shape", `value ${name} is [${shape.join(", ")}]; rows of ${channels} channels are observed`, { name, shape });
}
