/**
 * Nested lists → a tensor of an input's dtype.
 * @module
 */
import type { DType } from "../../core/dtype.ts";
import { InputError } from "../../core/errors.ts";
import { fromFloat32, tensorOf, type Tensor } from "../../core/tensor.ts";
import type { ValueType } from "../../model/graph/graph.ts";

/** More axes than any model's input has. */
const MAX_DEPTH = 16;

/** Integer dtypes with the array that holds them and their bounds. */
const INTEGERS: ReadonlyMap<DType, readonly [hold: (values: number[]) => Parameters<typeof tensorOf>[0], least: number, most: number]> =
  new Map([
    ["I8", [(values) => Int8Array.from(values), -128, 127]],
    ["U8", [(values) => Uint8Array.from(values), 0, 255]],
    ["I16", [(values) => Int16Array.from(values), -32_768, 32_767]],
    ["U16", [(values) => Uint16Array.from(values), 0, 65_535]],
    ["I32", [(values) => Int32Array.from(values), -(2 ** 31), 2 ** 31 - 1]],
    ["U32", [(values) => Uint32Array.from(values), 0, 2 ** 32 - 1]],
  ]);

/**
 * @param value - numbers (or true and false) in lists of lists, all rows equally long; a number alone has no axes.
 * @throws {InputError} `input.shape` for ragged lists, `input.value` for entries that the input's dtype cannot hold, with their place.
 */
export function nestedTensor(value: unknown, input: ValueType, where: string): Tensor {
  const shape: number[] = [];
  for (let inner = value; Array.isArray(inner); inner = inner[0]) {
    shape.push(inner.length);
    if (shape.length > MAX_DEPTH) {
      throw new InputError("input.shape", `${where} is nested deeper than ${MAX_DEPTH} lists`, { where, limit: MAX_DEPTH });
    }
  }
  const entries: (number | boolean)[] = [];
  flatten(value, shape, 0, [], entries, where);
  return encode(entries, shape, input, where);
}

function flatten(value: unknown, shape: readonly number[], axis: number, place: number[], out: (number | boolean)[], where: string): void {
  if (axis === shape.length) {
    if (typeof value !== "number" && typeof value !== "boolean") throw notANumber(value, place, where);
    out.push(value);
    return;
  }
  if (!Array.isArray(value) || value.length !== shape[axis]) {
    const found = Array.isArray(value) ? `a list of ${value.length}` : JSON.stringify(value);
    throw new InputError("input.shape", `${where}${spell(place)} is ${found}; the first list of this depth has ${shape[axis]} entries`, {
      where,
      place,
      expected: shape[axis],
    });
  }
  for (const [i, inner] of value.entries()) {
    place.push(i);
    flatten(inner, shape, axis + 1, place, out, where);
    place.pop();
  }
}

function encode(entries: readonly (number | boolean)[], shape: readonly number[], input: ValueType, where: string): Tensor {
  const { dtype } = input;
  const refuse = (i: number): never => {
    throw new InputError("input.value", `${where}: entry ${i} is ${entries[i]}; ${input.name} takes ${dtype}`, { where, entry: i, dtype });
  };
  const check = (isFit: (entry: number | boolean) => boolean): void => {
    const wrong = entries.findIndex((entry) => !isFit(entry));
    if (wrong !== -1) refuse(wrong);
  };
  if (dtype === "BOOL") {
    check((entry) => typeof entry === "boolean" || entry === 0 || entry === 1);
    return { dtype, shape, bytes: Uint8Array.from(entries, Number) };
  }
  if (dtype === "I64" || dtype === "U64") {
    check((entry) => Number.isSafeInteger(Number(entry)) && (dtype === "I64" || Number(entry) >= 0));
    const { bytes } = tensorOf(
      BigInt64Array.from(entries, (entry) => BigInt(Number(entry))),
      shape,
    );
    return { dtype, shape, bytes };
  }
  const integer = INTEGERS.get(dtype);
  if (integer !== undefined) {
    const [hold, least, most] = integer;
    check((entry) => Number.isInteger(Number(entry)) && Number(entry) >= least && Number(entry) <= most);
    return tensorOf(hold(entries.map(Number)), shape);
  }
  check((entry) => typeof entry === "number");
  if (dtype === "F64") return tensorOf(Float64Array.from(entries, Number), shape);
  return fromFloat32(Float32Array.from(entries, Number), shape, dtype);
}

function notANumber(value: unknown, place: readonly number[], where: string): InputError {
  const found = JSON.stringify(value)?.slice(0, 40) ?? typeof value;
  return new InputError("input.value", `${where}${spell(place)} is ${found}; expected a number`, { where, place: [...place] });
}

function spell(place: readonly number[]): string {
  return place.map((i) => `[${i}]`).join("");
}
