/**
 * Fast twin of the compact codec's definition: the same bytes and the same classes, in WASM.
 *
 * Elements and blocks that lie in the workspace's memory are worked on in place; others are copied in and out.
 * Streams are not trusted: a block may read past its end into padding taken for that, writes only its own elements,
 * and is refused when streams, states and escapes do not all end with the elements.
 * @module
 */
import { FormatError } from "../../core/errors.ts";
import {
  blockBytes,
  headerBytes,
  MAX_PART_BYTES,
  layOutBlock,
  wholeWords,
  type CompactLevel,
} from "../../formats/encodings/compact/block.ts";
import { finishChecksum } from "../../formats/encodings/compact/checksum.ts";
import type { CheckedBlock, BlockCoder } from "../../formats/encodings/compact/coder.ts";
import { endsStream, isSplit, PARTS, queueLengths, QUEUES } from "../../formats/encodings/compact/huffman.ts";
import { LANES, STATE_MIN } from "../../formats/encodings/compact/rans.ts";
import { rawBitsBytes } from "../../formats/encodings/compact/raw-bits.ts";
import { FLOAT_TABLES, type TensorModel } from "../../formats/encodings/compact/symbols.ts";
import { rowsOfBlock, type MatrixView } from "../../formats/encodings/compact/view.ts";
import { wasm } from "../generated/compact.wasm.ts";
import { createWorkspace, type Region, type Workspace } from "../load-wasm.ts";
import { copyOut, takeInPhase } from "./copies.ts";
import { createClassFitter } from "./fit.ts";
import { KINDS, type CompactKernel } from "./kernel.ts";
import { fillPacks, fillShuffles, fillTables, takeColumns, takeTables, type ColumnTables } from "./tables.ts";

/** Bytes of a tensor copied into the kernels' memory at a time while bytes are counted. */
const PIECE = 2 ** 20;
/** A block's escapes: under four bytes an element. */
const ESCAPE_BYTES = 4;
/** Of an element's code at most (12 bits or a word): how far a damaged stream can make a decoder read. */
const CODE_BYTES = 2;

/** Rows of a block, and what kernels know them by. */
interface Rows {
  readonly rows: number;
  readonly cols: number;
  readonly count: number;
  readonly firstRow: number;
  /** Where their classes lie. */
  readonly classes: number;
  readonly columns: ColumnTables;
}

/** What is kept from block to block of a tensor. */
interface Prepared {
  readonly model: TensorModel;
  readonly level: CompactLevel;
  readonly columns: ColumnTables;
  readonly room?: Region;
  /** What lies behind is a block's own. */
  readonly mark: number;
}

/**
 * A coder over `workspace`, whose regions it keeps: release them (by a mark taken before) only with the coder.
 * Not for two threads at once.
 */
export function createCompactCoder(workspace: Workspace = createWorkspace()): BlockCoder {
  const kernel = workspace.kernel<CompactKernel>(wasm);
  const floatTables = takeTables(workspace);
  const byteTables = takeTables(workspace);
  fillTables(workspace, floatTables, FLOAT_TABLES);
  const shuffles = workspace.take(256);
  fillShuffles(workspace.bytes(shuffles));
  const packs = workspace.take(256);
  fillPacks(workspace.bytes(packs));
  // Shared memory that grows leaves views of it as they are.
  const take32 = <T>(View: new (buffer: ArrayBufferLike, at: number, length: number) => T, length: number): { at: number; view: T } => {
    const { at } = workspace.take(4 * length);
    return { at, view: new View(workspace.memory.buffer, at, length) };
  };
  const lanes = take32(Int32Array, LANES);
  const states = take32(Uint32Array, LANES);
  /** Where each queue lies, how long it is, and where each stream does: `encodeQueues`, `decodeQueues`. */
  const pointers = take32(Uint32Array, QUEUES);
  const sizes = take32(Uint32Array, QUEUES);
  const streamEnds = take32(Uint32Array, QUEUES * PARTS);
  const scratch = workspace.take(128).at;
  const base = workspace.mark();
  const fitter = createClassFitter(workspace, kernel, scratch);
  let prepared: Prepared | undefined;

  /** Tables of the tensor's columns; kept while the same tensor goes on. */
  function prepare(view: MatrixView, model: TensorModel, level: CompactLevel): ColumnTables {
    if (prepared?.model === model && prepared.level === level) {
      workspace.release(prepared.mark);
      return prepared.columns;
    }
    workspace.release(base);
    if (view.kind === "bytes") fillTables(workspace, byteTables, model.tables);
    const columns = takeColumns(workspace, kernel, view.cols, model.classes.columns, level);
    prepared = { model, level, columns, mark: workspace.mark() };
    return columns;
  }
  /** Room for an encoded block, behind what was prepared: it stays as it is while the block is decoded. */
  function takeRoom(bytes: number): Region {
    const { room, ...facts } = prepared!;
    if (room !== undefined && room.byteLength >= bytes) return room;
    const taken = workspace.take(bytes);
    prepared = { ...facts, room: taken, mark: workspace.mark() };
    return taken;
  }
  /** Forgets the tensor: what is taken next may lie where its tables were. */
  function reset(): void {
    workspace.release(base);
    prepared = undefined;
  }
  /** Bytes where the kernels reach them, and `slack` bytes that may be read past them: as they lie, when that is in the workspace already. */
  function place(bytes: Uint8Array, slack = 0): Region {
    const { buffer } = workspace.memory;
    const reach = bytes.byteOffset + bytes.length + slack + 64;
    if (bytes.buffer === buffer && reach <= buffer.byteLength) return { at: bytes.byteOffset, byteLength: bytes.length };
    const region = takeInPhase(workspace, bytes.length + slack, bytes);
    const placed = { at: region.at, byteLength: bytes.length };
    workspace.bytes(placed).set(bytes);
    return placed;
  }
  function placeRows(view: MatrixView, model: TensorModel, level: CompactLevel, b: number): Rows {
    const columns = prepare(view, model, level);
    const rows = rowsOfBlock(view, b);
    const firstRow = b * view.rowsPerBlock;
    const region = workspace.take(2 * rows);
    // Bytes have one class, 0, for all rows.
    new Int16Array(workspace.memory.buffer, region.at, rows).fill(0).set(model.classes.rows.subarray(firstRow, firstRow + rows));
    return { rows, cols: view.cols, count: rows * view.cols, firstRow, classes: region.at, columns };
  }
  function checksumAt({ at, byteLength }: Region): number {
    kernel.checksumLanes(at, byteLength, lanes.at);
    return finishChecksum(lanes.view, byteLength);
  }

  function encodeBlock(view: MatrixView, model: TensorModel, level: CompactLevel, b: number, bytes: Uint8Array): CheckedBlock {
    const { kind } = view;
    prepare(view, model, level);
    // Parts are written where they belong, one behind the other. A block but the last is as large as the first.
    const most = rowsOfBlock(view, 0) * view.cols;
    const room = takeRoom(headerBytes(level, most) + rawBitsBytes(kind, most) + (ESCAPE_BYTES + CODE_BYTES) * most + 256);
    const block = placeRows(view, model, level, b);
    const { rows, cols, count, columns, classes } = block;
    const input = place(bytes);
    const checksum = checksumAt(input);
    const plain = wholeWords(bytes.length);
    const header = headerBytes(level, count);
    const rawBytes = rawBitsBytes(kind, count);
    let symbols = input.at;
    let escapeBytes = 0;
    const escapes = room.at + header + rawBytes;
    if (kind !== "bytes") {
      symbols = workspace.take(count).at;
      const code = KINDS.indexOf(kind);
      const { zeros, tableBits, stride } = columns;
      escapeBytes = kernel.toSymbols(input.at, rows, cols, code, classes, zeros, tableBits, stride, cols, symbols, escapes);
      const raw = room.at + header;
      // Bytes that the last bits do not fill.
      new Uint8Array(
        workspace.memory.buffer,
        kind === "f16" ? raw : Math.max(raw, escapes - 8),
        kind === "f16" ? rawBytes : Math.min(rawBytes, 8),
      ).fill(0);
      kernel.packRawBits(input.at, count, code, raw);
    }
    const at = escapes + escapeBytes;
    const streams = level === "max" ? encodeWords(kind, symbols, block, at) : encodeStreams(kind, symbols, model, block, at);
    const end = streams.at(-1)!;
    const length = wholeWords(end - room.at);
    const named =
      level === "fast" ? [escapeBytes, ...streams.slice(0, -1).map((stop, i) => stop - (i === 0 ? at : streams[i - 1]!))] : [escapeBytes];
    if (length >= plain || named.some((part) => part > MAX_PART_BYTES)) {
      kernel.copyBytes(room.at, input.at, bytes.length);
      new Uint8Array(workspace.memory.buffer, room.at + bytes.length, plain - bytes.length).fill(0);
      return { block: workspace.bytes({ at: room.at, byteLength: plain }), checksum };
    }
    new Uint8Array(workspace.memory.buffer, end, length - (end - room.at)).fill(0);
    const numbers = new DataView(workspace.memory.buffer, room.at, header);
    named.forEach((part, i) => numbers.setUint16(2 * i, part, true));
    if (level === "max") {
      numbers.setUint16(2, 0, true);
      kernel.copyBytes(room.at + 4, states.at, 4 * LANES);
    }
    return { block: workspace.bytes({ at: room.at, byteLength: length }), checksum };
  }

  /** Words from `to` on. @returns where they end. */
  function encodeWords(kind: MatrixView["kind"], symbols: number, { rows, cols, count }: Rows, to: number): readonly number[] {
    const tables = kind === "bytes" ? byteTables : floatTables;
    const space = workspace.take(CODE_BYTES * count + 64);
    const end = space.at + CODE_BYTES * count + 32;
    const begin = kernel.encodeRans(symbols, rows, cols, tables.ransCodes.at, packs.at, end, states.at);
    kernel.copyBytes(to, begin, end - begin);
    return [to + end - begin];
  }

  /** Streams from `to` on. @returns where each ends. */
  function encodeStreams(kind: MatrixView["kind"], symbols: number, model: TensorModel, block: Rows, to: number): readonly number[] {
    const { rows, cols, count, firstRow, columns, classes } = block;
    const lengths = queueLengths(model, firstRow, rows, cols);
    const codes = (kind === "bytes" ? byteTables : floatTables).huffmanCodes.at;
    const queues = kind === "bytes" ? startsOf(symbols, lengths) : lengths.map((length) => workspace.take(length + 16).at);
    pointers.view.set(queues);
    if (kind !== "bytes") {
      kernel.toQueues(symbols, rows, cols, classes, columns.packs, columns.counts, pointers.at);
      pointers.view.set(queues);
    }
    if (isSplit(count)) {
      sizes.view.set(lengths);
      const pairs = kind === "bytes" ? 0 : floatTables.pairCodes.at;
      kernel.encodeQueues(pointers.at, sizes.at, pairs, codes, scratch, to, streamEnds.at);
      return [...streamEnds.view];
    }
    const all = workspace.take(count).at;
    startsOf(all, lengths).forEach((at, t) => kernel.copyBytes(at, queues[t]!, lengths[t]!));
    return [kernel.encodeStream(all, count, codes, to)];
  }

  function decodeBlock(
    name: string,
    view: MatrixView,
    model: TensorModel,
    level: CompactLevel,
    b: number,
    block: Uint8Array,
    out: Uint8Array,
  ): number {
    const { kind } = view;
    const layout = layOutBlock(name, view, level, b, block);
    const facts = placeRows(view, model, level, b);
    const { rows, cols, count, columns, classes } = facts;
    const decodedBytes = blockBytes(view, b);
    if (layout.isPlain) {
      const plain = place(block.subarray(0, decodedBytes));
      copyOut(workspace, kernel, workspace.bytes(plain), out);
      return checksumAt(plain);
    }
    const isHere = out.buffer === workspace.memory.buffer && out.length === decodedBytes;
    const decoded = isHere ? { at: out.byteOffset, byteLength: out.length } : takeInPhase(workspace, decodedBytes, out);
    const code = KINDS.indexOf(kind);
    // All parts at once, and as far behind them as a damaged stream could make a kernel read.
    const { at } = place(block, CODE_BYTES * count);
    let raw = at + layout.raw;
    const signs = kind === "f16" ? raw + 4 * Math.ceil(count / 4) : 0;
    if (kind === "bf16") {
      const region = workspace.take(count + 64);
      kernel.unpackRawBits(raw, count, region.at);
      raw = region.at;
    }
    const fail = (text: string): FormatError => new FormatError("format.field", `${name}: ${text}`, { block: name });
    const escapes = at + layout.escapes;
    const words = at + layout.streams;
    const escapeBytes = layout.streams - layout.escapes;
    let escaped: number;
    if (level === "max") {
      kernel.copyBytes(states.at, at + 4, 4 * LANES);
      escaped = kernel.decodeRans(
        ...([words, states.at, rows, cols, code, classes, columns.zeros, columns.slotOffsets, columns.stride] as const),
        ...([(kind === "bytes" ? byteTables : floatTables).bySlot.at, shuffles.at, raw, signs] as const),
        ...([escapes, escapeBytes, scratch, decoded.at] as const),
      );
      const left = layout.lengths[0]! - (escaped - words);
      const ended = left >= 0 && left < 4 && states.view.every((state) => state === STATE_MIN);
      if (escaped !== 0 && !ended) throw fail("streams and elements end apart");
    } else {
      const lengths = queueLengths(model, facts.firstRow, rows, cols);
      const queues = kind === "bytes" ? startsOf(decoded.at, lengths) : lengths.map((length) => workspace.take(length + 16).at);
      if (!decodeStreams(kind, words, layout.lengths, lengths, queues)) throw fail("streams and elements end apart");
      escaped = 1;
      if (kind !== "bytes") {
        pointers.view.set(queues);
        escaped = kernel.fromQueues(
          ...([pointers.at, rows, cols, code, classes, columns.zeros, columns.stride, columns.unpacks, columns.counts] as const),
          ...([raw, signs, escapes, escapeBytes, scratch, decoded.at] as const),
        );
      }
    }
    if (escaped === 0) throw fail("escapes and their bytes end apart");
    if (!isHere) out.set(workspace.bytes(decoded));
    return checksumAt(decoded);
  }

  /**
   * @param begin - where the first stream lies; `bytes`: of each.
   * @returns whether all streams end with their elements.
   */
  function decodeStreams(
    kind: MatrixView["kind"],
    begin: number,
    bytes: readonly number[],
    lengths: readonly number[],
    queues: readonly number[],
  ): boolean {
    const { triples, singles } = kind === "bytes" ? byteTables : floatTables;
    if (bytes.length === 1) {
      let end = 0;
      for (const [t, queue] of queues.entries()) {
        const own = kind === "bytes" ? 0 : t;
        end = kernel.decodeStream(begin, end, lengths[t]!, triples.at + 16384 * own, singles.at + 8192 * own, queue);
      }
      return endsStream(end, bytes[0]!, true);
    }
    streamEnds.view.set(startsOf(begin, bytes));
    sizes.view.set(lengths);
    pointers.view.set(queues);
    kernel.decodeQueues(streamEnds.at, sizes.at, pointers.at, triples.at, singles.at, kind === "bytes" ? 1 : QUEUES);
    return bytes.every((length, s) => endsStream(streamEnds.view[s]!, length, s === bytes.length - 1));
  }

  function countBytes(bytes: Uint8Array): Float64Array {
    reset();
    const input = takeInPhase(workspace, PIECE, bytes);
    const tables = workspace.take(4096);
    const counts = new Float64Array(256);
    for (let at = 0; at < bytes.length; at += PIECE) {
      const piece = bytes.subarray(at, at + PIECE);
      workspace.bytes(input).set(piece);
      workspace.bytes(tables).fill(0);
      kernel.countBytes(input.at, piece.length, tables.at);
      new Uint32Array(workspace.memory.buffer, tables.at, 1024).forEach((count, i) => (counts[i % 256]! += count));
    }
    return counts;
  }

  return {
    fitColumns(view, sample) {
      reset();
      return fitter.fitColumns(view, sample);
    },
    fitRows(view, columns, level, bytes) {
      reset();
      return fitter.fitRows(view, columns, level, bytes);
    },
    countBytes,
    encodeBlock,
    decodeBlock,
    checksum(bytes) {
      reset();
      return checksumAt(place(bytes));
    },
  };
}

/** Where runs of these lengths start, one after the other. */
function startsOf(at: number, lengths: readonly number[]): readonly number[] {
  let next = at;
  return lengths.map((length) => (next += length) - length);
}
