/**
 * Level `fast`: Huffman codes. Symbols that share a table go together, so that a decoder looks several up at once:
 * queue t of a block holds, row by row, the symbols that table t codes. Bytes have one table; their queues are quarters of the block.
 *
 * A block of 16,384 elements or more has each queue in four streams of equal length (the last may be shorter), each in whole bytes;
 * a smaller one has all queues one after another in a single stream. Bits go from the lowest of a byte to the highest.
 * @module
 */
import type { TensorModel } from "./symbols.ts";
import type { CodeTable } from "./table.ts";

export const QUEUES = 4;
/** Streams of a queue in a block that is split. */
export const PARTS = 4;
const SPLIT_ELEMENTS = 16384;
/** Longest code. */
const CODE_BITS = 12;

/** Whether a block of `count` elements has sixteen streams. */
export const isSplit = (count: number): boolean => count >= SPLIT_ELEMENTS;

/** The queue of each element of a block, in order. */
export function queueNumbers({ classes, tables }: TensorModel, firstRow: number, rows: number, cols: number): Uint8Array {
  const count = rows * cols;
  const quarter = Math.ceil(count / QUEUES);
  if (tables.length === 1) return Uint8Array.from({ length: count }, (_, i) => Math.floor(i / quarter));
  return Uint8Array.from({ length: count }, (_, i) => (classes.rows[firstRow + Math.floor(i / cols)]! + classes.columns[i % cols]!) & 3);
}

/** Elements of each queue. */
export function queueLengths({ classes, tables }: TensorModel, firstRow: number, rows: number, cols: number): readonly number[] {
  const count = rows * cols;
  const quarter = Math.ceil(count / QUEUES);
  if (tables.length === 1) return Array.from({ length: QUEUES }, (_, t) => Math.min(quarter, Math.max(0, count - t * quarter)));
  const ofRows = [0, 0, 0, 0];
  const ofColumns = [0, 0, 0, 0];
  for (let r = 0; r < rows; r++) ofRows[classes.rows[firstRow + r]! & 3]!++;
  for (let c = 0; c < cols; c++) ofColumns[classes.columns[c]! & 3]!++;
  return ofRows.map((_, t) => ofColumns.reduce((sum, columns, k) => sum + columns * ofRows[(t - k) & 3]!, 0));
}

/** Elements in each part of a queue of `length`. */
export function partLengths(length: number): readonly number[] {
  const part = Math.ceil(length / PARTS);
  return Array.from({ length: PARTS }, (_, p) => Math.min(part, Math.max(0, length - p * part)));
}

const tableOfQueue = ({ tables }: TensorModel, t: number): CodeTable => (tables.length === 1 ? tables[0]! : tables[t]!);

/** @returns sixteen streams or one, in whole bytes. */
export function encodeHuffman(
  model: TensorModel,
  symbols: Uint8Array,
  firstRow: number,
  rows: number,
  cols: number,
): readonly Uint8Array[] {
  const numbers = queueNumbers(model, firstRow, rows, cols);
  const queues = Array.from({ length: QUEUES }, (_, t) => symbols.filter((_symbol, i) => numbers[i] === t));
  if (!isSplit(symbols.length)) {
    const writer = createWriter();
    queues.forEach((queue, t) => writer.put(tableOfQueue(model, t), queue));
    return [writer.finish()];
  }
  return queues.flatMap((queue, t) => {
    let at = 0;
    return partLengths(queue.length).map((length) => {
      const writer = createWriter();
      writer.put(tableOfQueue(model, t), queue.subarray(at, (at += length)));
      return writer.finish();
    });
  });
}

function createWriter(): { put(table: CodeTable, symbols: Uint8Array): void; finish(): Uint8Array } {
  const bytes: number[] = [];
  let held = 0;
  let count = 0;
  return {
    put({ codes, lengths }, symbols) {
      for (const symbol of symbols) {
        held |= codes[symbol]! << count;
        count += lengths[symbol]!;
        for (; count >= 8; count -= 8) {
          bytes.push(held & 0xff);
          held >>>= 8;
        }
      }
    },
    finish: () => Uint8Array.from(count > 0 ? [...bytes, held] : bytes),
  };
}

/** @returns the symbols of a block in its order; undefined when streams and elements do not end together. The last stream may have up to three bytes of padding. */
export function decodeHuffman(
  model: TensorModel,
  streams: readonly Uint8Array[],
  firstRow: number,
  rows: number,
  cols: number,
): Uint8Array | undefined {
  const queues = queueLengths(model, firstRow, rows, cols).map((length) => new Uint8Array(length));
  const ends: number[] = [];
  if (streams.length === 1) ends.push(queues.reduce((at, queue, t) => readCodes(tableOfQueue(model, t), streams[0]!, at, queue), 0));
  else {
    queues.forEach((queue, t) => {
      let from = 0;
      partLengths(queue.length).forEach((length, p) => {
        const part = queue.subarray(from, (from += length));
        ends.push(readCodes(tableOfQueue(model, t), streams[PARTS * t + p]!, 0, part));
      });
    });
  }
  if (!ends.every((bit, s) => endsStream(bit, streams[s]!.length, s === streams.length - 1))) return undefined;
  const next = [0, 0, 0, 0];
  return queueNumbers(model, firstRow, rows, cols).map((t) => queues[t]![next[t]!++]!);
}

/** Whether a stream of `bytes` can end at `bit`. The last one of a block fills its last word of four bytes. */
export function endsStream(bit: number, bytes: number, isLast: boolean): boolean {
  const used = Math.ceil(bit / 8);
  return isLast ? used <= bytes && bytes - used < 4 : used === bytes;
}

/** @returns the bit after the last code. */
function readCodes({ byBits }: CodeTable, stream: Uint8Array, from: number, out: Uint8Array): number {
  let at = from;
  const byte = (i: number): number => stream[(at >> 3) + i] ?? 0;
  for (let i = 0; i < out.length; i++) {
    const entry = byBits[((byte(0) | (byte(1) << 8) | (byte(2) << 16)) >> (at & 7)) & ((1 << CODE_BITS) - 1)]!;
    out[i] = entry >> 8;
    at += entry & 0xff;
  }
  return at;
}
