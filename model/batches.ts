/**
 * Batches: consecutive samples of equal shapes, joined along the first axis.
 * @module
 */
import { InputError } from "../core/errors.ts";
import type { HostTensor, Values } from "./engines/engine.ts";
import type { ValueType } from "./graph/graph.ts";
import { concatenate } from "./host-tensor.ts";
import { eachSample, type Samples } from "./sample-list.ts";
import type { Sample } from "./walk-types.ts";

/** Numbers of an input that count as one token where no axis counts tokens: a patch of 4 × 4 colours. */
const NUMBERS_PER_TOKEN = 48;

export interface Batch {
  /** Indices of its samples, consecutive. */
  readonly samples: readonly number[];
  /** Positions over all its samples. */
  readonly tokens: number;
}

/**
 * Group samples in order: a batch grows while shapes stay equal and its tokens stay within `batchTokens`.
 * A sample is never split, so one longer than `batchTokens` is a batch of its own.
 * The rule looks at nothing but the samples and `batchTokens`, so results do not depend on the machine.
 * In memory are the samples of one batch.
 *
 * @param inputs - what the model must be fed.
 * @returns each batch with its inputs by name.
 * @throws {InputError} `input.no-data` without samples; `input.data`, `input.dtype`, `input.shape` naming the sample and the input.
 */
export async function* readBatches(
  inputs: readonly ValueType[],
  samples: Samples,
  batchTokens: number,
): AsyncGenerator<{ readonly batch: Batch; readonly values: Values }> {
  if (samples.length === 0) throw new InputError("input.no-data", "there are no samples to run; give at least one");
  if (!(batchTokens >= 1)) throw new InputError("input.option", `batchTokens is ${batchTokens}; it must be at least 1`, { batchTokens });
  // Samples are joined where the first axis of every input is one symbol, the batch.
  const first = inputs[0]?.shape[0];
  const joins = typeof first === "string" && inputs.every(({ shape }) => shape[0] === first);
  let open: { key: string; tokens: number; first: number; samples: Sample[] } | undefined;
  const closed = ({ tokens, first: start, samples: members }: NonNullable<typeof open>) => ({
    batch: { samples: members.map((_, i) => start + i), tokens },
    values: Object.fromEntries(inputs.map(({ name }) => [name, concatenate(members.map((sample) => sample.inputs[name]!))])),
  });
  let index = 0;
  for await (const sample of eachSample(samples)) {
    const { key, tokens } = measureSample(inputs, sample, index);
    if (joins && open !== undefined && key === open.key && open.tokens + tokens <= batchTokens) {
      open.samples.push(sample);
      open.tokens += tokens;
    } else {
      if (open !== undefined) yield closed(open);
      open = { key, tokens, first: index, samples: [sample] };
    }
    index++;
  }
  if (open !== undefined) yield closed(open);
}

function measureSample(inputs: readonly ValueType[], sample: Sample, index: number): { key: string; tokens: number } {
  const sizes = new Map<string, number>();
  const shapes = inputs.map((input) => {
    const tensor = Object.hasOwn(sample.inputs, input.name) ? sample.inputs[input.name]! : undefined;
    if (tensor === undefined) {
      const given = Object.keys(sample.inputs).join(", ") || "nothing";
      throw new InputError("input.data", `sample ${index} lacks "${input.name}"; it has ${given}`, { sample: index, input: input.name });
    }
    if (tensor.dtype !== input.dtype) {
      throw new InputError("input.dtype", `sample ${index}: "${input.name}" is ${tensor.dtype}, the model takes ${input.dtype}`, {
        sample: index,
        input: input.name,
        dtype: tensor.dtype,
        expected: input.dtype,
      });
    }
    bindAxes(input, tensor, index, sizes);
    return tensor.shape;
  });
  return { key: JSON.stringify(shapes), tokens: countTokens(inputs, shapes, sizes) };
}

/**
 * Batch × longest other symbolic axis. Inputs that are large for that (images, spectra) count by their numbers: about as
 * many as a patch of an image has.
 */
function countTokens(inputs: readonly ValueType[], shapes: readonly (readonly number[])[], sizes: ReadonlyMap<string, number>): number {
  const first = inputs[0]?.shape[0];
  const others = [...sizes].filter(([symbol]) => symbol !== first).map(([, size]) => size);
  const positions = (typeof first === "string" ? (sizes.get(first) ?? 1) : 1) * Math.max(1, ...others);
  const numbers = shapes.reduce((sum, shape) => sum + shape.reduce((product, size) => product * size, 1), 0);
  return Math.max(1, positions, Math.ceil(numbers / NUMBERS_PER_TOKEN));
}

/** Check a tensor against the axes of its input; a symbolic axis must have one size over all inputs of the sample. */
function bindAxes(input: ValueType, { shape, data }: HostTensor, index: number, sizes: Map<string, number>): void {
  const fits = shape.length === input.shape.length && shape.reduce((product, size) => product * size, 1) === data.length;
  const wrong = input.shape.findIndex((axis, i) => {
    const size = shape[i] ?? 0;
    if (typeof axis === "number") return axis !== size;
    const known = sizes.get(axis) ?? size;
    sizes.set(axis, known);
    // Only a cache may be empty: [batch, heads, 0, size].
    return known !== size || (size === 0 && input.shape.length < 3);
  });
  if (fits && wrong === -1) return;
  throw new InputError(
    "input.shape",
    `sample ${index}: "${input.name}" is ${JSON.stringify(shape)} with ${data.length} values, the model takes ${JSON.stringify(input.shape)}`,
    { sample: index, input: input.name, shape, expected: input.shape },
  );
}
