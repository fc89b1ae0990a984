/**
 * TensorProto: one logical tensor in any of seven storages, as a lazy tensor in one form.
 *
 * Nothing but what is said about the tensor is read; its elements are counted, so that a file whose data does not
 * fill the shape is refused before anybody reads it.
 * @module
 */
import { FormatError, UnsupportedError } from "../../../core/errors.ts";
import { TENSOR_PROTO } from "./fields.ts";
import { dtypeOfId, onnxBits, onnxByteLength, type OnnxDType } from "./dtypes.ts";
import type { ExternalFiles } from "./external.ts";
import { parseEntries, parseMetadata } from "./parse-entries.ts";
import { FIXED32, FIXED64, LENGTH_DELIMITED, VARINT, type Range, type WireField, type WireReader } from "./wire.ts";
import { unpackNumbers } from "./numbers.ts";
import { makeStringTensor, type OnnxTensor } from "./tensor.ts";

/** More axes than any operator has; a hostile file could ask for millions. */
const MAX_RANK = 64;
/** Tensors this small are kept in memory: shapes, scales, scalars. */
const EAGER_BYTES = 1024;
const EXTERNAL = 1;

type Storage = "rawData" | "floatData" | "doubleData" | "int32Data" | "int64Data" | "uint64Data" | "stringData";

/** Fields that hold elements, and bytes of one stored number (0: varints). */
const STORAGES: ReadonlyMap<number, { readonly storage: Storage; readonly fixed: number }> = new Map([
  [TENSOR_PROTO.rawData, { storage: "rawData", fixed: 0 }],
  [TENSOR_PROTO.floatData, { storage: "floatData", fixed: 4 }],
  [TENSOR_PROTO.doubleData, { storage: "doubleData", fixed: 8 }],
  [TENSOR_PROTO.int32Data, { storage: "int32Data", fixed: 0 }],
  [TENSOR_PROTO.int64Data, { storage: "int64Data", fixed: 0 }],
  [TENSOR_PROTO.uint64Data, { storage: "uint64Data", fixed: 0 }],
  [TENSOR_PROTO.stringData, { storage: "stringData", fixed: 0 }],
]);

/** The storage of each type beside raw_data (onnx.proto, TensorProto). */
const STORAGE_OF: ReadonlyMap<OnnxDType, Storage> = new Map<OnnxDType, Storage>([
  ["F32", "floatData"],
  ["C64", "floatData"],
  ["F64", "doubleData"],
  ["C128", "doubleData"],
  ["I64", "int64Data"],
  ["U64", "uint64Data"],
  ["U32", "uint64Data"],
  ["STRING", "stringData"],
]);

/** What parsing a tensor needs to know of its surroundings. */
export interface TensorContext {
  readonly reader: WireReader;
  /** Bytes of a range of the file, later. */
  readonly read: (range: Range) => Promise<Uint8Array>;
  /** The file itself, when it is one. */
  readonly path?: string;
  /** The whole file, when it is in memory anyway. */
  readonly memory?: Uint8Array;
  readonly external: ExternalFiles;
}

/**
 * @param what - for messages, where the tensor has no name.
 * @throws {FormatError} `format.field`, `format.truncated`, `format.limit`, `format.path` naming the tensor.
 */
export function parseTensor(context: TensorContext, range: Range, what = "a tensor"): OnnxTensor {
  const { reader } = context;
  const { fields, unknownFields } = reader.message(range, TENSOR_PROTO);
  let name: string | undefined;
  for (const field of fields) if (field.number === TENSOR_PROTO.name) name = reader.text(field);
  const refuse = (problem: string, code: "format.field" | "format.truncated" | "format.limit" = "format.field"): never => {
    throw new FormatError(code, `${reader.name}: tensor ${name === undefined ? what : JSON.stringify(name)} ${problem}`, {
      file: reader.name,
      tensor: name ?? what,
    });
  };
  const shape: number[] = [];
  let id = 0;
  let isExternal = false;
  let docString: string | undefined;
  for (const field of fields) {
    if (field.number === TENSOR_PROTO.dims) {
      for (const size of reader.integers(field)) {
        if (typeof size === "bigint" || size < 0) refuse(`has a dimension of ${size}`);
        if (shape.length >= MAX_RANK) refuse(`has more than ${MAX_RANK} dimensions`, "format.limit");
        shape.push(Number(size));
      }
    } else if (field.number === TENSOR_PROTO.dataType) id = reader.small(field);
    else if (field.number === TENSOR_PROTO.docString) docString = reader.text(field);
    else if (field.number === TENSOR_PROTO.dataLocation) isExternal = reader.small(field) === EXTERNAL;
    else if (field.number === TENSOR_PROTO.segment) {
      throw new UnsupportedError("unsupported.encoding", `${reader.name}: tensor ${name ?? what} is one segment of several`, {
        tensor: name ?? what,
      });
    }
  }
  const dtype = dtypeOfId(id) ?? refuse(`has data type ${id}, which is not known`);
  const count = shape.reduce((product, size) => product * size, 1);
  if (!Number.isSafeInteger(count * Math.max(1, onnxBits(dtype))))
    refuse(`of [${shape.join(", ")}] is larger than any file`, "format.limit");
  const stored = fields.filter(({ number }) => STORAGES.has(number));
  const storages = new Set(stored.map(({ number }) => STORAGES.get(number)!.storage));
  if (storages.size > 1) refuse(`has ${[...storages].join(" and ")}; one of them was to be expected`);
  const [storage] = storages;
  const extras = {
    ...(name !== undefined && { name }),
    ...(docString !== undefined && { docString }),
    ...parseMetadata(reader, fields, TENSOR_PROTO.metadataProps),
    ...(unknownFields && { unknownFields }),
  };
  if (isExternal) {
    if (storage !== undefined) refuse(`is external and has ${storage} as well`);
    if (dtype === "STRING") refuse("is external and of type STRING");
    const entries = parseEntries(reader, fields, TENSOR_PROTO.externalData);
    return { ...context.external.place(name ?? what, entries ?? new Map(), dtype, shape), ...extras };
  }
  if (dtype === "STRING") {
    if (storage !== undefined && storage !== "stringData") refuse(`is of type STRING and stored in ${storage}`);
    if (stored.length !== count) refuse(`has ${stored.length} strings; [${shape.join(", ")}] takes ${count}`, "format.truncated");
    return {
      ...makeStringTensor(
        shape,
        stored.map((field) => reader.bytes(field)),
      ),
      ...extras,
    };
  }
  if (storage !== undefined && storage !== "rawData" && storage !== (STORAGE_OF.get(dtype) ?? "int32Data")) {
    refuse(`is of type ${dtype} and stored in ${storage}`);
  }
  const bytes = onnxByteLength(dtype, shape);
  const place = storage === "rawData" || storage === undefined ? rawPlace(reader, stored) : numberPlace(reader, stored, dtype, count);
  if (place.bytes !== bytes) {
    refuse(`holds ${place.bytes} bytes of ${storage ?? "data"}; ${dtype} [${shape.join(", ")}] takes ${bytes}`, "format.truncated");
  }
  return { ...lazy(context, range, place, dtype, shape, bytes), ...extras };
}

/** Bytes that the elements take in raw form, and the run of the file that holds exactly them, if one does. */
interface Place {
  readonly bytes: number;
  readonly run?: Range;
}

function rawPlace(reader: WireReader, stored: readonly WireField[]): Place {
  const field = stored.at(-1);
  if (field === undefined) return { bytes: 0, run: { start: 0, end: 0 } };
  if (field.wireType !== LENGTH_DELIMITED) throw reader.broken(field.at, "raw_data is not stored as bytes");
  return { bytes: field.end - field.start, run: field };
}

function numberPlace(reader: WireReader, stored: readonly WireField[], dtype: OnnxDType, count: number): Place {
  const { fixed } = STORAGES.get(stored[0]!.number)!;
  let numbers = 0;
  for (const field of stored) {
    if (field.wireType === LENGTH_DELIMITED) {
      if (fixed > 0) {
        if ((field.end - field.start) % fixed !== 0) throw reader.broken(field.at, "a packed field ends inside a number");
        numbers += (field.end - field.start) / fixed;
      } else for (const _ of reader.varints(field)) numbers++;
    } else if (field.wireType === (fixed === 4 ? FIXED32 : fixed === 8 ? FIXED64 : VARINT)) numbers++;
    else throw reader.broken(field.at, "elements of a tensor are stored as something else");
  }
  const run = fixed > 0 && stored.length === 1 && stored[0]!.wireType === LENGTH_DELIMITED ? { run: stored[0]! } : {};
  const perNumber = bytesPerNumber(dtype);
  // Whole bytes of packed types are counted; a number that is missing or too many shows either way.
  return {
    bytes: numbers === Math.ceil((count * onnxBits(dtype)) / 8 / perNumber) ? onnxByteLength(dtype, [count]) : numbers * perNumber,
    ...run,
  };
}

/** Raw bytes that one stored number stands for: complex elements take two numbers, packed ones share one. */
function bytesPerNumber(dtype: OnnxDType): number {
  if (dtype === "C64") return 4;
  if (dtype === "C128") return 8;
  return Math.max(1, onnxBits(dtype) / 8);
}

function lazy(
  context: TensorContext,
  message: Range,
  { run }: Place,
  dtype: OnnxDType,
  shape: readonly number[],
  byteLength: number,
): OnnxTensor {
  const { reader, memory, path } = context;
  if (run === undefined) {
    const read = async (): Promise<Uint8Array> => {
      const inner = await context.read(message);
      return unpackNumbers(inner, dtype, byteLength);
    };
    if (memory === undefined && byteLength > EAGER_BYTES) return { dtype, shape, byteLength, read };
    const bytes = unpackNumbers(reader.bytes(message), dtype, byteLength);
    return { dtype, shape, byteLength, bytes, read: async () => bytes.slice() };
  }
  if (memory !== undefined) {
    const bytes = memory.subarray(run.start, run.end);
    return { dtype, shape, byteLength, bytes, read: async () => bytes.slice() };
  }
  const location = path === undefined ? {} : { location: { path, offset: run.start } };
  if (byteLength > EAGER_BYTES) return { dtype, shape, byteLength, read: () => context.read(run), ...location };
  const bytes = reader.bytes(run);
  return { dtype, shape, byteLength, bytes, read: async () => bytes.slice(), ...location };
}
