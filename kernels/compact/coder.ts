/**
 * Fast twin of the compact codec's definition: the same bytes and the same classes, in WASM.
 *
 * Elements and blocks that lie in the workspace's memory are worked on in place; others are copied in and out.
 * Streams are not trusted: a block may read past its end into padding taken for that, writes only its own elements,
 * and is refused when streams, states and escapes do not all end with the elements.
 * @module
 */
import { FormatError } from "../../core/errors.ts";
import { blockBytes, HEADER_BYTES, splitBlock, STATE_MIN, wholeWords, type CompactLevel } from "../../formats/encodings/compact/block.ts";
import { finishChecksum } from "../../formats/encodings/compact/checksum.ts";
import {
  columnClasses,
  columnFactor,
  MIN_ROWS_FOR_COLUMNS,
  rowClass,
  sampleStride,
  type Classes,
} from "../../formats/encodings/compact/classes.ts";
import type { BlockCoder, CheckedBlock } from "../../formats/encodings/compact/coder.ts";
import { rawBitsBytes } from "../../formats/encodings/compact/raw-bits.ts";
import { FLOAT_TABLES, type TensorModel } from "../../formats/encodings/compact/symbols.ts";
import { rowsOfBlock, type MatrixView } from "../../formats/encodings/compact/view.ts";
import { wasm } from "../generated/compact.wasm.ts";
import { createWorkspace, type Region, type Workspace } from "../load-wasm.ts";
import { KINDS, type CompactKernel } from "./kernel.ts";
import { fillShuffles, fillTables, takeTables } from "./tables.ts";

/** Bytes of a tensor copied into the kernels' memory at a time while classes are measured. */
const PIECE = 2 ** 20;
/** A block's escapes: three bytes an element at most. */
const ESCAPE_BYTES = 3;
const MAX_ESCAPES = 65535;

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
  const small = workspace.take(256);
  const lanes = { at: small.at, byteLength: 64 };
  const states = { at: small.at + 64, byteLength: 32 };
  const scratch = small.at + 128;
  const base = workspace.mark();
  let prepared: { readonly model: TensorModel; readonly columns: ColumnTables; readonly mark: number } | undefined;

  /** Tables of the tensor's columns; kept while the same tensor goes on. */
  function prepare(view: MatrixView, model: TensorModel): ColumnTables {
    if (prepared?.model === model) {
      workspace.release(prepared.mark);
      return prepared.columns;
    }
    workspace.release(base);
    if (view.kind === "bytes") fillTables(workspace, byteTables, model.tables);
    const columns = takeColumns(workspace, view, model.classes);
    prepared = { model, columns, mark: workspace.mark() };
    return columns;
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
    const region = workspace.take(bytes.length + slack);
    workspace.bytes(region).set(bytes);
    return { at: region.at, byteLength: bytes.length };
  }
  function placeRows({ rows }: Classes, first: number, count: number): number {
    const part = rows.subarray(first, first + count);
    const region = workspace.take(2 * count);
    // Bytes have one class, 0, for all rows.
    new Int16Array(workspace.memory.buffer, region.at, count).fill(0).set(part);
    return region.at;
  }
  function checksumAt({ at, byteLength }: Region): number {
    kernel.checksumLanes(at, byteLength, lanes.at);
    return finishChecksum(new Int32Array(workspace.memory.buffer, lanes.at, 16), byteLength);
  }

  function encodeBlock(view: MatrixView, model: TensorModel, level: CompactLevel, b: number, bytes: Uint8Array): CheckedBlock {
    const { kind, cols } = view;
    const columns = prepare(view, model);
    const tables = kind === "bytes" ? byteTables : floatTables;
    const rows = rowsOfBlock(view, b);
    const count = rows * cols;
    const input = place(bytes);
    const checksum = checksumAt(input);
    let symbols = input.at;
    let escapes: Region = { at: 0, byteLength: 0 };
    const raw = workspace.take(rawBitsBytes(kind, count));
    if (kind !== "bytes") {
      const classes = placeRows(model.classes, b * view.rowsPerBlock, rows);
      const region = workspace.take(count);
      const space = workspace.take(ESCAPE_BYTES * count);
      const code = KINDS.indexOf(kind);
      const used = kernel.toSymbols(
        ...([input.at, rows, cols, code, classes, columns.zeros, columns.tableBits, columns.stride, region.at, space.at] as const),
      );
      symbols = region.at;
      escapes = { at: space.at, byteLength: used };
      workspace.bytes(raw).fill(0);
      kernel.packRawBits(input.at, count, code, raw.at);
    }
    const streams: Region[] = [];
    if (level === "max") {
      const space = workspace.take(2 * count + 64);
      const end = space.at + 2 * count + 32;
      workspace.bytes({ at: end, byteLength: 4 }).fill(0);
      const begin = kernel.encodeRans(symbols, rows, cols, tables.ransCodes.at, end, states.at);
      streams.push({ at: begin, byteLength: wholeWords(end - begin) });
    } else {
      for (let s = 0; s < 4; s++) {
        const own = Math.max(0, Math.ceil((rows - s) / 4)) * cols;
        const space = workspace.take(Math.ceil(1.5 * own) + 64);
        const end = kernel.encodeStream(symbols, s, rows, cols, tables.huffmanCodes.at, space.at);
        streams.push({ at: space.at, byteLength: wholeWords(end - space.at) });
      }
    }
    const fixed = HEADER_BYTES[level] + raw.byteLength + wholeWords(escapes.byteLength);
    const length = streams.reduce((sum, { byteLength }) => sum + byteLength, fixed);
    const isPlain = length >= wholeWords(bytes.length) || escapes.byteLength > MAX_ESCAPES;
    const block = new Uint8Array(isPlain ? wholeWords(bytes.length) : length);
    if (isPlain) {
      block.set(bytes);
      return { block, checksum };
    }
    const header = new DataView(block.buffer);
    header.setUint16(0, escapes.byteLength, true);
    if (level === "max") block.set(workspace.bytes(states), 4);
    else for (let s = 0; s < 3; s++) header.setUint16(2 + 2 * s, streams[s]!.byteLength / 4, true);
    block.set(workspace.bytes(raw), HEADER_BYTES[level]);
    block.set(workspace.bytes(escapes), HEADER_BYTES[level] + raw.byteLength);
    let at = fixed;
    for (const stream of streams) {
      block.set(workspace.bytes(stream), at);
      at += stream.byteLength;
    }
    return { block, checksum };
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
    const { kind, cols } = view;
    const parts = splitBlock(name, view, level, b, block);
    const columns = prepare(view, model);
    if (parts.plain !== undefined) {
      out.set(parts.plain);
      return checksumAt(place(parts.plain));
    }
    const isHere = out.buffer === workspace.memory.buffer && out.length === blockBytes(view, b);
    const decoded = isHere ? { at: out.byteOffset, byteLength: out.length } : workspace.take(blockBytes(view, b));
    const rows = rowsOfBlock(view, b);
    const count = rows * cols;
    const code = KINDS.indexOf(kind);
    const classes = placeRows(model.classes, b * view.rowsPerBlock, rows);
    const raw = workspace.take(count + 64);
    let signs = 0;
    if (kind === "bf16") {
      const packed = place(parts.raw);
      kernel.unpackRawBits(packed.at, count, raw.at);
    } else if (kind === "f16") {
      workspace.bytes({ at: raw.at, byteLength: count }).set(parts.raw.subarray(0, count));
      signs = place(parts.raw.subarray(wholeWords(count))).at;
    }
    const escapes = place(parts.escapes);
    const fail = (text: string): FormatError => new FormatError("format.field", `${name}: ${text}`, { block: name });
    if (level === "max") {
      const stream = parts.streams[0]!;
      // As far as a damaged stream could make it read.
      const words = place(stream, 2 * count);
      new Uint32Array(workspace.memory.buffer, states.at, 8).set(parts.states);
      const end = kernel.decodeRans(
        ...([words.at, states.at, rows, cols, code, classes, columns.zeros, columns.slotOffsets, columns.stride] as const),
        ...([(kind === "bytes" ? byteTables : floatTables).bySlot.at, shuffles.at, raw.at, signs] as const),
        ...([escapes.at, escapes.byteLength, scratch, decoded.at] as const),
      );
      if (end === 0) throw fail("its escapes and their bytes end apart");
      const isDone = wholeWords(end - words.at) === stream.length;
      if (!isDone || !new Uint32Array(workspace.memory.buffer, states.at, 8).every((state) => state === STATE_MIN)) {
        throw fail("the stream and the elements end apart");
      }
    } else {
      const places = new Uint32Array(4);
      for (const [s, stream] of parts.streams.entries()) {
        const own = Math.max(0, Math.ceil((rows - s) / 4)) * cols;
        places[s] = place(stream, Math.ceil(1.5 * own)).at;
      }
      const entries = workspace.take(8 * (cols + 8));
      new Uint32Array(workspace.memory.buffer, states.at, 4).set(places);
      const ended = kernel.decodeHuffman(
        ...([states.at, rows, cols, code, classes, columns.zeros, columns.bitsOffsets, columns.stride] as const),
        ...([(kind === "bytes" ? byteTables : floatTables).byBits.at, raw.at, signs, escapes.at, escapes.byteLength] as const),
        ...([scratch, entries.at, decoded.at] as const),
      );
      if (ended === 0) throw fail("its escapes and their bytes end apart");
      const ends = new Uint32Array(workspace.memory.buffer, states.at, 4);
      const isDone = parts.streams.every((stream, s) => wholeWords(ends[s]! / 8) === stream.length);
      if (!isDone) throw fail("the streams and the elements end apart");
    }
    if (!isHere) out.set(workspace.bytes(decoded));
    return checksumAt(decoded);
  }

  function fitClasses(view: MatrixView, bytes: Uint8Array): Classes {
    reset();
    const { kind, rows, cols } = view;
    const code = KINDS.indexOf(kind);
    const rowBytes = 2 * cols;
    const batch = Math.max(1, Math.floor(PIECE / rowBytes));
    const input = workspace.take(batch * rowBytes);
    const sums = workspace.take(4 * batch);
    let columns = new Int16Array(cols);
    let factors = 0;
    if (rows >= MIN_ROWS_FOR_COLUMNS) {
      const columnSums = workspace.take(4 * cols);
      workspace.bytes(columnSums).fill(0);
      const stride = sampleStride(rows);
      const sampled = Math.ceil(rows / stride);
      for (let first = 0; first < sampled; first += batch) {
        const count = Math.min(batch, sampled - first);
        if (stride === 1) workspace.bytes(input).set(bytes.subarray(first * rowBytes, (first + count) * rowBytes));
        else {
          const to = workspace.bytes(input);
          for (let i = 0; i < count; i++) {
            const from = (first + i) * stride * rowBytes;
            to.set(bytes.subarray(from, from + rowBytes), i * rowBytes);
          }
        }
        kernel.addColumns(input.at, count, cols, code, columnSums.at, scratch);
      }
      columns = columnClasses(workspace.f32(columnSums), sampled) as Int16Array<ArrayBuffer>;
      const region = workspace.take(4 * cols);
      workspace.f32(region).set(columns.length === 0 ? [] : Float32Array.from(columns, columnFactor));
      factors = region.at;
    }
    const classes = new Int16Array(rows);
    for (let first = 0; first < rows; first += batch) {
      const count = Math.min(batch, rows - first);
      workspace.bytes(input).set(bytes.subarray(first * rowBytes, (first + count) * rowBytes));
      kernel.sumRows(input.at, count, cols, code, factors, sums.at, scratch);
      const found = workspace.f32(sums);
      for (let i = 0; i < count; i++) classes[first + i] = rowClass(found[i]!, cols);
    }
    reset();
    return { rows: classes, columns };
  }

  function countBytes(bytes: Uint8Array): Float64Array {
    reset();
    const input = workspace.take(PIECE);
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

  function checksumOf(bytes: Uint8Array): number {
    reset();
    return checksumAt(place(bytes));
  }

  return { fitClasses, countBytes, encodeBlock, decodeBlock, checksum: checksumOf };
}

interface ColumnTables {
  /** Entries of each of the four rows; a multiple of 8, so that vectors may read past the last column. */
  readonly stride: number;
  /** i16 by (row class mod 4) and column: four times the whole octaves of their sum. */
  readonly zeros: number;
  /** u8 likewise: table << 6. */
  readonly tableBits: number;
  /** u16 likewise: table * 16384, the table's place among slots. */
  readonly slotOffsets: number;
  /** u16 likewise: table * 2048, its place among bits. */
  readonly bitsOffsets: number;
}

function takeColumns(workspace: Workspace, { kind, cols }: MatrixView, { columns }: Classes): ColumnTables {
  const stride = 8 * Math.ceil(cols / 8);
  const zeros = workspace.take(8 * stride);
  const tableBits = workspace.take(4 * stride);
  const slotOffsets = workspace.take(8 * stride);
  const bitsOffsets = workspace.take(8 * stride);
  for (const region of [zeros, tableBits, slotOffsets, bitsOffsets]) workspace.bytes(region).fill(0);
  if (kind !== "bytes") {
    const { buffer } = workspace.memory;
    const octaves = new Int16Array(buffer, zeros.at, 4 * stride);
    const bits = new Uint8Array(buffer, tableBits.at, 4 * stride);
    const slots = new Uint16Array(buffer, slotOffsets.at, 4 * stride);
    const codes = new Uint16Array(buffer, bitsOffsets.at, 4 * stride);
    for (let k = 0; k < 4; k++) {
      for (let c = 0; c < cols; c++) {
        const q = columns[c]! + k;
        const i = k * stride + c;
        octaves[i] = 4 * (q >> 2);
        bits[i] = (q & 3) << 6;
        slots[i] = (q & 3) * 16384;
        codes[i] = (q & 3) * 2048;
      }
    }
  }
  return { stride, zeros: zeros.at, tableBits: tableBits.at, slotOffsets: slotOffsets.at, bitsOffsets: bitsOffsets.at };
}
