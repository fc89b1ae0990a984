/**
 * One block of rows in bytes, at either level. All numbers little-endian; a block is whole words of four bytes.
 *
 * `max` (`rans.ts`): u16 bytes of escapes, u16 0 | 16 u32 states to begin with | raw bits | escapes | u16 words in reading order
 * `fast` (`huffman.ts`): u16 bytes of escapes | in a split block u16 bytes of the first fifteen streams | raw bits | escapes | streams
 * A block that would not be smaller than its elements holds them as they are, padded: its length says so.
 *
 * This is the definition; `kernels/compact` has its fast twin.
 * @module
 */
import { FormatError } from "../../../core/errors.ts";
import { createEscapeReader, createEscapeWriter } from "./escapes.ts";
import { ESCAPE, RELATIVE_MIN, RELATIVE_ZERO } from "./frequencies.ts";
import { decodeHuffman, encodeHuffman, isSplit, PARTS, QUEUES } from "./huffman.ts";
import { decodeRans, encodeRans, LANES, STATE_MIN } from "./rans.ts";
import { packRawBits, rawBitsBytes, unpackRawBits } from "./raw-bits.ts";
import { CODED_BITS, toSymbols, type TensorModel } from "./symbols.ts";
import { rowsOfBlock, type MatrixView } from "./view.ts";

export type CompactLevel = "max" | "fast";

/** Bytes of escapes, and of a stream, that a block can name; with more it holds its elements as they are. */
export const MAX_PART_BYTES = 65535;

/** Bytes before the raw bits, in a block of `count` elements. */
export function headerBytes(level: CompactLevel, count: number): number {
  if (level === "max") return 4 + 4 * LANES;
  return isSplit(count) ? 2 * QUEUES * PARTS : 2;
}

export const wholeWords = (bytes: number): number => 4 * Math.ceil(bytes / 4);

/** Bytes of block `b` once decoded. */
export function blockBytes(view: MatrixView, b: number): number {
  return rowsOfBlock(view, b) * view.cols * view.elementBytes;
}

/** What a block is put together from. */
export interface CodedParts {
  /** Sixteen, for `max`. */
  readonly states: Uint32Array;
  readonly raw: Uint8Array;
  readonly escapes: Uint8Array;
  readonly streams: readonly Uint8Array[];
}

/** A block from its parts, or from the elements when that is no longer or the parts are too large to be named. @param bytes - the elements. */
export function joinBlock(
  level: CompactLevel,
  count: number,
  { states, raw, escapes, streams }: CodedParts,
  bytes: Uint8Array,
): Uint8Array {
  const header = headerBytes(level, count);
  const length = wholeWords(streams.reduce((sum, stream) => sum + stream.length, header + raw.length + escapes.length));
  const named = level === "fast" ? [escapes, ...streams.slice(0, -1)] : [escapes];
  const isPlain = length >= wholeWords(bytes.length) || named.some((part) => part.length > MAX_PART_BYTES);
  const out = new Uint8Array(isPlain ? wholeWords(bytes.length) : length);
  if (isPlain) {
    out.set(bytes);
    return out;
  }
  const numbers = new DataView(out.buffer);
  named.forEach((part, i) => numbers.setUint16(2 * i, part.length, true));
  if (level === "max") states.forEach((state, lane) => numbers.setUint32(4 + 4 * lane, state, true));
  let at = header;
  for (const part of [raw, escapes, ...streams]) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** Encodes block `b` of a tensor. @param bytes - the block's elements. */
export function encodeBlock(view: MatrixView, model: TensorModel, level: CompactLevel, b: number, bytes: Uint8Array): Uint8Array {
  const { kind, cols } = view;
  const rows = rowsOfBlock(view, b);
  const firstRow = b * view.rowsPerBlock;
  const escapes = createEscapeWriter();
  const symbols = new Uint8Array(rows * cols);
  let raw: Uint8Array = new Uint8Array(0);
  if (kind === "bytes") symbols.set(bytes);
  else {
    const patterns = new Uint16Array(new Uint8Array(bytes).buffer);
    raw = packRawBits(kind, patterns);
    for (let r = 0; r < rows; r++) {
      symbols.set(toSymbols(kind, patterns.subarray(r * cols, (r + 1) * cols), model.classes, firstRow + r, escapes), r * cols);
    }
  }
  const parts = { states: new Uint32Array(0), raw, escapes: escapes.finish() };
  if (level === "fast") {
    return joinBlock(level, rows * cols, { ...parts, streams: encodeHuffman(model, symbols, firstRow, rows, cols) }, bytes);
  }
  const { states, words } = encodeRans(model, symbols, firstRow, rows, cols);
  return joinBlock(level, rows * cols, { ...parts, states, streams: [words] }, bytes);
}

/** Where the parts of a block lie in it, from its first byte, checked. */
export interface BlockLayout {
  /** Set when the block holds its elements as they are; nothing else says anything then. */
  readonly isPlain: boolean;
  readonly raw: number;
  readonly escapes: number;
  /** Where the first stream begins: where escapes end. */
  readonly streams: number;
  /** Bytes of each stream, one behind the other. */
  readonly lengths: readonly number[];
}

/** Finds the parts of a block. @throws {FormatError} `format.field` when they do not fit its length, or a state is too small. */
export function layOutBlock(name: string, view: MatrixView, level: CompactLevel, b: number, block: Uint8Array): BlockLayout {
  const count = rowsOfBlock(view, b) * view.cols;
  if (block.length === wholeWords(count * view.elementBytes)) return { isPlain: true, raw: 0, escapes: 0, streams: 0, lengths: [] };
  const numbers = new DataView(block.buffer, block.byteOffset, block.byteLength);
  const fail = (text: string): FormatError => new FormatError("format.field", `${name}: ${text}`, { block: name });
  const raw = headerBytes(level, count);
  if (block.length < raw) throw fail(`${block.length} bytes are less than its header`);
  const escapes = raw + rawBitsBytes(view.kind, count);
  const streams = escapes + numbers.getUint16(0, true);
  const named = level === "fast" && isSplit(count) ? QUEUES * PARTS - 1 : 0;
  const lengths: number[] = [];
  let end = streams;
  for (let s = 0; s < named; s++) {
    const length = numbers.getUint16(2 + 2 * s, true);
    lengths.push(length);
    end += length;
  }
  if (end > block.length) throw fail(`its parts take ${end} bytes, the block has ${block.length}`);
  lengths.push(block.length - end);
  const lanes = level === "max" ? LANES : 0;
  for (let lane = 0; lane < lanes; lane++) {
    const state = numbers.getUint32(4 + 4 * lane, true);
    if (state < STATE_MIN) throw fail(`state ${lane} is ${state}, below ${STATE_MIN}`);
  }
  return { isPlain: false, raw, escapes, streams, lengths };
}

/** The parts of a block. */
interface BlockParts extends CodedParts {
  /** Set when the block holds its elements as they are; nothing else is then. */
  readonly plain?: Uint8Array;
}

function splitBlock(name: string, view: MatrixView, level: CompactLevel, b: number, block: Uint8Array): BlockParts {
  const { isPlain, raw, escapes, streams, lengths } = layOutBlock(name, view, level, b, block);
  const none = new Uint8Array(0);
  const states = new Uint32Array(LANES);
  if (isPlain) return { plain: block.subarray(0, blockBytes(view, b)), states, raw: none, escapes: none, streams: [] };
  const numbers = new DataView(block.buffer, block.byteOffset, block.byteLength);
  if (level === "max") states.forEach((_, lane) => (states[lane] = numbers.getUint32(4 + 4 * lane, true)));
  let at = streams;
  return {
    states,
    raw: block.subarray(raw, escapes),
    escapes: block.subarray(escapes, streams),
    streams: lengths.map((length) => block.subarray(at, (at += length))),
  };
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
  const symbols =
    level === "max"
      ? decodeRans(model, parts.states, parts.streams[0]!, firstRow, rows, cols)
      : decodeHuffman(model, parts.streams, firstRow, rows, cols);
  if (symbols === undefined) throw new FormatError("format.field", `${name}: streams and elements end apart`, { block: name });
  if (kind === "bytes") return out.set(symbols);
  const { shift, mask } = CODED_BITS[kind];
  const raw = unpackRawBits(kind, parts.raw, rows * cols);
  const escapes = createEscapeReader(name, parts.escapes);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const i = r * cols + c;
      const zero = 4 * ((model.classes.rows[firstRow + r]! + model.classes.columns[c]!) >> 2) - RELATIVE_ZERO;
      const symbol = symbols[i]!;
      const coded = (symbol === ESCAPE ? escapes.next(zero) : zero + symbol + RELATIVE_MIN) & mask;
      const pattern = raw[i]! | (coded << shift);
      out[2 * i] = pattern & 0xff;
      out[2 * i + 1] = pattern >> 8;
    }
  }
  if (!escapes.isDone()) throw new FormatError("format.field", `${name}: escapes and their bytes end apart`, { block: name });
}
