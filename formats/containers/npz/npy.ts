/**
 * `.npy`: one array behind a header that is a Python dictionary literal (NumPy format versions 1.0 to 3.0,
 * numpy.lib.format).
 * @module
 */
import { byteLength, type DType } from "../../../core/dtype.ts";
import { FormatError, UnsupportedError } from "../../../core/errors.ts";
import type { Tensor } from "../../../core/tensor.ts";

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59] as const;
/** The header of an array needs a hundred bytes or so. */
const MAX_HEADER = 2 ** 16;
const MAX_AXES = 32;
/** Headers are padded so that data starts at a multiple of this. */
const ALIGNMENT = 64;

/** NumPy's little-endian type strings. */
const DESCRIPTORS: ReadonlyMap<string, DType> = new Map([
  ["<f8", "F64"],
  ["<f4", "F32"],
  ["<f2", "F16"],
  ["<i8", "I64"],
  ["<i4", "I32"],
  ["<i2", "I16"],
  ["|i1", "I8"],
  ["<u8", "U64"],
  ["<u4", "U32"],
  ["<u2", "U16"],
  ["|u1", "U8"],
  ["|b1", "BOOL"],
]);

/** `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }` and nothing else; keys in any order. */
const ENTRY = /^\s*'(descr|fortran_order|shape)'\s*:\s*('[^']*'|True|False|\((?:\s*\d+\s*(?:,|(?=\))))*\s*\))\s*(?:,|$)/;

/** What the header of an array says, and where its data begins. */
export interface NpyHeader {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly start: number;
}

/**
 * @param bytes - the beginning of the file, its header at least.
 * @param where - for messages: file and entry.
 * @throws as {@link parseNpy}.
 */
export function parseNpyHeader(bytes: Uint8Array, where: string): NpyHeader {
  if (bytes.byteLength < 10 || MAGIC.some((byte, i) => bytes[i] !== byte)) {
    throw new FormatError("format.magic", `${where} is not a .npy array: it does not begin with \\x93NUMPY`, { where });
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = bytes[6]!;
  if (version < 1 || version > 3)
    throw new FormatError("format.field", `${where} has .npy version ${version}; 1 to 3 are known`, { where });
  const start = version === 1 ? 10 : 12;
  if (bytes.byteLength < start) throw truncated(where, bytes.byteLength, start);
  const length = version === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (length > MAX_HEADER) {
    throw new FormatError("format.limit", `${where}: the header takes ${length} bytes; at most ${MAX_HEADER} are read`, { where, length });
  }
  if (bytes.byteLength < start + length) throw truncated(where, bytes.byteLength, start + length);
  const header = parseHeader(new TextDecoder("latin1").decode(bytes.subarray(start, start + length)), where);
  return { ...header, start: start + length };
}

/**
 * @param where - for messages: file and entry.
 * @returns a view into `bytes`.
 * @throws {FormatError} `format.magic`, `format.field`, `format.truncated`, `format.limit`.
 * @throws {UnsupportedError} `unsupported.dtype` for other types and big-endian ones, `unsupported.format` for column-major order.
 */
export function parseNpy(bytes: Uint8Array, where: string): Tensor {
  const { dtype, shape, start } = parseNpyHeader(bytes, where);
  const size = byteLength(dtype, shape);
  const held = bytes.byteLength - start;
  if (held !== size) {
    throw new FormatError("format.truncated", `${where}: ${dtype} [${shape.join(", ")}] takes ${size} bytes, ${held} are there`, {
      where,
      size,
      held,
    });
  }
  return { dtype, shape, bytes: bytes.subarray(start) };
}

function truncated(where: string, held: number, wanted: number): FormatError {
  return new FormatError("format.truncated", `${where} ends at byte ${held}, inside its header of ${wanted}`, { where, held, wanted });
}

function parseHeader(text: string, where: string): { readonly dtype: DType; readonly shape: readonly number[] } {
  const wrong = (why: string): FormatError => new FormatError("format.field", `${where}: ${why} in the .npy header`, { where });
  const body = /^\s*\{(.*)\}\s*$/s.exec(text)?.[1];
  if (body === undefined) throw wrong("no dictionary");
  const fields = new Map<string, string>();
  for (let rest = body; rest.trim() !== "";) {
    const match = ENTRY.exec(rest);
    if (match === null) throw wrong(`unexpected ${JSON.stringify(rest.trim().slice(0, 40))}`);
    if (fields.has(match[1]!)) throw wrong(`${match[1]} twice`);
    fields.set(match[1]!, match[2]!);
    rest = rest.slice(match[0].length);
  }
  const [descriptor, order, shapeText] = [fields.get("descr"), fields.get("fortran_order"), fields.get("shape")];
  if (descriptor?.startsWith("'") !== true || (order !== "True" && order !== "False") || shapeText?.startsWith("(") !== true) {
    throw wrong("descr, fortran_order and shape are not all");
  }
  const type = descriptor.slice(1, -1);
  const dtype = DESCRIPTORS.get(type);
  if (dtype === undefined) {
    throw new UnsupportedError("unsupported.dtype", `${where} holds ${type}; readable: ${[...DESCRIPTORS.keys()].join(", ")}`, {
      where,
      type,
    });
  }
  const shape = shapeText
    .slice(1, -1)
    .split(",")
    .map((axis) => axis.trim())
    .filter((axis) => axis !== "")
    .map(Number);
  if (shape.length > MAX_AXES || !Number.isSafeInteger(shape.reduce((product, axis) => product * axis, 8)))
    throw wrong(`shape ${shapeText.slice(0, 60)} is too large`);
  if (order === "True" && shape.filter((axis) => axis > 1).length > 1) {
    throw new UnsupportedError("unsupported.format", `${where} is stored column by column; save np.ascontiguousarray(x) instead`, {
      where,
    });
  }
  return { dtype, shape };
}

/** The array as a `.npy` file, version 1.0. @throws {UnsupportedError} `unsupported.dtype` for types NumPy lacks. */
export function npyBytes({ dtype, shape, bytes }: Tensor, where: string): Uint8Array {
  const descriptor = [...DESCRIPTORS].find(([, known]) => known === dtype)?.[0];
  if (descriptor === undefined) {
    throw new UnsupportedError("unsupported.dtype", `${where} is ${dtype}, which NumPy has no type for; convert it to F32`, {
      where,
      dtype,
    });
  }
  const axes = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const fields = `{'descr': '${descriptor}', 'fortran_order': False, 'shape': (${axes}), }`;
  const total = Math.ceil((10 + fields.length + 1) / ALIGNMENT) * ALIGNMENT;
  const header = `${fields.padEnd(total - 11)}\n`;
  const file = new Uint8Array(total + bytes.byteLength);
  file.set([...MAGIC, 1, 0, header.length & 0xff, header.length >> 8]);
  file.set(new TextEncoder().encode(header), 10);
  file.set(bytes, total);
  return file;
}
