/**
 * How far apart two models are on the same samples: what each gives at its outputs, number by number.
 * @module
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { InputError, throwIfAborted } from "../core/errors.ts";
import { toFloat32 } from "../core/tensor.ts";
import { CarriedValues } from "./carried.ts";
import { withActivations } from "./fake-quant.ts";
import { headOf, HeadRunner, headTokens, walkToHead, type Arrival } from "./head.ts";
import type { HostTensor } from "./engines/engine.ts";
import { bytesOf, floatsOf } from "./host-tensor.ts";
import type { RunOptions } from "./evaluate.ts";
import type { Model } from "./model.ts";
import { withCompiled } from "./onnx/run.ts";
import { eachSample, type Samples } from "./sample-list.ts";
import { loadWeights } from "./weights.ts";

/** Model `b` against model `a` at one output, over all samples. */
export interface OutputComparison {
  readonly output: string;
  /** ⟨a, b⟩ / (‖a‖ ‖b‖); 1 when both are 0. */
  readonly cosine: number;
  /** 10 log₁₀(‖a‖² / ‖a − b‖²), dB; Infinity when equal. */
  readonly sqnr: number;
  /** Largest |a − b|. */
  readonly largestDifference: number;
  /** Numbers compared. */
  readonly count: number;
}

/** Running sums over pairs of numbers, in f64. */
class Difference {
  #dot = 0;
  #first = 0;
  #second = 0;
  #error = 0;
  #largest = 0;
  #count = 0;

  add(a: Float32Array, b: Float32Array): void {
    // Local sums: private fields in a loop over millions of logits cost several times more.
    let [dot, first, second, error, largest] = [0, 0, 0, 0, this.#largest];
    for (let i = 0; i < a.length; i++) {
      const x = a[i]!;
      const y = b[i]!;
      const difference = Math.abs(x - y);
      dot += x * y;
      first += x * x;
      second += y * y;
      error += difference * difference;
      if (!(difference <= largest)) largest = difference;
    }
    this.#dot += dot;
    this.#first += first;
    this.#second += second;
    this.#error += error;
    this.#largest = largest;
    this.#count += a.length;
  }

  result(output: string): OutputComparison {
    const norms = Math.sqrt(this.#first) * Math.sqrt(this.#second);
    const both0 = this.#first === 0 && this.#second === 0;
    return {
      output,
      cosine: both0 ? 1 : norms === 0 ? 0 : this.#dot / norms,
      sqnr: this.#error === 0 ? Infinity : 10 * Math.log10(this.#first / this.#error),
      largestDifference: this.#largest,
      count: this.#count,
    };
  }
}

/**
 * Run both models over the same samples, block by block, activations quantized where a model says so.
 * In memory are one block at a time, both heads, and the hidden states of `a` before its head (beyond `maxMemory` on disk).
 *
 * @param a - the reference.
 * @returns one comparison for each output of the models.
 * @throws {InputError} `input.option` when the models' outputs differ in name; `input.shape` when they differ in shape.
 */
export async function compareModels(a: Model, b: Model, samples: Samples, options: RunOptions): Promise<OutputComparison[]> {
  const [first, second] = [withActivations(a), withActivations(b)];
  const outputs = Object.values(headOf(first).writes).filter((name) => first.outputs.includes(name));
  assertOutputs(outputs, second.outputs);
  const { engine, maxMemory = 2 ** 30, onProgress, ...shared } = options;
  const step = (model: Model, part: 0 | 1) => ({
    ...shared,
    engine,
    maxMemory,
    onProgress: (walked: { readonly tokens: number; readonly totalTokens: number; readonly blockName: string }) =>
      onProgress?.({ done: part * walked.totalTokens + walked.tokens, total: 2 * walked.totalTokens, detail: walked.blockName }),
  });
  const states = new CarriedValues({ maxMemory });
  const differences = new Map(outputs.map((name) => [name, new Difference()]));
  const runners: HeadRunner[] = [];
  try {
    const keep = ({ batch, values }: Arrival): Promise<void> => states.replace(batch, Object.entries(values), new Set());
    await walkToHead(first, samples, step(first, 0), keep);
    const tokens = headTokens([first, second]);
    await walkToHead(second, samples, step(second, 1), async ({ batch, values, weights }) => {
      if (runners.length === 0) {
        const heads = [await loadWeights(headOf(first)), weights] as const;
        runners.push(await HeadRunner.create(engine, headOf(first).graph, Object.fromEntries(heads[0]), tokens));
        runners.push(await HeadRunner.create(engine, headOf(second).graph, Object.fromEntries(heads[1]), tokens));
      }
      const kept: Record<string, Arrival["values"][string]> = {};
      for (const { name } of headOf(first).graph.inputs) kept[name] = (await states.get(batch, name))!;
      const theirs = runners[1]!.run(values);
      for await (const mine of runners[0]!.run(kept)) {
        const other = (await theirs.next()).value;
        for (const [output, difference] of differences) {
          const x = mine.values[valueOf(first, output)]!;
          const y = other?.values[valueOf(second, output)];
          assertShapes(output, x.shape, y?.shape);
          difference.add(floatsOf(x, output), floatsOf(y, output));
        }
      }
    });
    return [...differences].map(([output, difference]) => difference.result(output));
  } finally {
    for (const runner of runners) await runner.release();
    await states.close();
  }
}

/**
 * Compare two models read from ONNX files, sample by sample.
 *
 * @param samples - inputs of `a`; `b` takes the same.
 * @throws {InputError} `input.option` when `b` lacks an output; what the engine throws for inputs that do not fit.
 */
export async function compareOnnx(
  a: Model,
  b: Model,
  samples: Samples,
  { engine, signal, onProgress }: Pick<RunOptions, "engine" | "signal" | "onProgress">,
): Promise<OutputComparison[]> {
  assertOutputs(a.outputs, b.outputs);
  const differences = new Map(a.outputs.map((name) => [name, new Difference()]));
  await withCompiled(engine, [a, b], async ([first, second]) => {
    let done = 0;
    for await (const { inputs } of eachSample(samples)) {
      throwIfAborted(signal);
      const [mine, theirs] = [await first!.run(inputs), await second!.run(inputs)];
      for (const [output, difference] of differences) {
        const [x, y] = [mine[output]!, theirs[output]!];
        assertShapes(output, x.shape, y.shape);
        difference.add(numbersOf(x), numbersOf(y));
      }
      onProgress?.({ done: ++done, total: samples.length, detail: a.blocks[0]!.name });
      await nextTurn();
    }
  });
  return [...differences].map(([output, difference]) => difference.result(output));
}

/** Values of any dtype an engine gives, as f32. */
function numbersOf(tensor: HostTensor): Float32Array {
  const { dtype, shape, data } = tensor;
  return data instanceof Float32Array ? data : toFloat32({ dtype, shape, bytes: bytesOf(tensor) });
}

function assertOutputs(outputs: readonly string[], others: readonly string[]): void {
  const missing = outputs.find((name) => !others.includes(name));
  if (missing === undefined) return;
  throw new InputError("input.option", `the first model gives "${missing}", the second ${others.join(", ")}; their outputs must agree`, {
    missing,
    outputs: others,
  });
}

function assertShapes(output: string, first: readonly number[], second: readonly number[] | undefined): void {
  if (second !== undefined && first.join() === second.join()) return;
  throw new InputError(
    "input.shape",
    `"${output}" is ${JSON.stringify(first)} in the first model and ${JSON.stringify(second)} in the second`,
    { output, first, second },
  );
}

/** The head's graph output that is written to a carried value. */
function valueOf(model: Model, carried: string): string {
  return Object.entries(headOf(model).writes).find(([, name]) => name === carried)![0];
}
