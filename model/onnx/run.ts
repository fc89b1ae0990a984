/**
 * Runs a model that was read from an ONNX file on named tensors, as they are: no batch axis is assumed.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import type { Tensor } from "../../core/tensor.ts";
import type { CompiledGraph, Engine, HostTensor, Values } from "../engines/engine.ts";
import type { ValueType } from "../graph/graph.ts";
import { bytesOf, hostTensorOf } from "../host-tensor.ts";
import type { Model } from "../model.ts";

/** Integers that are widened without a word: .npz files of indices are often narrower than the graph's. */
const WIDENED: ReadonlySet<string> = new Set(["I32", "I8", "U8", "BOOL"]);

/**
 * Feeds of an ONNX model from named tensors: every input once, of its dtype, its axes as declared. A tensor that lacks the
 * first axis gets one of size 1, integers are widened to I64.
 *
 * @throws {InputError} `input.option` naming unknown or missing inputs, `input.dtype`, `input.shape`; each lists what the model takes.
 */
export function onnxFeeds(model: Model, inputs: ReadonlyMap<string, Tensor>): Values {
  const expected = model.inputs.map(describeInput);
  const unknown = [...inputs.keys()].find((name) => !model.inputs.some((input) => input.name === name));
  if (unknown !== undefined) {
    throw new InputError("input.option", `the model has no input ${JSON.stringify(unknown)}; it takes ${expected.join(", ") || "none"}`, {
      given: unknown,
      expected,
    });
  }
  const sizes = new Map<string, { readonly size: number; readonly from: string }>();
  return Object.fromEntries(
    model.inputs.map((input) => {
      const tensor = inputs.get(input.name);
      if (tensor === undefined) {
        const given = [...inputs.keys()].join(", ") || "nothing";
        throw new InputError("input.option", `input ${describeInput(input)} is missing; given is ${given}`, {
          missing: input.name,
          expected,
        });
      }
      const feed = fit(input, tensor);
      checkShape(input, feed.shape, sizes);
      return [input.name, feed];
    }),
  );
}

/** An input for messages: its name, dtype and axes. */
export function describeInput({ name, dtype, shape }: ValueType): string {
  return `${name} ${dtype} [${shape.join(", ")}]`;
}

function fit(input: ValueType, tensor: Tensor): HostTensor {
  const host = hostTensorOf(tensor);
  const shape = host.shape.length === input.shape.length - 1 ? [1, ...host.shape] : host.shape;
  if (host.dtype === input.dtype) return { ...host, shape };
  if (input.dtype === "I64" && WIDENED.has(host.dtype)) {
    return { dtype: "I64", shape, data: BigInt64Array.from(host.data as Int32Array, BigInt) };
  }
  throw new InputError("input.dtype", `input ${input.name} is ${host.dtype}; the model takes ${describeInput(input)}`, {
    name: input.name,
    dtype: host.dtype,
    expected: input.dtype,
  });
}

function checkShape(
  input: ValueType,
  shape: readonly number[],
  sizes: Map<string, { readonly size: number; readonly from: string }>,
): void {
  const fail = (why: string): never => {
    throw new InputError("input.shape", `input ${input.name} is [${shape.join(", ")}]; the model takes ${describeInput(input)}: ${why}`, {
      name: input.name,
      shape,
      expected: input.shape,
    });
  };
  if (shape.length !== input.shape.length) fail(`${shape.length} axes for ${input.shape.length}`);
  for (const [axis, declared] of input.shape.entries()) {
    const size = shape[axis]!;
    if (typeof declared === "number") {
      if (size !== declared) fail(`axis ${axis} is ${size}, not ${declared}`);
      continue;
    }
    const known = sizes.get(declared);
    if (known !== undefined && known.size !== size) fail(`"${declared}" is ${size} here and ${known.size} in ${known.from}`);
    sizes.set(declared, { size, from: input.name });
  }
}

/** Run once. @throws as {@link onnxFeeds}, and what the engine throws. */
export async function runOnnx(model: Model, inputs: ReadonlyMap<string, Tensor>, engine: Engine): Promise<Map<string, Tensor>> {
  const feeds = onnxFeeds(model, inputs);
  const graph = await engine.compile(model.blocks[0]!.graph);
  try {
    return outputsOf(model, await graph.run(feeds));
  } finally {
    await graph.release();
  }
}

function outputsOf(model: Model, values: Values): Map<string, Tensor> {
  return new Map(
    model.outputs.map((name) => {
      const value = values[name]!;
      return [name, { dtype: value.dtype, shape: value.shape, bytes: bytesOf(value).slice() }];
    }),
  );
}

/**
 * Feeds of one sample each: rows along the first axis where every input's first axis is the same symbol, else all at once.
 *
 * @throws as {@link onnxFeeds}.
 */
export function onnxSamples(model: Model, inputs: ReadonlyMap<string, Tensor>): readonly Values[] {
  const feeds = onnxFeeds(model, inputs);
  const [first] = model.inputs;
  const symbol = first?.shape[0];
  const isBatched = typeof symbol === "string" && model.inputs.every(({ shape }) => shape[0] === symbol);
  if (!isBatched) return [feeds];
  const count = feeds[first!.name]!.shape[0]!;
  return Array.from({ length: count }, (_, row) =>
    Object.fromEntries(Object.entries(feeds).map(([name, value]) => [name, rowOf(value, row)])),
  );
}

function rowOf({ dtype, shape, data }: HostTensor, row: number): HostTensor {
  const width = data.length / shape[0]!;
  return { dtype, shape: [1, ...shape.slice(1)], data: data.slice(row * width, (row + 1) * width) };
}

/** A model's compiled graph, for as long as `work` takes. */
export async function withCompiled<Result>(
  engine: Engine,
  models: readonly Model[],
  work: (graphs: readonly CompiledGraph[]) => Promise<Result>,
) {
  const graphs: CompiledGraph[] = [];
  try {
    for (const model of models) graphs.push(await engine.compile(model.blocks[0]!.graph));
    return await work(graphs);
  } finally {
    for (const graph of graphs) await graph.release();
  }
}
