/**
 * Decodes runs of blocks of one unit: four at a time, each from the position
 * and gap the unit stores for it, and every block must end where the next
 * one begins. Since blocks are independent, any range of a unit can be decoded alone.
 *
 * Weaker than the definition in one point only: gaps inside a block are not
 * compared, since nothing here uses them.
 * @module
 */
import { FormatError } from "../../core/errors.ts";
import { gapAt, type Df11Structure } from "../../formats/encodings/dfloat11/decode.ts";
import { BLOCK_BYTES, THREADS_PER_BLOCK } from "../../formats/encodings/dfloat11/fields.ts";
import { wasm } from "../generated/df11.wasm.ts";
import type { Region, Workspace } from "../load-wasm.ts";
import type { Df11Kernel } from "./kernel.ts";

/** Blocks copied into the kernels' memory at a time; a multiple of four. */
const BATCH = 64;
/** A block holds at most one element a bit. */
export const MAX_ELEMENTS_PER_BLOCK: number = 8 * BLOCK_BYTES;
/** A code may end in the next block, and a load may look past it: bytes wanted behind a run of blocks. */
export const LOOK_AHEAD = 8;

/** Blocks that lie in the kernels' memory. */
export interface BlockRun {
  /** Blocks [first, last) of the unit. */
  readonly first: number;
  readonly last: number;
  /** Address of the first byte of block `first`; 16 bytes after the run may be read. */
  readonly stream: number;
  /** Elements of the blocks: exponents go here, one byte each, 64 more may be written. */
  readonly exponents: number;
}

/** Look-ups of one unit in the kernels' memory, and the checks that go with them. */
export interface BlockDecoder {
  /** Exponents of a run. @throws {FormatError} `format.field` when a block does not decode or does not end where it must. */
  decodeRun(run: BlockRun): void;
  /**
   * Patterns of blocks [first, last).
   *
   * @param stream - bytes of the unit's stream from block `first` on: those of the run and LOOK_AHEAD more, where there are so many.
   * @param signMantissa - the run's bytes.
   * @param out - receives bf16 patterns as little-endian bytes, two an element.
   */
  decode(first: number, last: number, stream: Uint8Array, signMantissa: Uint8Array, out: Uint8Array): void;
}

/** What the decoder asks of a unit while it is being written as well as when it is read. */
export interface BlockIndex {
  /** First element of a block; of the block behind the last one, the element count. */
  position(block: number): number;
  /** Bit at which the first code of a block starts. */
  gap(block: number): number;
  readonly blocks: number;
  readonly elements: number;
  /** Bytes of the whole stream. */
  readonly streamBytes: number;
}

/** The index of a unit that is there. Its structure has been checked. */
export function indexOf({ encodedExponent, outputPositions, gaps, signMantissa }: Df11Structure): BlockIndex {
  return {
    position: (block) => outputPositions[block]!,
    gap: (block) => gapAt(gaps, THREADS_PER_BLOCK * block),
    blocks: outputPositions.length - 1,
    elements: signMantissa.length,
    streamBytes: encodedExponent.length,
  };
}

/**
 * Puts a unit's look-ups into the workspace. The caller marks before and releases after the decoder's last use.
 *
 * @param name - the unit's module path, for messages.
 */
export function createBlockDecoder(name: string, luts: Uint8Array, index: BlockIndex, workspace: Workspace): BlockDecoder {
  const fail = (text: string): FormatError => new FormatError("format.field", `DFloat11 unit ${name}: ${text}`, { unit: name });
  const kernel = workspace.kernel<Df11Kernel>(wasm);
  const rows = luts.length / 256 - 1;
  const tables = workspace.take(luts.length);
  const fast = workspace.take(8 * 4096);
  const jobs = workspace.take(64);
  workspace.bytes(tables).set(luts);
  kernel.buildTable(tables.at, rows, fast.at);
  const startBit = (block: number): number => 8 * BLOCK_BYTES * block + index.gap(block);

  function decodeRun({ first, last, stream, exponents }: BlockRun): void {
    const from = index.position(first);
    const streamBits = 8 * Math.min(index.streamBytes - first * BLOCK_BYTES, (last - first) * BLOCK_BYTES);
    for (let group = first; group < last; group += 4) {
      const members = Math.min(4, last - group);
      const records = new Int32Array(workspace.memory.buffer, jobs.at, 16).fill(0);
      for (let i = 0; i < members; i++) {
        const block = group + i;
        records[4 * i] = startBit(block) - 8 * BLOCK_BYTES * first;
        records[4 * i + 1] = Math.min(streamBits, 8 * BLOCK_BYTES * (block - first + 1));
        records[4 * i + 2] = exponents + index.position(block) - from;
        records[4 * i + 3] = index.position(block + 1) - index.position(block);
      }
      if (members === 4) kernel.decodeFour(stream, tables.at, rows, fast.at, jobs.at);
      else {
        for (let i = 0; i < members; i++) {
          const [at, stop, out, count] = records.subarray(4 * i, 4 * i + 4) as unknown as [number, number, number, number];
          records[4 * i] = kernel.decodeBlock(stream, at, stop, tables.at, rows, fast.at, out, count);
        }
      }
      for (let i = 0; i < members; i++) checkEnd(group + i, records[4 * i]!, first);
    }
  }

  function checkEnd(block: number, end: number, first: number): void {
    // A last code that ends on its first byte boundary leaves a block in which none starts.
    if (index.position(block) === index.elements) return;
    if (end < 0) throw fail(`the stream of block ${block} ends before its elements do, or holds a code without a meaning`);
    const absolute = end + 8 * BLOCK_BYTES * first;
    if (index.position(block + 1) !== index.elements) {
      if (absolute !== startBit(block + 1)) {
        throw fail(`block ${block} ends at bit ${absolute}, block ${block + 1} starts at bit ${startBit(block + 1)}`);
      }
    } else if (Math.ceil(absolute / 8) !== index.streamBytes) {
      throw fail(`the elements take ${Math.ceil(absolute / 8)} bytes of the stream, it has ${index.streamBytes}`);
    }
  }

  const piece = workspace.take(BATCH * BLOCK_BYTES + 2 * LOOK_AHEAD);

  return {
    decodeRun,
    decode(first, last, stream, signMantissa, out) {
      const origin = index.position(first);
      const base = workspace.mark();
      for (let begin = first; begin < last; begin += BATCH) {
        const end = Math.min(begin + BATCH, last);
        const from = index.position(begin);
        const count = index.position(end) - from;
        if (count > (end - begin) * MAX_ELEMENTS_PER_BLOCK)
          throw fail(`blocks ${begin} to ${end} claim ${count} elements, more than their bits`);
        workspace.release(base);
        const exponents = workspace.take(count + 64);
        const rest = workspace.take(count + 16);
        const merged = workspace.take(2 * count + 32);
        const bytes = stream.subarray((begin - first) * BLOCK_BYTES, (end - first) * BLOCK_BYTES + LOOK_AHEAD);
        const padded = workspace.bytes(piece);
        padded.set(bytes);
        padded.fill(0, bytes.length);
        decodeRun({ first: begin, last: end, stream: piece.at, exponents: exponents.at });
        workspace.bytes(rest).set(signMantissa.subarray(from - origin, from - origin + count));
        kernel.mergePatterns(exponents.at, rest.at, count, merged.at);
        out.set(workspace.bytes({ at: merged.at, byteLength: 2 * count }), 2 * (from - origin));
      }
      workspace.release(base);
    },
  };
}

/** A region's view that Node's buffer functions take. */
export function bufferOf(workspace: Workspace, { at, byteLength }: Region): Buffer {
  return Buffer.from(workspace.memory.buffer, at, byteLength);
}
