/**
 * Batches: consecutive samples of equal shapes, joined along the first axis.
 * @module
 */
import { InputError } from "../core/errors.ts";
import type { HostTensor, Values } from "./engines/engine.ts";
import type { ValueType } from "./graph/graph.ts";
import { concatenate } from "./host-tensor.ts";
import type { Sample } from "./walk-types.ts";

export interface Batch {
  /** Indices of its samples, consecutive. */
  readonly samples: readonly number[];
  /** Positions over all its samples: the product of the sizes of the symbolic axes. */
  readonly tokens: number;
}

/**
 * Group samples in order: a batch grows while shapes stay equal and its tokens stay within `batchTokens`.
 * A sample is never split, so one longer than `batchTokens` is a batch of its own.
 * The rule looks at nothing but the samples and `batchTokens`, so results do not depend on the machine.
 *
 * @param inputs - what the model must be fed.
 * @throws {InputError} `input.no-data` without samples; `input.data`, `input.dtype`, `input.shape` naming the sample and the input.
 */
export function planBatches(inputs: readonly ValueType[], samples: readonly Sample[], batchTokens: number): Batch[] {
  if (samples.length === 0) throw new InputError("input.no-data", "there are no samples to run; give at least one");
  if (!(batchTokens >= 1)) throw new InputError("input.option", `batchTokens is ${batchTokens}; it must be at least 1`, { batchTokens });
  const batches: { samples: number[]; tokens: number }[] = [];
  let openKey = "";
  // Samples are joined where the first axis of every input is one symbol, the batch.
  const first = inputs[0]?.shape[0];
  const joins = typeof first === "string" && inputs.every(({ shape }) => shape[0] === first);
  samples.forEach((sample, index) => {
    const { key, tokens } = measureSample(inputs, sample, index);
    const open = batches.at(-1);
    if (joins && open !== undefined && key === openKey && open.tokens + tokens <= batchTokens) {
      open.samples.push(index);
      open.tokens += tokens;
    } else {
      batches.push({ samples: [index], tokens });
      openKey = key;
    }
  });
  return batches;
}

/** The inputs of a batch by name. */
export function joinInputs(inputs: readonly ValueType[], samples: readonly Sample[], batch: Batch): Values {
  return Object.fromEntries(inputs.map(({ name }) => [name, concatenate(batch.samples.map((i) => samples[i]!.inputs[name]!))]));
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
  return { key: JSON.stringify(shapes), tokens: [...sizes.values()].reduce((product, size) => product * size, 1) };
}

/** Check a tensor against the axes of its input; a symbolic axis must have one size over all inputs of the sample. */
function bindAxes(input: ValueType, { shape, data }: HostTensor, index: number, sizes: Map<string, number>): void {
  const fits = shape.length === input.shape.length && shape.reduce((product, size) => product * size, 1) === data.length;
  const wrong = input.shape.findIndex((axis, i) => {
    const size = shape[i] ?? 0;
    if (typeof axis === "number") return axis !== size;
    const known = sizes.get(axis) ?? size;
    sizes.set(axis, known);
    return known !== size || size === 0;
  });
  if (fits && wrong === -1) return;
  throw new InputError(
    "input.shape",
    `sample ${index}: "${input.name}" is ${JSON.stringify(shape)} with ${data.length} values, the model takes ${JSON.stringify(input.shape)}`,
    { sample: index, input: input.name, shape, expected: input.shape },
  );
}
