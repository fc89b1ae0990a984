/**
 * One tensor in bytes: a head (classes or a table, and an index of the blocks), then the blocks.
 *
 * | byte | type | meaning |
 * |---|---|---|
 * | 0 | u8 | 0 raw, 1 floats with classes, 2 bytes with a table |
 * | 1 | u8 | 0 none, 1 `max`, 2 `fast` |
 * | 2 | u8 | floats: parameter of the row classes (`class-bits.ts`); bytes: first symbol of the table |
 * | 3 | u8 | floats: the same of the columns, 255 when columns have no classes; bytes: last symbol |
 * | 4 | i16 | floats: base of the row classes |
 * | 6 | i16 | floats: base of the column classes |
 * | 8 | u32 | bytes of the head, a multiple of 4 |
 * | 12 | | floats: classes of rows, then of columns (`class-bits.ts`); bytes: 12-bit frequencies, lowest bit first, in whole words |
 * | | u32, u32 | by block: bytes (a multiple of 4), checksum of the decoded elements |
 *
 * Raw tensors have u32 checksums alone, one for 262,144 bytes, and then their bytes, in whole words.
 * @module
 */
import { byteLength, type DType } from "../../../core/dtype.ts";
import { FormatError } from "../../../core/errors.ts";
import { blockBytes, wholeWords, type CompactLevel } from "./block.ts";
import { chooseClassCode, encodeClasses, readClasses } from "./class-bits.ts";
import { MAX_COLUMN_CLASS, MAX_ROW_CLASS, MIN_ROWS_FOR_COLUMNS, type Classes } from "./classes.ts";
import type { BlockCoder } from "./coder.ts";
import { TABLE_SIZE } from "./frequencies.ts";
import { FLOAT_TABLES, type TensorModel } from "./symbols.ts";
import { createCodeTable, fitFrequencies } from "./table.ts";
import { viewMatrix, type MatrixView } from "./view.ts";

export const HEAD_BYTES = 12;
/** Bytes of a raw tensor that share a checksum. */
export const RAW_PIECE = 262144;
/** Tensors smaller than this are coded with `fast`: eight states would cost more than they save. */
const SMALL = 4096;
const NO_COLUMNS = 255;
const LEVEL_CODES = ["none", "max", "fast"] as const;

/** A tensor's head, checked. */
export interface PayloadHead {
  readonly mode: "raw" | "coded";
  readonly level: CompactLevel;
  /** Absent for raw tensors. */
  readonly coded?: { readonly view: MatrixView; readonly model: TensorModel };
  /** Bytes before the first block. */
  readonly headBytes: number;
  /** By block (or raw piece): where it starts in the payload; one more entry than blocks. */
  readonly starts: Float64Array;
  readonly checksums: Uint32Array;
}

/** Encodes one tensor. @returns the payload in pieces, to be written one after the other. */
export function encodePayload(
  dtype: DType,
  shape: readonly number[],
  bytes: Uint8Array,
  level: CompactLevel,
  coder: BlockCoder,
): readonly Uint8Array[] {
  const view = viewMatrix(dtype, shape);
  const raw = (): readonly Uint8Array[] => rawPayload(bytes, coder);
  if (view === undefined) return raw();
  const plan = view.kind === "bytes" ? planBytes(bytes, coder) : planFloats(view, bytes, coder);
  if (plan === undefined) return raw();
  const used = view.rows * view.cols < SMALL ? "fast" : level;
  const index = new Uint8Array(8 * view.blocks);
  const numbers = new DataView(index.buffer);
  const blocks: Uint8Array[] = [];
  for (let b = 0, at = 0; b < view.blocks; b++) {
    const part = bytes.subarray(at, (at += blockBytes(view, b)));
    const { block, checksum } = coder.encodeBlock(view, plan.model, used, b, part);
    numbers.setUint32(8 * b, block.length, true);
    numbers.setUint32(8 * b + 4, checksum, true);
    blocks.push(block);
  }
  const head = new Uint8Array(HEAD_BYTES + plan.tables.length + index.length);
  head.set(plan.head);
  head[1] = LEVEL_CODES.indexOf(used);
  new DataView(head.buffer).setUint32(8, head.length, true);
  head.set(plan.tables, HEAD_BYTES);
  head.set(index, HEAD_BYTES + plan.tables.length);
  const total = blocks.reduce((sum, block) => sum + block.length, head.length);
  return total < rawPayloadBytes(bytes.length) ? [head, ...blocks] : raw();
}

const rawPayloadBytes = (bytes: number): number => HEAD_BYTES + 4 * Math.ceil(bytes / RAW_PIECE) + wholeWords(bytes);

function rawPayload(bytes: Uint8Array, coder: BlockCoder): readonly Uint8Array[] {
  const pieces = Math.ceil(bytes.length / RAW_PIECE);
  const head = new Uint8Array(HEAD_BYTES + 4 * pieces);
  const numbers = new DataView(head.buffer);
  numbers.setUint32(8, head.length, true);
  for (let p = 0; p < pieces; p++) {
    numbers.setUint32(HEAD_BYTES + 4 * p, coder.checksum(bytes.subarray(p * RAW_PIECE, (p + 1) * RAW_PIECE)), true);
  }
  return [head, bytes, new Uint8Array(wholeWords(bytes.length) - bytes.length)];
}

interface Plan {
  readonly head: readonly number[];
  readonly tables: Uint8Array;
  readonly model: TensorModel;
}

function planFloats(view: MatrixView, bytes: Uint8Array, coder: BlockCoder): Plan {
  const classes = coder.fitClasses(view, bytes);
  const row = chooseClassCode(classes.rows);
  const column = chooseClassCode(classes.columns);
  const hasColumns = view.rows >= MIN_ROWS_FOR_COLUMNS;
  const bases = new Uint8Array(Int16Array.of(row.base, hasColumns ? column.base : 0).buffer);
  return {
    head: [1, 0, row.parameter, hasColumns ? column.parameter : NO_COLUMNS, ...bases],
    tables: encodeClasses([[classes.rows, row], ...(hasColumns ? ([[classes.columns, column]] as const) : [])]),
    model: { classes, tables: FLOAT_TABLES },
  };
}

/** @returns undefined when a table would save less than one byte in 64. */
function planBytes(bytes: Uint8Array, coder: BlockCoder): Plan | undefined {
  const counts = coder.countBytes(bytes);
  const frequencies = fitFrequencies(counts);
  let bits = 0;
  for (let s = 0; s < 256; s++) if (counts[s]! > 0) bits += counts[s]! * Math.log2(TABLE_SIZE / frequencies[s]!);
  if (bits / 8 > (bytes.length * 63) / 64) return undefined;
  const first = frequencies.findIndex((f) => f > 0);
  const last = frequencies.findLastIndex((f) => f > 0);
  const tables = new Uint8Array(wholeWords(((last - first + 1) * 12) / 8));
  for (let s = first; s <= last; s++) {
    const bit = 12 * (s - first);
    const word = frequencies[s]! << (bit % 8);
    tables[bit >> 3]! |= word & 0xff;
    tables[(bit >> 3) + 1]! |= word >> 8;
  }
  return { head: [2, 0, first, last, 0, 0, 0, 0], tables, model: bytesModel(frequencies) };
}

function bytesModel(frequencies: Uint16Array): TensorModel {
  return { classes: { rows: new Int16Array(0), columns: new Int16Array(0) }, tables: [createCodeTable(frequencies)] };
}

/** Bytes of the head, from its first twelve. @throws {FormatError} `format.field` when it cannot be the head of a payload of that length. */
export function headLength(name: string, first: Uint8Array, payloadBytes: number): number {
  const headBytes = new DataView(first.buffer, first.byteOffset).getUint32(8, true);
  if (headBytes < HEAD_BYTES || headBytes > payloadBytes || headBytes % 4 !== 0) {
    throw new FormatError("format.field", `tensor ${name}: a head of ${headBytes} bytes in ${payloadBytes}`, { tensor: name, headBytes });
  }
  return headBytes;
}

/**
 * Reads a head. On success the blocks fill the payload exactly.
 *
 * @param head - `headLength` bytes.
 * @throws {FormatError} `format.field`, `format.truncated`.
 */
export function parseHead(name: string, dtype: DType, shape: readonly number[], head: Uint8Array, payloadBytes: number): PayloadHead {
  const fail = (text: string): FormatError => new FormatError("format.field", `tensor ${name}: ${text}`, { tensor: name });
  const numbers = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const [mode, levelCode] = [head[0]!, head[1]!];
  if (mode === 0) return parseRaw(name, byteLength(dtype, shape), head, payloadBytes);
  const view = viewMatrix(dtype, shape);
  if (view === undefined || mode > 2 || (mode === 2) !== (view.kind === "bytes")) {
    throw fail(`mode ${mode} is not one for ${dtype} of shape ${JSON.stringify(shape).slice(0, 100)}`);
  }
  if (levelCode !== 1 && levelCode !== 2) throw fail(`level ${levelCode} is unknown; known: 1 (max), 2 (fast)`);
  const indexAt = head.length - 8 * view.blocks;
  if (indexAt < HEAD_BYTES) throw fail(`a head of ${head.length} bytes is too short for the index of ${view.blocks} blocks`);
  // A class takes a bit at least: nothing larger than the file is made.
  if (mode === 1 && view.rows > 8 * (indexAt - HEAD_BYTES)) throw fail(`${view.rows} row classes in ${indexAt - HEAD_BYTES} bytes`);
  const tables = head.subarray(HEAD_BYTES, indexAt);
  const model = mode === 1 ? parseClasses(name, head, tables, view, fail) : parseFrequencies(head, tables, fail);
  const starts = new Float64Array(view.blocks + 1);
  const checksums = new Uint32Array(view.blocks);
  let at = head.length;
  for (let b = 0; b < view.blocks; b++) {
    starts[b] = at;
    const length = numbers.getUint32(indexAt + 8 * b, true);
    if (length % 4 !== 0 || length > wholeWords(blockBytes(view, b))) throw fail(`block ${b} cannot have ${length} bytes`);
    at += length;
    checksums[b] = numbers.getUint32(indexAt + 8 * b + 4, true);
  }
  starts[view.blocks] = at;
  if (at !== payloadBytes) throw fail(`its blocks end at byte ${at}, the tensor at byte ${payloadBytes}`);
  return { mode: "coded", level: LEVEL_CODES[levelCode], coded: { view, model }, headBytes: head.length, starts, checksums };
}

function parseRaw(name: string, bytes: number, head: Uint8Array, payloadBytes: number): PayloadHead {
  const pieces = Math.ceil(bytes / RAW_PIECE);
  if (payloadBytes !== rawPayloadBytes(bytes) || head.length !== HEAD_BYTES + 4 * pieces) {
    throw new FormatError("format.field", `tensor ${name}: ${payloadBytes} bytes hold no raw tensor of ${bytes}`, { tensor: name });
  }
  const numbers = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const starts = Float64Array.from({ length: pieces + 1 }, (_, p) => head.length + Math.min(p * RAW_PIECE, bytes));
  const checksums = Uint32Array.from({ length: pieces }, (_, p) => numbers.getUint32(HEAD_BYTES + 4 * p, true));
  return { mode: "raw", level: "max", headBytes: head.length, starts, checksums };
}

function parseClasses(
  name: string,
  head: Uint8Array,
  bits: Uint8Array,
  view: MatrixView,
  fail: (text: string) => FormatError,
): TensorModel {
  const numbers = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const [rowCode, columnCode] = [head[2]!, head[3]!];
  const hasColumns = columnCode !== NO_COLUMNS;
  const reader = readClasses(name, bits);
  const rows = reader.read(view.rows, { base: numbers.getInt16(4, true), parameter: rowCode }, 0, MAX_ROW_CLASS);
  const columns: Classes["columns"] = hasColumns
    ? reader.read(view.cols, { base: numbers.getInt16(6, true), parameter: columnCode }, -MAX_COLUMN_CLASS, MAX_COLUMN_CLASS)
    : new Int16Array(view.cols);
  if (reader.used() !== bits.length) throw fail(`its classes take ${reader.used()} bytes, not ${bits.length}`);
  return { classes: { rows, columns }, tables: FLOAT_TABLES };
}

function parseFrequencies(head: Uint8Array, packed: Uint8Array, fail: (text: string) => FormatError): TensorModel {
  const [first, last] = [head[2]!, head[3]!];
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

/**
 * Decodes and checks blocks `from` to `to` (exclusive).
 *
 * @param bytes - of those blocks, one after the other.
 * @param out - receives their elements.
 * @throws {FormatError} `format.checksum` when a block's elements are not those that were encoded; `format.field`.
 */
export function decodeBlocks(
  name: string,
  { coded, level, starts, checksums }: PayloadHead,
  from: number,
  to: number,
  bytes: Uint8Array,
  coder: BlockCoder,
  out: Uint8Array,
): void {
  for (let b = from, at = 0; b < to; b++) {
    const block = bytes.subarray(starts[b]! - starts[from]!, starts[b + 1]! - starts[from]!);
    const part = out.subarray(at, (at += coded === undefined ? block.length : blockBytes(coded.view, b)));
    let found: number;
    if (coded === undefined) {
      part.set(block);
      found = coder.checksum(part);
    } else found = coder.decodeBlock(`tensor ${name}, block ${b}`, coded.view, coded.model, level, b, block, part);
    if (found !== checksums[b]) {
      throw new FormatError(
        "format.checksum",
        `tensor ${name}: block ${b} decodes to other elements than were encoded; the file is damaged`,
        {
          tensor: name,
          block: b,
          expected: checksums[b],
          found,
        },
      );
    }
  }
}
