/**
 * A model run on named tensors: what `bitwright run --inputs` does.
 *
 * Language models and encoders need `input_ids` alone; positions, segments and
 * masks are filled in as their tokenizers would. Several rows are several samples. A model from an ONNX file runs on
 * exactly what it declares, once.
 * @module
 */
import { InputError } from "../core/errors.ts";
import type { Tensor } from "../core/tensor.ts";
import type { Engine, HostTensor } from "./engines/engine.ts";
import { withActivations } from "./fake-quant.ts";
import type { ValueType } from "./graph/graph.ts";
import { bytesOf, hostTensorOf } from "./host-tensor.ts";
import { tokenSample } from "./inputs.ts";
import { runOnnx } from "./onnx/run.ts";
import { ONNX_FAMILY } from "./sources/onnx.ts";
import type { Model } from "./model.ts";
import type { Sample, WalkProgress } from "./walk-types.ts";
import { walk } from "./walk.ts";

export interface RunInputsOptions {
  readonly engine: Engine;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: WalkProgress) => void;
}

const IDS = "input_ids";
const MASK = "attention_mask";

/**
 * @param inputs - by name of the model's inputs; ids I64 or I32, [batch, tokens] or [tokens].
 * @returns every output of the model, e.g. `logits` F32 [batch, tokens, vocabulary].
 * @throws {InputError} `input.option` naming unknown and missing inputs, `input.dtype`, `input.shape`, `input.value`.
 */
export async function runInputs(
  source: Model,
  inputs: ReadonlyMap<string, Tensor>,
  options: RunInputsOptions,
): Promise<Map<string, Tensor>> {
  if (source.facts.family === ONNX_FAMILY) return runOnnx(source, inputs, options.engine);
  const model = withActivations(source);
  const samples = samplesOf(model, inputs);
  const { engine, signal, onProgress } = options;
  const last = model.blocks.length - 1;
  const rows = new Map(model.outputs.map((name) => [name, Array.from<HostTensor>({ length: samples.length })] as const));
  await walk(model, samples, {
    engine,
    ...(signal && { signal }),
    ...(onProgress && { onProgress }),
    from: last,
    visitor: {
      observe(context, batch, values) {
        for (const [output, carried] of Object.entries(context.block.writes)) {
          const list = rows.get(carried);
          if (list === undefined) continue;
          context.batchSamples(batch).forEach((sample, row) => (list[sample] = rowOf(values[output]!, row)));
        }
      },
    },
  });
  return new Map(model.outputs.map((name) => [name, stack(rows.get(name)!)]));
}

/** One row of the batch axis, copied: values are the engine's after the call. */
function rowOf({ dtype, shape, data }: HostTensor, row: number): HostTensor {
  const width = data.length / shape[0]!;
  return { dtype, shape: shape.slice(1), data: data.slice(row * width, (row + 1) * width) };
}

function stack(rows: readonly HostTensor[]): Tensor {
  const { dtype, shape } = rows[0]!;
  const size = rows[0]!.data.byteLength;
  const bytes = new Uint8Array(rows.length * size);
  for (const [i, row] of rows.entries()) bytes.set(bytesOf(row), i * size);
  return { dtype, shape: [rows.length, ...shape], bytes };
}

function samplesOf(model: Model, inputs: ReadonlyMap<string, Tensor>): Sample[] {
  const types = new Map(model.inputs.map((type) => [type.name, type]));
  const given = new Map([...inputs].map(([name, tensor]) => [name, asRows(name, tensor, types.get(name))]));
  for (const [name, tensor] of given) if (!types.has(name) && isIdleMask(name, tensor)) given.delete(name);
  const unknown = [...given.keys()].find((name) => !types.has(name));
  if (unknown !== undefined) {
    const known = [...types.keys()];
    throw new InputError("input.option", `the model has no input ${unknown}; its inputs are ${known.join(", ")}`, {
      given: unknown,
      known,
    });
  }
  const ids = given.get(IDS);
  if (ids === undefined && types.has(IDS)) {
    throw new InputError("input.option", `${IDS} is missing; given are ${[...given.keys()].join(", ") || "no inputs"}`, { missing: IDS });
  }
  const missing = ids === undefined ? [...types.keys()].find((name) => !given.has(name)) : undefined;
  if (missing !== undefined) throw new InputError("input.option", `input ${missing} is missing`, { missing });
  const counts = new Set([...given.values()].map(({ shape }) => shape[0]!));
  const [count = 0] = counts;
  if (counts.size !== 1 || count === 0) {
    throw new InputError("input.shape", `the inputs have ${[...counts].join(" and ")} rows; one number of at least 1 is needed`, {
      rows: [...counts],
    });
  }
  return Array.from({ length: count }, (_, row) => {
    const own = [...given].map(([name, tensor]) => [name, oneRow(tensor, row)] as const);
    const filled = ids === undefined ? {} : tokenSample(model, Array.from(oneRow(ids, row).data, Number)).inputs;
    checkLengths(own, filled);
    return { inputs: { ...filled, ...Object.fromEntries(own) } };
  });
}

/** Given inputs are as long as the ids they go with. */
function checkLengths(given: readonly (readonly [string, HostTensor])[], filled: Sample["inputs"]): void {
  for (const [name, { shape }] of given) {
    const expected = Object.hasOwn(filled, name) ? filled[name]!.shape : shape;
    if (expected.join() !== shape.join()) {
      throw new InputError("input.shape", `${name} is [${shape.join(", ")}] a row, ${IDS} ask for [${expected.join(", ")}]`, {
        name,
        shape,
        expected,
      });
    }
  }
}

function oneRow(tensor: HostTensor, row: number): HostTensor {
  const { dtype, shape, data } = rowOf(tensor, row);
  return { dtype, shape: [1, ...shape], data };
}

/** A mask that hides nothing says nothing to models without one. */
function isIdleMask(name: string, { data }: HostTensor): boolean {
  return name === MASK && data.every((value: number | bigint) => Number(value) === 1);
}

/** Batch axis in front, integers as wide as the model wants them. */
function asRows(name: string, tensor: Tensor, type: ValueType | undefined): HostTensor {
  const host = hostTensorOf(tensor);
  const wanted = type?.dtype ?? host.dtype;
  const shape = type !== undefined && host.shape.length === type.shape.length - 1 ? [1, ...host.shape] : host.shape;
  if (type !== undefined && shape.length !== type.shape.length) {
    throw new InputError("input.shape", `${name} has ${host.shape.length} axes; the model wants [${type.shape.join(", ")}]`, {
      name,
      shape,
    });
  }
  if (host.dtype === wanted) return { ...host, shape };
  if (wanted === "I64" && (host.dtype === "I32" || host.dtype === "U8" || host.dtype === "I8" || host.dtype === "BOOL")) {
    return { dtype: "I64", shape, data: BigInt64Array.from(host.data as Int32Array, BigInt) };
  }
  throw new InputError("input.dtype", `${name} is ${host.dtype}; the model wants ${wanted}`, { name, dtype: host.dtype, wanted });
}
