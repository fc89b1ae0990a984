/**
 * Nodes and small constants that rewrites are made of.
 * @module
 */
import type { OnnxAttribute, OnnxNode } from "../../formats/containers/onnx/model.ts";
import { makeOnnxTensor, type OnnxTensor } from "../../formats/containers/onnx/tensor.ts";

/** Attribute values by what they are: whole numbers become ints. */
export type PlainAttributes = Readonly<Record<string, number | string | readonly number[] | OnnxAttribute>>;

/** A node; its name is that of its first output, so that it is unique where that is. */
export function makeNode(
  op: string,
  inputs: readonly string[],
  outputs: readonly string[],
  attributes: PlainAttributes = {},
  domain = "",
): OnnxNode {
  const entries = Object.entries(attributes).map(([name, value]): [string, OnnxAttribute] => [name, attributeOf(value)]);
  return { name: `${outputs[0]!}_${op}`, op, domain, inputs, outputs, attributes: new Map(entries) };
}

function attributeOf(value: number | string | readonly number[] | OnnxAttribute): OnnxAttribute {
  if (typeof value === "number") return Number.isInteger(value) ? { kind: "int", value } : { kind: "float", value };
  if (typeof value === "string") return { kind: "string", value };
  if (isList(value)) return { kind: "ints", value };
  return value;
}

function isList(value: readonly number[] | OnnxAttribute): value is readonly number[] {
  return Array.isArray(value);
}

/** F32 constant. */
export function floats(values: readonly number[] | Float32Array, shape: readonly number[] = []): OnnxTensor {
  return makeOnnxTensor("F32", shape, new Uint8Array(Float32Array.from(values).buffer));
}

/** I64 constant. */
export function int64s(values: readonly number[], shape: readonly number[] = [values.length]): OnnxTensor {
  return makeOnnxTensor("I64", shape, new Uint8Array(BigInt64Array.from(values, BigInt).buffer));
}

/** Scalar of a small integer type. */
export function integer(dtype: "U8" | "I8" | "U16" | "I16" | "I32", value: number): OnnxTensor {
  const array =
    dtype === "U8"
      ? Uint8Array.of(value)
      : dtype === "I8"
        ? Int8Array.of(value)
        : dtype === "U16"
          ? Uint16Array.of(value)
          : dtype === "I16"
            ? Int16Array.of(value)
            : Int32Array.of(value);
  return makeOnnxTensor(dtype, [], new Uint8Array(array.buffer));
}
