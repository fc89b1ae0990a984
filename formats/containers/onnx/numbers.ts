/**
 * Elements of a TensorProto that are stored as numbers of protobuf, as raw little-endian bytes.
 * @module
 */
import { memorySource } from "../bytes.ts";
import { TENSOR_PROTO } from "./fields.ts";
import type { OnnxDType } from "./dtypes.ts";
import { onnxBits } from "./dtypes.ts";
import { FIXED32, FIXED64, LENGTH_DELIMITED, VARINT, WireReader, type WireField } from "./wire.ts";

const FIXED_FIELDS: ReadonlySet<number> = new Set([TENSOR_PROTO.floatData, TENSOR_PROTO.doubleData]);
const VARINT_FIELDS: ReadonlySet<number> = new Set([TENSOR_PROTO.int32Data, TENSOR_PROTO.int64Data, TENSOR_PROTO.uint64Data]);

/**
 * @param message - a TensorProto whose elements were counted.
 * @param byteLength - of the result.
 */
export function unpackNumbers(message: Uint8Array, dtype: OnnxDType, byteLength: number): Uint8Array {
  const reader = new WireReader(memorySource("tensor", message));
  const out = new Uint8Array(byteLength);
  const view = new DataView(out.buffer);
  // Types below a byte and of one byte take the low 8 bits of each number.
  const width = Math.min(8, Math.max(1, onnxBits(dtype) / 8));
  let at = 0;
  const put = (low: number, high: number): void => {
    if (width === 1) out[at] = low;
    else if (width === 2) view.setUint16(at, low & 0xffff, true);
    else view.setUint32(at, low >>> 0, true);
    if (width === 8) view.setUint32(at + 4, high >>> 0, true);
    at += width;
  };
  const copy = ({ start, end }: WireField): void => {
    out.set(message.subarray(start, end), at);
    at += end - start;
  };
  for (const field of reader.fields({ start: 0, end: message.byteLength })) {
    const { number, wireType, varint } = field;
    if (FIXED_FIELDS.has(number)) {
      if (wireType === LENGTH_DELIMITED || wireType === FIXED32 || wireType === FIXED64) copy(field);
    } else if (VARINT_FIELDS.has(number)) {
      if (wireType === VARINT) put(varint.low, varint.high);
      else for (const value of reader.varints(field)) put(value.low, value.high);
    }
  }
  return out;
}
