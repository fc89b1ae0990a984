/**
 * TypeProto: what a value is. Tensors with a type and a shape become plain data; everything else is kept as bytes.
 * @module
 */
import protobuf from "protobufjs/minimal.js";
import { FormatError } from "../../../core/errors.ts";
import { DIMENSION_PROTO, TENSOR_SHAPE_PROTO, TENSOR_TYPE_PROTO, TYPE_PROTO } from "./fields.ts";
import { dtypeOfId, type OnnxDType } from "./dtypes.ts";
import { decodeText } from "./message.ts";
import type { OnnxValueInfo } from "./model.ts";

/** Deepest sequence of sequences of … that is read. */
const MAX_DEPTH = 32;
const VARINT = 0;
const LENGTH_DELIMITED = 2;

/** A TypeProto as plain data. */
export interface DecodedType {
  readonly dtype?: OnnxDType;
  readonly shape?: readonly (number | string)[];
  /** Whether `dtype` and `shape` are all it says. */
  readonly isWhole: boolean;
}

interface Field {
  readonly number: number;
  readonly wireType: number;
  readonly integer: bigint;
  readonly bytes: Uint8Array;
}

/**
 * @throws {FormatError} `format.field` for bytes that are no protobuf, element types that are unknown, and negative sizes
 *   other than -1; `format.limit` when sequences nest deeper than 32.
 */
export function decodeTypeProto(bytes: Uint8Array, name: string): DecodedType {
  checkDepth(bytes, name, 0);
  const fields = fieldsOf(bytes, name);
  const tensors = fields.filter(({ number, wireType }) => number === TYPE_PROTO.tensorType && wireType === LENGTH_DELIMITED);
  if (tensors.length !== 1) return { isWhole: fields.length === 0 };
  const inner = fieldsOf(tensors[0]!.bytes, name);
  let isWhole = fields.length === 1;
  let dtype: OnnxDType | undefined;
  let shape: (number | string)[] | undefined;
  for (const field of inner) {
    if (field.number === TENSOR_TYPE_PROTO.elemType && field.wireType === VARINT) {
      const id = Number(BigInt.asIntN(32, field.integer));
      dtype = dtypeOfId(id);
      if (dtype === undefined && id !== 0)
        throw new FormatError("format.field", `${name}: element type ${id} is unknown`, { name, type: id });
    } else if (field.number === TENSOR_TYPE_PROTO.shape && field.wireType === LENGTH_DELIMITED) {
      const dims = fieldsOf(field.bytes, name).filter(({ number }) => number === TENSOR_SHAPE_PROTO.dim);
      const decoded = dims.map((dim) => decodeDimension(dim.bytes, name));
      shape = decoded.map(({ size }) => size);
      isWhole &&= decoded.every((dim) => dim.isWhole);
    } else isWhole = false;
  }
  return { ...(dtype && { dtype }), ...(dtype && shape && { shape }), isWhole: isWhole && dtype !== undefined };
}

/** Whether a kept TypeProto still describes the value. */
export function saysTheSame(typeProto: Uint8Array, value: OnnxValueInfo): boolean {
  const { dtype, shape } = decodeTypeProto(typeProto, value.name);
  return dtype === value.dtype && JSON.stringify(shape) === JSON.stringify(value.shape);
}

function decodeDimension(bytes: Uint8Array, name: string): { size: number | string; isWhole: boolean } {
  let size: number | string = "";
  let isWhole = true;
  for (const field of fieldsOf(bytes, name)) {
    if (field.number === DIMENSION_PROTO.dimValue && field.wireType === VARINT) {
      const value = BigInt.asIntN(64, field.integer);
      // Some exporters write -1, and ONNX's own shape inference 0 or less, for a size they do not know.
      if (value < 0n) isWhole = false;
      else if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
        throw new FormatError("format.field", `${name}: a dimension of ${value} is beyond 2^53 - 1`, { name, size: String(value) });
      } else size = Number(value);
    } else if (field.number === DIMENSION_PROTO.dimParam && field.wireType === LENGTH_DELIMITED) size = decodeText(field.bytes);
    else isWhole = false;
  }
  return { size, isWhole };
}

/** Fields that nest another TypeProto: sequence, map and optional; all hold it as their last field. */
const NESTING: ReadonlySet<number> = new Set([TYPE_PROTO.sequenceType, TYPE_PROTO.mapType, TYPE_PROTO.optionalType]);

function checkDepth(bytes: Uint8Array, name: string, depth: number): void {
  if (depth > MAX_DEPTH) {
    throw new FormatError("format.limit", `${name}: its type nests deeper than ${MAX_DEPTH} levels`, { name, limit: MAX_DEPTH });
  }
  for (const { number, wireType, bytes: inner } of fieldsOf(bytes, name)) {
    if (wireType !== LENGTH_DELIMITED || !NESTING.has(number)) continue;
    for (const field of fieldsOf(inner, name)) if (field.wireType === LENGTH_DELIMITED) checkDepth(field.bytes, name, depth + 1);
  }
}

const NONE = new Uint8Array();

function fieldsOf(bytes: Uint8Array, name: string): readonly Field[] {
  const reader = protobuf.Reader.create(bytes);
  const fields: Field[] = [];
  try {
    while (reader.pos < reader.len) {
      const tag = reader.uint32();
      const [number, wireType] = [tag >>> 3, tag & 7];
      if (number === 0) throw new RangeError("field number 0");
      if (wireType === VARINT) fields.push({ number, wireType, integer: bigintOf(reader.uint64()), bytes: NONE });
      else if (wireType === LENGTH_DELIMITED) fields.push({ number, wireType, integer: 0n, bytes: reader.bytes() });
      else {
        reader.skipType(wireType, 0, number);
        fields.push({ number, wireType, integer: 0n, bytes: NONE });
      }
    }
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    throw new FormatError("format.field", `${name}: its type is no protobuf message (${String(cause)})`, { name }, { cause });
  }
  return fields;
}

function bigintOf(value: number | protobuf.Long): bigint {
  return typeof value === "number" ? BigInt(value) : (BigInt(value.high >>> 0) << 32n) | BigInt(value.low >>> 0);
}
