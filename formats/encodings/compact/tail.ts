/**
 * The end of a tensor's payload: what a decoder must know before it can read blocks. It is last, so that a tensor is written while it is read.
 *
 * | byte | type | meaning |
 * |---|---|---|
 * | | | floats: classes of rows, then of columns (`class-bits.ts`); bytes: 12-bit frequencies, lowest bit first; both in whole words |
 * | | u32 × (blocks - 1) | bytes of each block but the last, multiples of 4 |
 * | | u32 × blocks | checksums of the decoded elements |
 * | -12 | u8 | 0 raw, 1 floats with classes, 2 bytes with a table, 3 a progression |
 * | -11 | u8 | 0 none, 1 `max`, 2 `fast` |
 * | -10 | u8 | floats: parameter of the row classes (`class-bits.ts`); bytes: first symbol of the table |
 * | -9 | u8 | floats: the same of the columns, 255 when columns have no classes; bytes: last symbol |
 * | -8 | i16 | floats: base of the row classes |
 * | -6 | i16 | floats: base of the column classes |
 * | -4 | u32 | bytes of the tail, a multiple of 4 |
 *
 * Raw tensors have checksums alone, one for 262,144 bytes. A progression has u64 first, u64 step and one checksum, and nothing before the tail.
 * @module
 */
import { byteLength, type DType } from "../../../core/dtype.ts";
import { FormatError } from "../../../core/errors.ts";
import { blockBytes, wholeWords, type CompactLevel } from "./block.ts";
import { chooseClassCode, encodeClasses, readClasses } from "./class-bits.ts";
import { MAX_COLUMN_CLASS, MAX_ROW_CLASS, MIN_ROWS_FOR_COLUMNS, type Classes } from "./classes.ts";
import { TABLE_SIZE } from "./frequencies.ts";
import { MAX_PROGRESSION_BYTES, type Progression } from "./progression.ts";
import { FLOAT_TABLES, type TensorModel } from "./symbols.ts";
import { createCodeTable } from "./table.ts";
import { viewMatrix, type MatrixView } from "./view.ts";

/** Bytes at the very end, the same for every tensor. */
export const TAIL_BYTES = 12;
/** Bytes of a raw tensor that share a checksum. */
export const RAW_PIECE = 262144;
const PROGRESSION_BYTES = 20;
const NO_COLUMNS = 255;
const LEVEL_CODES = ["none", "max", "fast"] as const;

/** A tensor's tail, checked. */
export interface PayloadTail {
  readonly dtype: DType;
  readonly level: CompactLevel;
  /** For tensors of blocks; without it and `progression` the tensor is raw. */
  readonly coded?: { readonly view: MatrixView; readonly model: TensorModel };
  readonly progression?: Progression;
  /** Bytes behind the last block. */
  readonly tailBytes: number;
  /** Decoded bytes of each block (or raw piece) but the last. */
  readonly unitBytes: number;
  /** By block (or raw piece): where it starts in the payload; one more entry than blocks. */
  readonly starts: Float64Array;
  readonly checksums: Uint32Array;
}

/** What blocks were encoded to. */
export interface BlockIndex {
  readonly lengths: readonly number[];
  readonly checksums: readonly number[];
}

function joinTail(tables: Uint8Array, lengths: readonly number[], checksums: readonly number[], fixed: readonly number[]): Uint8Array {
  const index = Uint32Array.from([...lengths, ...checksums]);
  const out = new Uint8Array(tables.length + index.byteLength + TAIL_BYTES);
  const numbers = new DataView(out.buffer);
  out.set(tables);
  index.forEach((value, i) => numbers.setUint32(tables.length + 4 * i, value, true));
  out.set(fixed, out.length - TAIL_BYTES);
  numbers.setUint32(out.length - 4, out.length, true);
  return out;
}

export function encodeFloatTail(view: MatrixView, level: CompactLevel, classes: Classes, { lengths, checksums }: BlockIndex): Uint8Array {
  const row = chooseClassCode(classes.rows);
  const column = chooseClassCode(classes.columns);
  const hasColumns = view.rows >= MIN_ROWS_FOR_COLUMNS;
  const bases = new Uint8Array(4);
  new DataView(bases.buffer).setInt16(0, row.base, true);
  new DataView(bases.buffer).setInt16(2, hasColumns ? column.base : 0, true);
  return joinTail(
    encodeClasses([[classes.rows, row], ...(hasColumns ? ([[classes.columns, column]] as const) : [])]),
    lengths.slice(0, -1),
    checksums,
    [1, LEVEL_CODES.indexOf(level), row.parameter, hasColumns ? column.parameter : NO_COLUMNS, ...bases],
  );
}

export function encodeBytesTail(level: CompactLevel, frequencies: Uint16Array, { lengths, checksums }: BlockIndex): Uint8Array {
  const first = frequencies.findIndex((f) => f > 0);
  const last = frequencies.findLastIndex((f) => f > 0);
  const tables = new Uint8Array(wholeWords(((last - first + 1) * 12) / 8));
  for (let s = first; s <= last; s++) {
    const bit = 12 * (s - first);
    const word = frequencies[s]! << (bit % 8);
    tables[bit >> 3]! |= word & 0xff;
    tables[(bit >> 3) + 1]! |= word >> 8;
  }
  return joinTail(tables, lengths.slice(0, -1), checksums, [2, LEVEL_CODES.indexOf(level), first, last]);
}

/** @param checksums - of each 262,144 bytes. */
export function encodeRawTail(checksums: readonly number[]): Uint8Array {
  return joinTail(new Uint8Array(0), [], checksums, [0]);
}

export function encodeProgressionTail({ first, step }: Progression, checksum: number): Uint8Array {
  const numbers = new Uint8Array(BigUint64Array.of(first, step).buffer);
  return joinTail(numbers, [], [checksum], [3]);
}

export function bytesModel(frequencies: Uint16Array): TensorModel {
  return { classes: { rows: new Int16Array(0), columns: new Int16Array(0) }, tables: [createCodeTable(frequencies)] };
}

/** Bytes of the tail, from the payload's last twelve. @throws {FormatError} `format.field` when it cannot be the tail of a payload of that length. */
export function tailLength(name: string, last: Uint8Array, payloadBytes: number): number {
  if (last.length < TAIL_BYTES)
    throw new FormatError("format.field", `tensor ${name}: ${payloadBytes} bytes hold no tensor`, { tensor: name });
  const tailBytes = new DataView(last.buffer, last.byteOffset + last.length - 4).getUint32(0, true);
  if (tailBytes < TAIL_BYTES || tailBytes > payloadBytes || tailBytes % 4 !== 0) {
    throw new FormatError("format.field", `tensor ${name}: a tail of ${tailBytes} bytes in ${payloadBytes}`, { tensor: name, tailBytes });
  }
  return tailBytes;
}

/**
 * Reads a tail. On success the blocks fill the payload exactly.
 *
 * @param tail - `tailLength` bytes.
 * @throws {FormatError} `format.field`, `format.truncated`.
 */
export function parseTail(name: string, dtype: DType, shape: readonly number[], tail: Uint8Array, payloadBytes: number): PayloadTail {
  const fail = (text: string): FormatError => new FormatError("format.field", `tensor ${name}: ${text}`, { tensor: name });
  const numbers = new DataView(tail.buffer, tail.byteOffset, tail.byteLength);
  const fixed = tail.subarray(-TAIL_BYTES);
  const [mode, levelCode] = [fixed[0]!, fixed[1]!];
  if (mode === 0) return parseRaw(name, dtype, byteLength(dtype, shape), numbers, payloadBytes);
  if (mode === 3) return parseProgression(dtype, byteLength(dtype, shape), numbers, payloadBytes, fail);
  const view = viewMatrix(dtype, shape);
  if (view === undefined || mode > 3 || (mode === 2) !== (view.kind === "bytes")) {
    throw fail(`mode ${mode} is not one for ${dtype} of shape ${JSON.stringify(shape).slice(0, 100)}`);
  }
  if (levelCode !== 1 && levelCode !== 2) throw fail(`level ${levelCode} is unknown; known: 1 (max), 2 (fast)`);
  const checksumsAt = tail.length - TAIL_BYTES - 4 * view.blocks;
  const lengthsAt = checksumsAt - 4 * (view.blocks - 1);
  if (lengthsAt < 0) throw fail(`a tail of ${tail.length} bytes is too short for the index of ${view.blocks} blocks`);
  // A class takes a bit at least: nothing larger than the file is made.
  if (mode === 1 && view.rows > 8 * lengthsAt) throw fail(`${view.rows} row classes in ${lengthsAt} bytes`);
  const tables = tail.subarray(0, lengthsAt);
  const model = mode === 1 ? parseClasses(name, fixed, tables, view, fail) : parseFrequencies(fixed, tables, fail);
  const starts = new Float64Array(view.blocks + 1);
  const checksums = new Uint32Array(view.blocks);
  const end = payloadBytes - tail.length;
  let at = 0;
  for (let b = 0; b < view.blocks; b++) {
    starts[b] = at;
    const length = b + 1 < view.blocks ? numbers.getUint32(lengthsAt + 4 * b, true) : end - at;
    if (length < 0 || length % 4 !== 0 || length > wholeWords(blockBytes(view, b))) throw fail(`block ${b} cannot have ${length} bytes`);
    at += length;
    checksums[b] = numbers.getUint32(checksumsAt + 4 * b, true);
  }
  starts[view.blocks] = at;
  const unitBytes = blockBytes(view, 0);
  return { dtype, level: LEVEL_CODES[levelCode], coded: { view, model }, tailBytes: tail.length, unitBytes, starts, checksums };
}

export const rawPayloadBytes = (bytes: number): number => wholeWords(bytes) + 4 * Math.ceil(bytes / RAW_PIECE) + TAIL_BYTES;

function parseRaw(name: string, dtype: DType, bytes: number, numbers: DataView, payloadBytes: number): PayloadTail {
  const pieces = Math.ceil(bytes / RAW_PIECE);
  if (payloadBytes !== rawPayloadBytes(bytes) || numbers.byteLength !== TAIL_BYTES + 4 * pieces) {
    throw new FormatError("format.field", `tensor ${name}: ${payloadBytes} bytes hold no raw tensor of ${bytes}`, { tensor: name });
  }
  const starts = Float64Array.from({ length: pieces + 1 }, (_, p) => Math.min(p * RAW_PIECE, bytes));
  const checksums = Uint32Array.from({ length: pieces }, (_, p) => numbers.getUint32(4 * p, true));
  return { dtype, level: "max", tailBytes: numbers.byteLength, unitBytes: RAW_PIECE, starts, checksums };
}

function parseProgression(
  dtype: DType,
  bytes: number,
  numbers: DataView,
  payloadBytes: number,
  fail: (text: string) => FormatError,
): PayloadTail {
  if (bytes > MAX_PROGRESSION_BYTES) throw fail(`${bytes} bytes are more than a progression may stand for (${MAX_PROGRESSION_BYTES})`);
  if (numbers.byteLength !== PROGRESSION_BYTES + TAIL_BYTES || payloadBytes !== numbers.byteLength)
    throw fail(`${payloadBytes} bytes hold no progression`);
  const progression = { first: numbers.getBigUint64(0, true), step: numbers.getBigUint64(8, true) };
  return {
    dtype,
    level: "max",
    progression,
    tailBytes: numbers.byteLength,
    unitBytes: Math.max(1, bytes),
    starts: Float64Array.of(0, 0),
    checksums: Uint32Array.of(numbers.getUint32(16, true)),
  };
}

function parseClasses(
  name: string,
  fixed: Uint8Array,
  bits: Uint8Array,
  view: MatrixView,
  fail: (text: string) => FormatError,
): TensorModel {
  const numbers = new DataView(fixed.buffer, fixed.byteOffset, fixed.byteLength);
  const [rowCode, columnCode] = [fixed[2]!, fixed[3]!];
  const hasColumns = columnCode !== NO_COLUMNS;
  const reader = readClasses(name, bits);
  const rows = reader.read(view.rows, { base: numbers.getInt16(4, true), parameter: rowCode }, 0, MAX_ROW_CLASS);
  const columns: Classes["columns"] = hasColumns
    ? reader.read(view.cols, { base: numbers.getInt16(6, true), parameter: columnCode }, -MAX_COLUMN_CLASS, MAX_COLUMN_CLASS)
    : new Int16Array(view.cols);
  if (reader.used() !== bits.length) throw fail(`its classes take ${reader.used()} bytes, not ${bits.length}`);
  return { classes: { rows, columns }, tables: FLOAT_TABLES };
}

function parseFrequencies(fixed: Uint8Array, packed: Uint8Array, fail: (text: string) => FormatError): TensorModel {
  const [first, last] = [fixed[2]!, fixed[3]!];
  if (last < first || packed.length !== wholeWords(((last - first + 1) * 12) / 8)) {
    throw fail(`a table for symbols ${first} to ${last} does not have ${packed.length} bytes`);
  }
  const frequencies = new Uint16Array(256);
  let sum = 0;
  for (let s = first; s <= last; s++) {
    const bit = 12 * (s - first);
    frequencies[s] = ((packed[bit >> 3]! | ((packed[(bit >> 3) + 1] ?? 0) << 8)) >> (bit % 8)) & 0xfff;
    sum += frequencies[s]!;
  }
  // A sum of 4096 with 12 bits each means two symbols at least.
  if (sum !== TABLE_SIZE) throw fail(`the frequencies sum to ${sum}, not ${TABLE_SIZE}`);
  return bytesModel(frequencies);
}
