/**
 * Named tensors as the inputs a model declares: names, dtypes, axes.
 * @module
 */
import { InputError, type InputCode } from "../core/errors.ts";
import { fromFloat32, toFloat32, type Tensor } from "../core/tensor.ts";
import type { HostTensor, Values } from "./engines/engine.ts";
import type { ValueType } from "./graph/graph.ts";
import { hostTensorOf } from "./host-tensor.ts";

export interface MatchOptions {
  /** For messages: the file, or the file and its line or row. */
  readonly where?: string;
  /** Round floats to a narrower dtype where the model has one (F64 → F32, F32 → F16). Left out: only conversions that change no value. */
  readonly roundInputs?: boolean;
}

/**
 * Feeds from named tensors: every input of the model once, of its dtype, its axes as declared.
 *
 * A tensor that lacks only the first axis gets one of size 1. Integers become integers of another width and floats
 * of another width where that changes no value; a number never becomes a float or back.
 *
 * @throws {InputError} `input.option` naming missing and unexpected names, `input.dtype`, `input.shape` (also for a symbolic axis of two
 *   sizes in one sample), `input.value` for a value that the model's dtype cannot hold. Each says what is given and what the model takes.
 */
export function matchInputs(given: ReadonlyMap<string, Tensor>, inputs: readonly ValueType[], options: MatchOptions = {}): Values {
  checkNames(given, inputs, options);
  const sizes = new Map<string, { readonly size: number; readonly from: string }>();
  return Object.fromEntries(
    inputs.map((input) => {
      const tensor = given.get(input.name)!;
      const shape = tensor.shape.length === input.shape.length - 1 ? [1, ...tensor.shape] : tensor.shape;
      checkShape(input, shape, sizes, options);
      return [input.name, { ...convert(input, tensor, options), shape }];
    }),
  );
}

/** An input for messages: its name, dtype and axes. */
export function describeInput({ name, dtype, shape }: ValueType): string {
  return `${name} ${dtype} [${shape.join(", ")}]`;
}

/**
 * The symbol of the batch axis: the first axis of every input, unless its name says that it counts something else
 * (tokens, frames, rows of the image).
 */
export function batchAxisOf(inputs: readonly ValueType[]): string | undefined {
  const [first, ...others] = inputs;
  const symbol = first?.shape[0];
  if (first === undefined || typeof symbol !== "string" || first.shape.length < 2 || NO_BATCH.test(symbol)) return undefined;
  return others.every(({ shape }) => shape[0] === symbol) ? symbol : undefined;
}

const NO_BATCH = /seq|len|time|frame|token|step|word|char|height|width|num|node|point/i;

function checkNames(given: ReadonlyMap<string, Tensor>, inputs: readonly ValueType[], options: MatchOptions): void {
  const known = inputs.map(({ name }) => name);
  const missing = inputs.filter(({ name }) => !given.has(name));
  const unexpected = [...given.keys()].filter((name) => !known.includes(name));
  if (missing.length === 0 && unexpected.length === 0) return;
  const expected = inputs.map(describeInput);
  const parts = [
    ...(missing.length > 0 ? [`input ${missing.map(describeInput).join(", ")} is missing`] : []),
    ...unexpected.map((name) => `the model has no input ${JSON.stringify(name)}${hint(name, missing)}`),
  ];
  fail(
    "input.option",
    `${parts.join("; ")}; given: ${[...given.keys()].join(", ") || "nothing"}; the model takes ${expected.join(", ") || "nothing"}`,
    { missing: missing.map(({ name }) => name), unexpected, given: [...given.keys()], expected },
    options,
  );
}

/** The missing input that was probably meant: the only one, or the same but for case and punctuation. */
function hint(name: string, missing: readonly ValueType[]): string {
  const plain = (text: string): string => text.toLowerCase().replace(/[^\p{L}\p{N}]/gu, "");
  const meant = missing.length === 1 ? missing[0] : missing.find((input) => plain(input.name) === plain(name));
  return meant === undefined ? "" : ` (is it ${JSON.stringify(meant.name)}?)`;
}

function checkShape(
  input: ValueType,
  shape: readonly number[],
  sizes: Map<string, { readonly size: number; readonly from: string }>,
  options: MatchOptions,
): void {
  const wrong = (why: string): never =>
    fail(
      "input.shape",
      `input ${input.name} is [${shape.join(", ")}]; the model takes ${describeInput(input)}: ${why}`,
      { name: input.name, shape, expected: input.shape },
      options,
    );
  if (shape.length !== input.shape.length) wrong(`${shape.length} axes for ${input.shape.length}`);
  for (const [axis, declared] of input.shape.entries()) {
    const size = shape[axis]!;
    if (typeof declared === "number") {
      if (size !== declared) wrong(`axis ${axis} is ${size}, not ${declared}`);
      continue;
    }
    const known = sizes.get(declared);
    if (known !== undefined && known.size !== size) wrong(`"${declared}" is ${size} here and ${known.size} in ${known.from}`);
    sizes.set(declared, { size, from: input.name });
  }
}

/** Bounds of integer dtypes that engines take. */
const INTEGERS: ReadonlyMap<string, readonly [least: bigint, most: bigint]> = new Map([
  ["BOOL", [0n, 1n]],
  ["I8", [-(2n ** 7n), 2n ** 7n - 1n]],
  ["U8", [0n, 2n ** 8n - 1n]],
  ["I16", [-(2n ** 15n), 2n ** 15n - 1n]],
  ["U16", [0n, 2n ** 16n - 1n]],
  ["I32", [-(2n ** 31n), 2n ** 31n - 1n]],
  ["U32", [0n, 2n ** 32n - 1n]],
  ["I64", [-(2n ** 63n), 2n ** 63n - 1n]],
  ["U64", [0n, 2n ** 64n - 1n]],
]);
const FLOATS: readonly string[] = ["F32", "F64", "F16", "BF16"];

function convert(input: ValueType, tensor: Tensor, options: MatchOptions): HostTensor {
  if (tensor.dtype === input.dtype) return hostTensorOf(tensor);
  const bounds = INTEGERS.get(input.dtype);
  if (bounds !== undefined && INTEGERS.has(tensor.dtype)) return convertIntegers(input, tensor, bounds, options);
  if (FLOATS.includes(tensor.dtype) && FLOATS.includes(input.dtype)) return convertFloats(input, tensor, options);
  return fail(
    "input.dtype",
    `input ${input.name} is ${tensor.dtype}; the model takes ${describeInput(input)}: ` +
      (FLOATS.includes(input.dtype) ? "scale and normalize the values as the model wants them first" : "give integers"),
    { name: input.name, dtype: tensor.dtype, expected: input.dtype },
    options,
  );
}

function convertIntegers(input: ValueType, tensor: Tensor, [least, most]: readonly [bigint, bigint], options: MatchOptions): HostTensor {
  const values = readIntegers(tensor);
  const outside = values.findIndex((value) => value < least || value > most);
  if (outside !== -1) {
    fail(
      "input.value",
      `input ${input.name} is ${tensor.dtype} with ${values[outside]} in entry ${outside}; the model takes ${describeInput(input)}`,
      { name: input.name, dtype: tensor.dtype, expected: input.dtype, value: String(values[outside]) },
      options,
    );
  }
  return hostTensorOf({ dtype: input.dtype, shape: tensor.shape, bytes: integerBytes(input, values) });
}

function readIntegers({ dtype, bytes }: Tensor): readonly bigint[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const every = (size: number, read: (at: number) => number | bigint): bigint[] =>
    Array.from({ length: bytes.byteLength / size }, (_, i) => BigInt(read(i * size)));
  switch (dtype) {
    case "I8":
      return every(1, (at) => view.getInt8(at));
    case "I16":
      return every(2, (at) => view.getInt16(at, true));
    case "U16":
      return every(2, (at) => view.getUint16(at, true));
    case "I32":
      return every(4, (at) => view.getInt32(at, true));
    case "U32":
      return every(4, (at) => view.getUint32(at, true));
    case "I64":
      return every(8, (at) => view.getBigInt64(at, true));
    case "U64":
      return every(8, (at) => view.getBigUint64(at, true));
    default:
      return every(1, (at) => view.getUint8(at));
  }
}

/** @param values - within the bounds of the input's dtype. */
function integerBytes({ dtype }: ValueType, values: readonly bigint[]): Uint8Array {
  if (dtype === "I64" || dtype === "U64") return new Uint8Array(BigUint64Array.from(values, (value) => BigInt.asUintN(64, value)).buffer);
  const numbers = values.map(Number);
  if (dtype === "I32" || dtype === "U32") return new Uint8Array(Int32Array.from(numbers).buffer);
  if (dtype === "I16" || dtype === "U16") return new Uint8Array(Int16Array.from(numbers).buffer);
  return Uint8Array.from(numbers);
}

function convertFloats(input: ValueType, tensor: Tensor, options: MatchOptions): HostTensor {
  const { dtype, shape } = tensor;
  const exact = dtype === "F64" ? new Float64Array(tensor.bytes.slice().buffer) : toFloat32(tensor);
  const rounded = fromFloat32(Float32Array.from(exact), shape, input.dtype);
  if (options.roundInputs !== true) {
    const back = input.dtype === "F64" ? new Float64Array(rounded.bytes.slice().buffer) : toFloat32(rounded);
    const changed = exact.findIndex((value, i) => !Object.is(value, back[i]) && value !== back[i]);
    if (changed !== -1) {
      fail(
        "input.dtype",
        `input ${input.name} is ${dtype} and ${exact[changed]} in entry ${changed} is no ${input.dtype}; the model takes ${describeInput(input)}: ` +
          `save the array as ${input.dtype} (NumPy: x.astype("${NUMPY_NAMES.get(input.dtype) ?? "float32"}")) or round with --round-inputs`,
        { name: input.name, dtype, expected: input.dtype },
        options,
      );
    }
  }
  return hostTensorOf(rounded);
}

const NUMPY_NAMES: ReadonlyMap<string, string> = new Map([
  ["F32", "float32"],
  ["F16", "float16"],
  ["F64", "float64"],
]);

function fail(code: InputCode, message: string, details: Readonly<Record<string, unknown>>, { where }: MatchOptions): never {
  throw new InputError(code, where === undefined ? message : `${where}: ${message}`, { ...details, ...(where !== undefined && { where }) });
}
