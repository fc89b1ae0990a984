/**
 * How good a model is at text: perplexity, and how near it stays to a reference.
 *
 * Protocol (GPTQ, AWQ, SmoothQuant and their successors alike): ids are cut into windows that do not overlap, the
 * tail is dropped, each window is a sequence of its own; a window's loss is the mean cross entropy of its window − 1
 * predictions; perplexity = exp(mean over windows). Scores are taken inside the engine, so logits never leave it.
 * @module
 */
import { InputError, NumericError, UnsupportedError } from "../core/errors.ts";
import { tensorOf, type Tensor } from "../core/tensor.ts";
import { CarriedValues } from "./carried.ts";
import type { Engine, HostTensor, Values } from "./engines/engine.ts";
import { withActivations } from "./fake-quant.ts";
import { GraphBuilder } from "./graph/builder.ts";
import type { Graph } from "./graph/graph.ts";
import { besides, floatOutput, headOf, HeadRunner, headTokens, walkToHead, type Arrival } from "./head.ts";
import { floatsOf } from "./host-tensor.ts";
import { tokenSample } from "./inputs.ts";
import type { Model } from "./model.ts";
import { loadWeights } from "./weights.ts";
import type { Sample } from "./walk-types.ts";

export interface EvaluateProgress {
  /** Tokens × blocks. */
  readonly done: number;
  readonly total: number;
  readonly detail: string;
}

export interface RunOptions {
  readonly engine: Engine;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: EvaluateProgress) => void;
  /** Tokens a run, at most; never splits a sequence. */
  readonly batchTokens?: number;
  /** Bytes of hidden states in memory; beyond it they go to a scratch file. */
  readonly maxMemory?: number;
}

export interface EvaluateOptions extends RunOptions {
  /** Ids a window, at least 2; min(2048, the model's positions) when left out. */
  readonly window?: number;
  /** Ids used at most. */
  readonly maxTokens?: number;
  /** The model to be near to: adds `kl`, `top1` and `referencePerplexity`. */
  readonly reference?: Model;
}

export interface Evaluation {
  readonly perplexity: number;
  /** Mean over windows of the mean cross entropy, nats. */
  readonly crossEntropy: number;
  /** Predictions counted: windows × (window − 1). */
  readonly tokens: number;
  readonly window: number;
  readonly windows: number;
  /** KL(reference ‖ model), mean over predictions, nats. */
  readonly kl?: number;
  /** Share of predictions whose most probable token is the reference's. */
  readonly top1?: number;
  readonly referencePerplexity?: number;
  readonly seconds: number;
}

const DEFAULT_WINDOW = 2048;
const DEFAULT_MAX_MEMORY = 2 ** 30;

/**
 * @param ids - the whole text, tokenized once.
 * @throws {InputError} `input.data` when the ids do not fill one window; `input.option` for a window below 2 or a reference
 *   with another vocabulary; `input.value` for an id outside the vocabulary.
 * @throws {UnsupportedError} `unsupported.architecture` for a model without a language head.
 * @throws {NumericError} `numeric.not-finite` when a logit is not a number.
 */
export async function evaluate(source: Model, ids: readonly number[], options: EvaluateOptions): Promise<Evaluation> {
  const start = performance.now();
  const model = withActivations(source);
  const reference = options.reference && withActivations(options.reference);
  for (const one of reference === undefined ? [model] : [model, reference]) assertCausal(one);
  if (reference !== undefined && reference.facts.vocabularySize !== model.facts.vocabularySize) {
    throw new InputError(
      "input.option",
      `the reference has ${reference.facts.vocabularySize} tokens, the model ${model.facts.vocabularySize}; compare models of one vocabulary`,
      { reference: reference.facts.vocabularySize, model: model.facts.vocabularySize },
    );
  }
  const windows = cutWindows(ids, options, model);
  const window = windows[0]!.length;
  const scores = await scoreWindows(model, reference, windows, options);
  const tokens = windows.length * (window - 1);
  const crossEntropy = meanOfWindows(scores.loss, windows.length, window);
  if (!Number.isFinite(crossEntropy)) {
    const at = scores.loss.findIndex((loss) => !Number.isFinite(loss));
    throw new NumericError(
      "numeric.not-finite",
      `the logits of ${model.directory ?? model.facts.className} are ${scores.loss[at]} at token ${at}: the model overflows or its weights are damaged`,
      { token: at },
    );
  }
  return {
    perplexity: Math.exp(crossEntropy),
    crossEntropy,
    tokens,
    window,
    windows: windows.length,
    ...(reference !== undefined && {
      kl: meanOfWindows(scores.divergence, windows.length, window),
      top1: meanOfWindows(scores.agreement, windows.length, window),
      referencePerplexity: Math.exp(meanOfWindows(scores.referenceLoss, windows.length, window)),
    }),
    seconds: (performance.now() - start) / 1000,
  };
}

function assertCausal({ facts }: Model): void {
  if (facts.output === "logits") return;
  throw new UnsupportedError(
    "unsupported.architecture",
    `${facts.className} gives ${facts.output}, not logits, so it has no perplexity; compare its outputs instead (bitwright compare)`,
    { className: facts.className, output: facts.output },
  );
}

/**
 * The windows that `evaluate` scores: they do not overlap, the tail is dropped.
 *
 * @throws {InputError} `input.data` when the ids do not fill one; `input.option` for a window or limit that allows none.
 */
export function cutWindows(
  ids: readonly number[],
  { window: wanted, maxTokens }: Pick<EvaluateOptions, "window" | "maxTokens">,
  { facts }: Pick<Model, "facts">,
): (readonly number[])[] {
  const window = wanted ?? Math.min(DEFAULT_WINDOW, facts.maxPositions);
  if (!Number.isInteger(window) || window < 2) {
    throw new InputError("input.option", `the window is ${window} ids; it must be an integer of at least 2`, { window });
  }
  if (maxTokens !== undefined && !(maxTokens >= window)) {
    throw new InputError("input.option", `maxTokens is ${maxTokens}, below one window of ${window}; raise it or shrink the window`, {
      maxTokens,
      window,
    });
  }
  const count = Math.floor(Math.min(ids.length, maxTokens ?? Infinity) / window);
  if (count === 0) {
    throw new InputError(
      "input.data",
      `the text has ${ids.length} ids, fewer than one window of ${window}; give more text or a smaller window`,
      {
        ids: ids.length,
        window,
      },
    );
  }
  return Array.from({ length: count }, (_, i) => ids.slice(i * window, (i + 1) * window));
}

/** Per id of every window, in order; what stands at the last id of a window predicts nothing and is not counted. */
interface Scores {
  readonly loss: Float32Array;
  readonly referenceLoss: Float32Array;
  readonly divergence: Float32Array;
  /** 1 where both choose the same token. */
  readonly agreement: Float32Array;
}

/** Mean over windows of the mean over the window − 1 predictions. */
function meanOfWindows(values: Float32Array, windows: number, window: number): number {
  let total = 0;
  for (let w = 0; w < windows; w++) {
    let sum = 0;
    for (let i = 0; i < window - 1; i++) sum += values[w * window + i]!;
    total += sum / (window - 1);
  }
  return total / windows;
}

async function scoreWindows(
  model: Model,
  reference: Model | undefined,
  windows: readonly (readonly number[])[],
  options: EvaluateOptions,
): Promise<Scores> {
  const { engine, maxMemory = DEFAULT_MAX_MEMORY } = options;
  const window = windows[0]!.length;
  const count = windows.length * window;
  const [loss, referenceLoss, divergence, agreement] = [count, count, count, count].map((n) => new Float32Array(n)) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const report = progressOf(options, reference === undefined ? [model] : [reference, model], count);
  const states = new CarriedValues({ maxMemory });
  let runner: HeadRunner | undefined;
  try {
    if (reference !== undefined) {
      const keep = ({ batch, values }: Arrival): Promise<void> => states.replace(batch, Object.entries(values), new Set());
      await walkToHead(reference, samplesOf(reference, windows), report(0), keep);
    }
    const graph = scoringGraph(headOf(model).graph, reference && headOf(reference).graph);
    const tokens = headTokens(reference === undefined ? [model] : [model, reference]);
    const createRunner = async (weights: Arrival["weights"]): Promise<HeadRunner> => {
      const referenceWeights = reference === undefined ? [] : await prefixedWeights(reference);
      return HeadRunner.create(engine, graph, Object.fromEntries([...weights, ...referenceWeights]), tokens);
    };
    await walkToHead(model, samplesOf(model, windows), report(1), async ({ batch, samples, values, weights }) => {
      runner ??= await createRunner(weights);
      const fed: Record<string, HostTensor> = { ...values, [TARGETS]: targetsOf(samples, windows) };
      for (const { name } of reference === undefined ? [] : headOf(reference).graph.inputs) {
        fed[REFERENCE + name] = (await states.get(batch, name))!;
      }
      const base = samples[0]! * window;
      for await (const run of runner.run(fed)) {
        loss.set(floatOutput(run, LOSS), base + run.first);
        if (reference === undefined) continue;
        referenceLoss.set(floatOutput(run, REFERENCE_LOSS), base + run.first);
        divergence.set(floatOutput(run, DIVERGENCE), base + run.first);
        const [mine, theirs] = [run.values[CHOICE]!.data, run.values[REFERENCE_CHOICE]!.data];
        for (let i = 0; i < run.tokens; i++) agreement[base + run.first + i] = Number(mine[i]!) === Number(theirs[i]!) ? 1 : 0;
      }
    });
    return { loss, referenceLoss, divergence, agreement };
  } finally {
    await runner?.release();
    await states.close();
  }
}

const samplesOf = (model: Model, sequences: readonly (readonly number[])[]): Sample[] => sequences.map((ids) => tokenSample(model, ids));

/** Walk options with progress counted over several walks of the same tokens. */
function progressOf(options: RunOptions, models: readonly Model[], tokens: number) {
  const totals = models.map(({ blocks }) => blocks.length * tokens);
  const total = totals.reduce((sum, one) => sum + one, 0);
  return (position: number): Omit<Parameters<typeof walkToHead>[2], never> => {
    const index = Math.min(position, models.length - 1);
    const before = totals.slice(0, index).reduce((sum, one) => sum + one, 0);
    return {
      engine: options.engine,
      ...(options.signal !== undefined && { signal: options.signal }),
      ...(options.batchTokens !== undefined && { batchTokens: options.batchTokens }),
      ...(options.maxMemory !== undefined && { maxMemory: options.maxMemory }),
      onProgress: (walked) => options.onProgress?.({ done: before + walked.tokens, total, detail: walked.blockName }),
    };
  };
}

const REFERENCE = "reference.";
const TARGETS = "score.targets";
const LOSS = "score.loss";
const REFERENCE_LOSS = "score.reference_loss";
const DIVERGENCE = "score.divergence";
const CHOICE = "score.choice";
const REFERENCE_CHOICE = "score.reference_choice";

async function prefixedWeights(model: Model): Promise<[string, HostTensor][]> {
  return [...(await loadWeights(headOf(model)))].map(([slot, tensor]) => [REFERENCE + slot, tensor]);
}

/** The next id of every position, [samples, window, 1]; 0 behind the last. */
function targetsOf(samples: readonly number[], windows: readonly (readonly number[])[]): HostTensor {
  const ids = samples.flatMap((index) => [...windows[index]!.slice(1), 0]);
  return { dtype: "I64", shape: [samples.length, windows[0]!.length, 1], data: BigInt64Array.from(ids, BigInt) };
}

/** The head (and the reference's beside it) with per-token scores as outputs, each [batch, sequence]. */
function scoringGraph(head: Graph, reference: Graph | undefined): Graph {
  const graph = GraphBuilder.from(reference === undefined ? head : besides(head, reference, REFERENCE));
  const targets = graph.input(TARGETS, "I64", ["batch", "sequence", 1]);
  const score = (logits: string, output: string): string => {
    const logProbabilities = graph.op("LogSoftmax", [logits], { axis: -1 });
    const picked = graph.op("GatherElements", [logProbabilities, targets], { axis: -1 });
    graph.op("Neg", [graph.op("Squeeze", [picked, graph.int64([-1])])], {}, output);
    return logProbabilities;
  };
  const model = score("logits", LOSS);
  if (reference === undefined) return graph.build([LOSS]);
  const target = score(`${REFERENCE}logits`, REFERENCE_LOSS);
  const terms = graph.op("Mul", [graph.op("Exp", [target]), graph.op("Sub", [target, model])]);
  graph.op("ReduceSum", [terms, graph.int64([-1])], { keepdims: 0 }, DIVERGENCE);
  graph.op("ArgMax", ["logits"], { axis: -1, keepdims: 0 }, CHOICE);
  graph.op("ArgMax", [`${REFERENCE}logits`], { axis: -1, keepdims: 0 }, REFERENCE_CHOICE);
  return graph.build([LOSS, REFERENCE_LOSS, DIVERGENCE, CHOICE, REFERENCE_CHOICE]);
}

/**
 * What the model gives for whole sequences.
 *
 * @returns `<output>.<index of the sequence>`: `logits.0` [tokens, vocabulary] F32, or `last_hidden_state.0` [tokens, hidden] of an encoder.
 * @throws {InputError} `input.no-data` without sequences; `input.value` for an id outside the vocabulary.
 */
export async function logitsOf(
  source: Model,
  sequences: readonly (readonly number[])[],
  options: RunOptions,
): Promise<Map<string, Tensor>> {
  const model = withActivations(source);
  const head = headOf(model);
  const tokens = sequences.reduce((sum, ids) => sum + ids.length, 0);
  const found = new Map<string, Tensor>();
  let runner: HeadRunner | undefined;
  try {
    await walkToHead(model, samplesOf(model, sequences), progressOf(options, [model], tokens)(0), async ({ samples, values, weights }) => {
      runner ??= await HeadRunner.create(options.engine, head.graph, Object.fromEntries(weights), headTokens([model]));
      const joined = await joinRuns(
        runner,
        values,
        samples.reduce((sum, index) => sum + sequences[index]!.length, 0),
      );
      for (const [output, carried] of Object.entries(head.writes)) {
        const { data, width } = joined.get(output)!;
        samples.forEach((index, i) => {
          const length = data.length / samples.length;
          const shape = width === undefined ? [length] : [length / width, width];
          found.set(`${carried}.${index}`, tensorOf(data.slice(i * length, (i + 1) * length), shape));
        });
      }
    });
  } finally {
    await runner?.release();
  }
  return new Map(
    sequences.flatMap((_, i) => model.outputs.map((output): [string, Tensor] => [`${output}.${i}`, found.get(`${output}.${i}`)!])),
  );
}

/** Outputs over all runs of a batch; `width` is the size of the last axis of values [batch, sequence, width]. */
async function joinRuns(
  runner: HeadRunner,
  values: Values,
  tokens: number,
): Promise<Map<string, { readonly data: Float32Array; readonly width?: number }>> {
  const joined = new Map<string, { readonly data: Float32Array; readonly width?: number }>();
  for await (const run of runner.run(values)) {
    for (const [name, value] of Object.entries(run.values)) {
      const data = floatsOf(value, name);
      const width = value.shape.length === 3 ? value.shape[2]! : undefined;
      if (width === undefined) {
        joined.set(name, { data });
        continue;
      }
      const whole = joined.get(name) ?? { data: new Float32Array(tokens * width), width };
      whole.data.set(data, run.first * width);
      joined.set(name, whole);
    }
  }
  return joined;
}
