/**
 * Rows: several samples in one array.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import type { Tensor } from "../../core/tensor.ts";
import type { ValueType } from "../../model/graph/graph.ts";
import { batchAxisOf } from "../../model/match-inputs.ts";

/** What is known of an array before it is read. */
export interface ArrayHeader {
  readonly shape: readonly number[];
}

/**
 * How many samples the arrays of a file are: as many as rows when the model's inputs share a batch axis (or one of size 1) and the arrays have it,
 * else 1.
 *
 * @throws {InputError} `input.shape` when they have different numbers of rows, or none.
 */
export function countRows(arrays: ReadonlyMap<string, ArrayHeader>, inputs: readonly ValueType[], where: string): number {
  // A graph of one sample a run takes rows one by one.
  const isSingle = inputs.every(({ shape }) => shape.length >= 2 && shape[0] === 1);
  if (batchAxisOf(inputs) === undefined && !isSingle) return 1;
  const batched = [...arrays].filter(([name, { shape }]) => shape.length > 0 && shape.length === rankOf(name, inputs));
  if (batched.length === 0 || batched.length < arrays.size) return 1;
  const counts = batched.map(([, { shape }]) => shape[0]!);
  const other = counts.findIndex((count) => count !== counts[0]);
  if (other === -1 && counts[0] !== 0) return counts[0]!;
  const told = batched.map(([name, { shape }]) => `${name} [${shape.join(", ")}]`).join(", ");
  throw new InputError("input.shape", `${where}: ${told}: the rows of all arrays are samples, so each needs the same number, at least 1`, {
    where,
    counts,
  });
}

/** The arrays' sample `row`, a batch of one: views, not copies. */
export function rowOf(arrays: ReadonlyMap<string, Tensor>, row: number, rows: number): ReadonlyMap<string, Tensor> {
  if (rows === 1) return arrays;
  return new Map(
    [...arrays].map(([name, { dtype, shape, bytes }]) => {
      const width = bytes.byteLength / rows;
      return [name, { dtype, shape: [1, ...shape.slice(1)], bytes: bytes.subarray(row * width, (row + 1) * width) }];
    }),
  );
}

function rankOf(name: string, inputs: readonly ValueType[]): number | undefined {
  return inputs.find((input) => input.name === name)?.shape.length;
}

/** The input that an array without a name is for. @throws {InputError} `input.option` when the model has several. */
export function onlyInput(inputs: readonly ValueType[], where: string, remedy: string): ValueType {
  if (inputs.length === 1) return inputs[0]!;
  const names = inputs.map(({ name }) => name);
  throw new InputError("input.option", `${where} holds one array without a name; the model takes ${names.join(", ")}: ${remedy}`, {
    where,
    names,
  });
}
