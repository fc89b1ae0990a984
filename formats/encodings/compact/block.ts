/**
 * One block of rows in bytes, at either level. All numbers little-endian, every part in whole words of four bytes.
 *
 * `max` (rANS, eight states; state c mod 8 codes column c, 32 bits, 16-bit words, 12-bit tables):
 *   u16 bytes of escapes (before padding), u16 0 | 8 u32 states to begin with | raw bits | escapes | u16 words in reading order
 * `fast` (Huffman, four streams; row r of the block is in stream r mod 4; bits from the lowest of a byte):
 *   u16 bytes of escapes, 3 u16 lengths of the first three streams in words of four bytes | raw bits | escapes | four streams
 * A block that would not be smaller than its elements holds them as they are, padded: its length says so.
 *
 * This is the definition; `kernels/compact` has its fast twin.
 * @module
 */
import { FormatError } from "../../../core/errors.ts";
import { ESCAPE, RELATIVE_MIN, RELATIVE_ZERO, TABLE_BITS, TABLE_SIZE } from "./frequencies.ts";
import { packRawBits, rawBitsBytes, unpackRawBits } from "./raw-bits.ts";
import { CODED_BITS, escapeReader, tableOf, toSymbols, type TensorModel } from "./symbols.ts";
import { rowsOfBlock, type MatrixView } from "./view.ts";

export type CompactLevel = "max" | "fast";

/** Bytes before the raw bits. */
export const HEADER_BYTES: Readonly<Record<CompactLevel, number>> = { max: 36, fast: 8 };
const LANES = 8;
const STREAMS = 4;
/** States lie in 2^16 .. 2^32 - 1. */
export const STATE_MIN = 65536;
const MAX_ESCAPE_BYTES = 65535;

export const wholeWords = (bytes: number): number => 4 * Math.ceil(bytes / 4);

/** Bytes of block `b` once decoded. */
export function blockBytes(view: MatrixView, b: number): number {
  return rowsOfBlock(view, b) * view.cols * view.elementBytes;
}

/** Encodes block `b` of a tensor. @param bytes - the block's elements. */
export function encodeBlock(view: MatrixView, model: TensorModel, level: CompactLevel, b: number, bytes: Uint8Array): Uint8Array {
  const { kind, cols } = view;
  const rows = rowsOfBlock(view, b);
  const firstRow = b * view.rowsPerBlock;
  const escapes: number[] = [];
  const symbols = new Uint8Array(rows * cols);
  let raw: Uint8Array = new Uint8Array(0);
  if (kind === "bytes") symbols.set(bytes);
  else {
    const patterns = new Uint16Array(new Uint8Array(bytes).buffer);
    raw = packRawBits(kind, patterns);
    for (let r = 0; r < rows; r++) {
      const row = toSymbols(kind, patterns.subarray(r * cols, (r + 1) * cols), model.classes, firstRow + r);
      symbols.set(row.symbols, r * cols);
      for (const byte of row.escapes) escapes.push(byte);
    }
  }
  const coded = level === "max" ? encodeRans(model, symbols, firstRow, rows, cols) : encodeHuffman(model, symbols, firstRow, rows, cols);
  const length = HEADER_BYTES[level] + raw.length + wholeWords(escapes.length) + coded.streams.reduce((sum, { length: n }) => sum + n, 0);
  if (length >= wholeWords(bytes.length) || escapes.length > MAX_ESCAPE_BYTES) {
    const plain = new Uint8Array(wholeWords(bytes.length));
    plain.set(bytes);
    return plain;
  }
  const out = new Uint8Array(length);
  const header = new DataView(out.buffer);
  header.setUint16(0, escapes.length, true);
  if (level === "max") coded.states.forEach((state, lane) => header.setUint32(4 + 4 * lane, state, true));
  else for (let s = 0; s < 3; s++) header.setUint16(2 + 2 * s, coded.streams[s]!.length / 4, true);
  let at = HEADER_BYTES[level];
  out.set(raw, at);
  at += raw.length;
  out.set(escapes, at);
  at += wholeWords(escapes.length);
  for (const stream of coded.streams) {
    out.set(stream, at);
    at += stream.length;
  }
  return out;
}

interface Coded {
  readonly states: readonly number[];
  /** Each in whole words. */
  readonly streams: readonly Uint8Array[];
}

/** From the last symbol to the first: a decoder goes the other way. */
function encodeRans(model: TensorModel, symbols: Uint8Array, firstRow: number, rows: number, cols: number): Coded {
  const states = Array.from({ length: LANES }, () => STATE_MIN);
  const words: number[] = [];
  for (let r = rows - 1; r >= 0; r--) {
    for (let c = cols - 1; c >= 0; c--) {
      const { frequencies, starts } = tableOf(model, firstRow + r, c);
      const symbol = symbols[r * cols + c]!;
      const frequency = frequencies[symbol]!;
      let x = states[c % LANES]!;
      if (x >= frequency * 2 ** 20) {
        words.push(x % 65536);
        x = Math.floor(x / 65536);
      }
      states[c % LANES] = Math.floor(x / frequency) * TABLE_SIZE + (x % frequency) + starts[symbol]!;
    }
  }
  const stream = new Uint8Array(wholeWords(2 * words.length));
  words.toReversed().forEach((word, i) => {
    stream[2 * i] = word & 0xff;
    stream[2 * i + 1] = word >> 8;
  });
  return { states, streams: [stream] };
}

function encodeHuffman(model: TensorModel, symbols: Uint8Array, firstRow: number, rows: number, cols: number): Coded {
  const streams = Array.from({ length: STREAMS }, (): { bytes: number[]; held: number; count: number } => ({
    bytes: [],
    held: 0,
    count: 0,
  }));
  for (let r = 0; r < rows; r++) {
    const stream = streams[r % STREAMS]!;
    for (let c = 0; c < cols; c++) {
      const { codes, lengths } = tableOf(model, firstRow + r, c);
      const symbol = symbols[r * cols + c]!;
      stream.held |= codes[symbol]! << stream.count;
      stream.count += lengths[symbol]!;
      for (; stream.count >= 8; stream.count -= 8) {
        stream.bytes.push(stream.held & 0xff);
        stream.held >>>= 8;
      }
    }
  }
  return {
    states: [],
    streams: streams.map(({ bytes, held, count }) => {
      if (count > 0) bytes.push(held);
      while (bytes.length % 4 !== 0) bytes.push(0);
      return Uint8Array.from(bytes);
    }),
  };
}

/** The parts of a block, their lengths checked. */
export interface BlockParts {
  /** Set when the block holds its elements as they are; nothing else is then. */
  readonly plain?: Uint8Array;
  readonly states: Uint32Array;
  readonly raw: Uint8Array;
  readonly escapes: Uint8Array;
  /** One for `max`, four for `fast`. */
  readonly streams: readonly Uint8Array[];
}

/** Takes a block apart. @throws {FormatError} `format.field` when its parts do not fit its length. */
export function splitBlock(name: string, view: MatrixView, level: CompactLevel, b: number, block: Uint8Array): BlockParts {
  const decoded = blockBytes(view, b);
  const none = new Uint8Array(0);
  const states = new Uint32Array(LANES);
  if (block.length === wholeWords(decoded)) {
    return { plain: block.subarray(0, decoded), states, raw: none, escapes: none, streams: [] };
  }
  const view16 = new DataView(block.buffer, block.byteOffset, block.byteLength);
  const fail = (text: string): FormatError => new FormatError("format.field", `${name}: ${text}`, { block: name });
  let at = HEADER_BYTES[level];
  if (block.length < at) throw fail(`${block.length} bytes are less than its header`);
  const rawBytes = rawBitsBytes(view.kind, rowsOfBlock(view, b) * view.cols);
  const escapeBytes = view16.getUint16(0, true);
  const lengths = level === "fast" ? [2, 4, 6].map((from) => 4 * view16.getUint16(from, true)) : [];
  const fixed = at + rawBytes + wholeWords(escapeBytes) + lengths.reduce((sum, length) => sum + length, 0);
  if (fixed > block.length) throw fail(`its parts take ${fixed} bytes, the block has ${block.length}`);
  const lanes = level === "max" ? LANES : 0;
  for (let lane = 0; lane < lanes; lane++) {
    states[lane] = view16.getUint32(4 + 4 * lane, true);
    if (states[lane]! < STATE_MIN) throw fail(`state ${lane} is ${states[lane]}, below ${STATE_MIN}`);
  }
  const part = (length: number): Uint8Array => block.subarray(at, (at += length));
  const raw = part(rawBytes);
  const escapes = part(wholeWords(escapeBytes)).subarray(0, escapeBytes);
  const streams = lengths.map(part);
  return { states, raw, escapes, streams: [...streams, block.subarray(at)] };
}

/**
 * Decodes block `b` of a tensor.
 *
 * @param name - tensor and block, for messages.
 * @param out - receives the elements.
 * @throws {FormatError} `format.field` when the streams do not end with the elements.
 */
export function decodeBlock(
  name: string,
  view: MatrixView,
  model: TensorModel,
  level: CompactLevel,
  b: number,
  block: Uint8Array,
  out: Uint8Array,
): void {
  const parts = splitBlock(name, view, level, b, block);
  if (parts.plain !== undefined) return out.set(parts.plain);
  const { kind, cols } = view;
  const rows = rowsOfBlock(view, b);
  const firstRow = b * view.rowsPerBlock;
  const next = level === "max" ? ransReader(parts) : huffmanReader(parts);
  const symbols = new Uint8Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) symbols[r * cols + c] = next.symbol(r, c, tableOf(model, firstRow + r, c));
  }
  if (!next.isDone()) throw new FormatError("format.field", `${name}: the stream and the elements end apart`, { block: name });
  if (kind === "bytes") return out.set(symbols);
  const { shift, mask } = CODED_BITS[kind];
  const raw = unpackRawBits(kind, parts.raw, rows * cols);
  const escapes = escapeReader(name, kind, parts.escapes);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const i = r * cols + c;
      const zero = 4 * ((model.classes.rows[firstRow + r]! + model.classes.columns[c]!) >> 2) - RELATIVE_ZERO;
      const symbol = symbols[i]!;
      const coded = symbol === ESCAPE ? escapes.next(zero) : (zero + symbol + RELATIVE_MIN) & mask;
      const pattern = raw[i]! | (coded << shift);
      out[2 * i] = pattern & 0xff;
      out[2 * i + 1] = pattern >> 8;
    }
  }
  if (!escapes.done()) throw new FormatError("format.field", `${name}: more bytes of escapes than escapes`, { block: name });
}

interface SymbolReader {
  symbol(r: number, c: number, table: { bySlot: Uint8Array; byBits: Uint16Array; frequencies: Uint16Array; starts: Uint16Array }): number;
  /** Whether everything was read and nothing more. */
  isDone(): boolean;
}

function ransReader({ states, streams }: BlockParts): SymbolReader {
  const stream = streams[0]!;
  let at = 0;
  return {
    symbol(_, c, { bySlot, frequencies, starts }) {
      const x = states[c % LANES]!;
      const slot = x % TABLE_SIZE;
      const symbol = bySlot[slot]!;
      let next = frequencies[symbol]! * (x >>> TABLE_BITS) + slot - starts[symbol]!;
      if (next < STATE_MIN) {
        next = next * 65536 + (stream[at] ?? 0) + 256 * (stream[at + 1] ?? 0);
        at += 2;
      }
      states[c % LANES] = next;
      return symbol;
    },
    isDone: () => wholeWords(at) === stream.length && states.every((state) => state === STATE_MIN),
  };
}

function huffmanReader({ streams }: BlockParts): SymbolReader {
  const positions = Array.from({ length: STREAMS }, () => 0);
  return {
    symbol(r, _, { byBits }) {
      const stream = streams[r % STREAMS]!;
      const at = positions[r % STREAMS]!;
      const byte = (i: number): number => stream[(at >> 3) + i] ?? 0;
      const entry = byBits[((byte(0) | (byte(1) << 8) | (byte(2) << 16)) >> (at & 7)) % TABLE_SIZE]!;
      positions[r % STREAMS] = at + (entry & 0xff);
      return entry >> 8;
    },
    isDone: () => positions.every((at, s) => wholeWords(at / 8) === streams[s]!.length),
  };
}
