/**
 * The head apart from the rest: the last block is the only one whose values are
 * as wide as the vocabulary, so it runs on a few tokens at a time, and what is
 * wanted of its logits is computed inside the engine.
 * @module
 */
import { UnsupportedError } from "../core/errors.ts";
import type { CompiledGraph, Engine, HostTensor, Values } from "./engines/engine.ts";
import { GraphBuilder } from "./graph/builder.ts";
import type { Graph, GraphNode } from "./graph/graph.ts";
import { hasScalesPerSample } from "./activation-nodes.ts";
import { floatsOf, typedView } from "./host-tensor.ts";
import type { Block, Model } from "./model.ts";
import { walk } from "./walk.ts";
import type { Samples } from "./sample-list.ts";
import type { BlockContext, WalkOptions } from "./walk-types.ts";

/** Bytes of one value as wide as the vocabulary. */
const WIDE_VALUE_BYTES = 32 * 2 ** 20;

export function headOf(model: Model): Block {
  return model.blocks.at(-1)!;
}

/** A batch that has reached the head. */
export interface Arrival {
  readonly batch: number;
  /** Indices of its samples, in order along the first axis of `values`. */
  readonly samples: readonly number[];
  /** What the head reads, by graph input. Valid during the call. */
  readonly values: Values;
  /** Weights of the head by slot. */
  readonly weights: ReadonlyMap<string, HostTensor>;
}

/** Walk all blocks but the last and hand over what it would read, batch by batch. */
export async function walkToHead(
  model: Model,
  samples: Samples,
  options: Omit<WalkOptions, "visitor" | "from" | "to">,
  onArrival: (arrival: Arrival) => Promise<void>,
): Promise<void> {
  const through = passThrough(headOf(model).graph);
  const observe = async (context: BlockContext, batch: number, values: Values): Promise<void> => {
    const read = Object.fromEntries(through.inputs.map(({ name }, i) => [name, values[through.outputs[i]!]!]));
    await onArrival({ batch, samples: context.batchSamples(batch), values: read, weights: context.weights });
  };
  const visitor = { instrument: () => ({ graph: through, outputs: through.outputs }), observe };
  await walk(model, samples, { ...options, visitor, from: model.blocks.length - 1 });
}

/** The inputs of `graph`, unchanged. */
function passThrough(graph: Graph): Graph {
  const builder = new GraphBuilder(`${graph.name}.inputs`);
  const outputs = graph.inputs.map(({ name, dtype, shape }) =>
    builder.op("Identity", [builder.input(name, dtype, shape)], {}, `${name}.arrived`),
  );
  return builder.build(outputs);
}

/** Some tokens of a batch, and what the head's graph made of them. */
export interface HeadRun {
  /** First token of this run, counted over the batch. */
  readonly first: number;
  readonly tokens: number;
  readonly values: Values;
}

/**
 * Tokens the heads of `models` run at a time, so that no value is larger than 32 MiB; undefined when one of them needs
 * whole samples: an encoder's pooler reads the first token, a dynamic per-tensor scale all of them.
 */
export function headTokens(models: readonly Model[]): number | undefined {
  if (!models.every((model) => model.facts.output === "logits" && !hasScalesPerSample(headOf(model).graph))) return undefined;
  const width = Math.max(...models.map(({ facts }) => facts.vocabularySize));
  return Math.max(1, Math.floor(WIDE_VALUE_BYTES / (4 * width)));
}

/** A compiled form of the head, fed with its weights. */
export class HeadRunner {
  readonly #form: CompiledGraph;
  readonly #weights: Record<string, HostTensor>;
  /** Tokens a run when the head treats each token alone; undefined when it needs whole batches. */
  readonly #tokens: number | undefined;
  readonly #input: string;

  private constructor(form: CompiledGraph, weights: Record<string, HostTensor>, input: string, tokens: number | undefined) {
    this.#form = form;
    this.#weights = weights;
    this.#input = input;
    this.#tokens = tokens;
  }

  /**
   * @param graph - reads hidden states [batch, sequence, channels], and whatever else `run` feeds per token.
   * @param tokens - tokens a run, as `headTokens` says.
   */
  static async create(
    engine: Engine,
    graph: Graph,
    weights: Readonly<Record<string, HostTensor>>,
    tokens: number | undefined,
  ): Promise<HeadRunner> {
    return new HeadRunner(await engine.compile(graph), { ...weights }, graph.inputs[0]!.name, tokens);
  }

  /** Run on one batch, a few tokens at a time. Values may have any first two axes; all are read as [tokens]. */
  async *run(values: Values): AsyncGenerator<HeadRun> {
    const total = tokensOf(values[this.#input]!);
    const step = this.#tokens ?? total;
    for (let first = 0; first < total; first += step) {
      const tokens = Math.min(step, total - first);
      const part =
        this.#tokens === undefined ? values : Object.fromEntries(Object.entries(values).map(([n, v]) => [n, rows(v, first, tokens)]));
      yield { first, tokens, values: await this.#form.run({ ...this.#weights, ...part }) };
    }
  }

  async release(): Promise<void> {
    await this.#form.release();
  }
}

const tokensOf = ({ shape }: HostTensor): number => shape[0]! * shape[1]!;

/** Tokens [first, first + count) of a value [batch, sequence, ...] as [1, count, ...] (a view). */
function rows(value: HostTensor, first: number, count: number): HostTensor {
  const inner = value.shape.slice(2).reduce((product, size) => product * size, 1);
  const { data, dtype } = value;
  const offset = data.byteOffset + first * inner * data.BYTES_PER_ELEMENT;
  return { dtype, shape: [1, count, ...value.shape.slice(2)], data: typedView(dtype, data.buffer, offset, count * inner) };
}

/**
 * Two graphs as one: `second` beside `first`, all of its names behind `prefix`.
 *
 * @throws {UnsupportedError} `unsupported.operator` for a node with a graph inside.
 */
export function besides(first: Graph, second: Graph, prefix: string): Graph {
  const rename = (name: string): string => (name === "" ? "" : prefix + name);
  const node = (original: GraphNode): GraphNode => {
    if (Object.values(original.attributes).some(({ kind }) => kind === "graph")) {
      throw new UnsupportedError("unsupported.operator", `${original.op} in the head of ${second.name} holds a graph; heads must be flat`);
    }
    return { ...original, name: rename(original.name), inputs: original.inputs.map(rename), outputs: original.outputs.map(rename) };
  };
  const renamed = <T extends { readonly name: string }>(values: readonly T[]): T[] =>
    values.map((value) => ({ ...value, name: rename(value.name) }));
  return {
    ...first,
    name: `${first.name}+${second.name}`,
    inputs: [...first.inputs, ...renamed(second.inputs)],
    weights: [...first.weights, ...renamed(second.weights)],
    constants: new Map([
      ...first.constants,
      ...[...second.constants].map(([name, tensor]): [string, typeof tensor] => [rename(name), tensor]),
    ]),
    nodes: [...first.nodes, ...second.nodes.map(node)],
    outputs: [...first.outputs, ...second.outputs.map(rename)],
    opsets: { ...second.opsets, ...first.opsets },
  };
}

/** A run's f32 output. */
export function floatOutput({ values }: HeadRun, name: string): Float32Array {
  return floatsOf(values[name]!, name);
}
