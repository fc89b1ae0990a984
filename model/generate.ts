/**
 * Greedy text: the most probable next token, again and again. For seeing with one's own eyes that a model still speaks.
 * @module
 */
import { InputError, UnsupportedError, throwIfAborted } from "../core/errors.ts";
import type { CompiledGraph, Engine, HostTensor, Values } from "./engines/engine.ts";
import { withActivations } from "./fake-quant.ts";
import type { Graph } from "./graph/graph.ts";
import { headTokens } from "./head.ts";
import { floatsOf } from "./host-tensor.ts";
import { tokenSample } from "./inputs.ts";
import type { Block, Model } from "./model.ts";
import { loadWeights, weightBytes } from "./weights.ts";

export interface GenerateOptions {
  readonly engine: Engine;
  /** New tokens at most. */
  readonly maxTokens: number;
  /** Generation stops behind one of these; the id itself is the last of the result. */
  readonly eosIds?: readonly number[];
  readonly signal?: AbortSignal;
  readonly onToken?: (id: number) => void;
  /** Bytes of weights kept between steps; blocks beyond it are read again at every step. Default 4 GiB. */
  readonly maxMemory?: number;
}

const DEFAULT_MAX_MEMORY = 4 * 2 ** 30;

/**
 * Continue `ids` greedily; the whole sequence runs at every step. Ties go to the lowest id.
 *
 * @returns the new ids alone.
 * @throws {UnsupportedError} `unsupported.architecture` for a model without a language head.
 * @throws {InputError} `input.value` for an id outside the vocabulary, `input.option` for a negative `maxTokens`.
 * @throws {InterruptedError} when the signal is aborted.
 */
export async function generate(source: Model, ids: readonly number[], options: GenerateOptions): Promise<number[]> {
  const { maxTokens, signal, onToken } = options;
  const { facts } = source;
  if (facts.output !== "logits") {
    throw new UnsupportedError(
      "unsupported.architecture",
      `${facts.className} gives ${facts.output}, not logits, so it cannot generate text`,
      {
        className: facts.className,
      },
    );
  }
  if (!Number.isInteger(maxTokens) || maxTokens < 0) {
    throw new InputError("input.option", `maxTokens is ${maxTokens}; it must be an integer of at least 0`, { maxTokens });
  }
  const stop = new Set(options.eosIds);
  const found: number[] = [];
  const model = withActivations(source);
  const runner = new WholeModel(model, options.engine, options.maxMemory ?? DEFAULT_MAX_MEMORY);
  try {
    while (found.length < maxTokens) {
      throwIfAborted(signal);
      const logits = await runner.lastLogits(tokenSample(model, [...ids, ...found]).inputs, signal);
      const id = indexOfLargest(logits);
      found.push(id);
      onToken?.(id);
      if (stop.has(id)) break;
    }
    return found;
  } finally {
    await runner.release();
  }
}

function indexOfLargest(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

/** All blocks of a model for one sequence at a time, weights kept as far as they fit. */
class WholeModel {
  readonly #model: Model;
  readonly #engine: Engine;
  readonly #kept = new Map<Block, Readonly<Record<string, HostTensor>>>();
  readonly #forms = new Map<Graph, CompiledGraph>();
  readonly #lastOnly: boolean;
  #memory: number;

  constructor(model: Model, engine: Engine, maxMemory: number) {
    this.#model = model;
    this.#engine = engine;
    this.#memory = maxMemory;
    this.#lastOnly = headTokens([model]) !== undefined;
  }

  /** Logits [vocabulary] behind the last token of one sequence. */
  async lastLogits(inputs: Values, signal?: AbortSignal): Promise<Float32Array> {
    let carried: Record<string, HostTensor> = { ...inputs };
    for (const block of this.#model.blocks) {
      throwIfAborted(signal);
      const feeds: Record<string, HostTensor> = { ...(await this.#weights(block)) };
      for (const [input, name] of Object.entries(block.reads)) {
        // Where the head treats every token alone, only the last one needs to pass it.
        feeds[input] = block.role === "epilogue" && this.#lastOnly ? lastToken(carried[name]!) : carried[name]!;
      }
      const outputs = await (await this.#form(block.graph)).run(feeds);
      const values = block.host === undefined ? outputs : { ...outputs, ...block.host(outputs) };
      carried = { ...carried, ...Object.fromEntries(Object.entries(block.writes).map(([output, name]) => [name, values[output]!])) };
    }
    const logits = carried["logits"]!;
    return floatsOf(logits, "logits").subarray(-logits.shape.at(-1)!);
  }

  async release(): Promise<void> {
    for (const form of this.#forms.values()) await form.release();
  }

  async #form(graph: Graph): Promise<CompiledGraph> {
    const form = this.#forms.get(graph) ?? (await this.#engine.compile(graph));
    this.#forms.set(graph, form);
    return form;
  }

  async #weights(block: Block): Promise<Readonly<Record<string, HostTensor>>> {
    const kept = this.#kept.get(block);
    if (kept !== undefined) return kept;
    const weights = Object.fromEntries(await loadWeights(block));
    const bytes = weightBytes(block);
    if (bytes <= this.#memory) {
      this.#memory -= bytes;
      this.#kept.set(block, weights);
    }
    return weights;
  }
}

/** The last position of hidden states [1, sequence, channels]; other values as they are. */
function lastToken(value: HostTensor): HostTensor {
  const { shape, data } = value;
  if (shape.length !== 3 || !(data instanceof Float32Array)) return value;
  const channels = shape[2]!;
  return { dtype: "F32", shape: [1, 1, channels], data: data.subarray(data.length - channels) };
}
