/**
 * Decodes runs of blocks of one unit: four at once, each from the position
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
import type { Workspace } from "../load-wasm.ts";
import type { Df11Kernel } from "./kernel.ts";

/** Blocks decoded at a time: their streams and weights stay in a second-level cache. */
export const BATCH = 16;
/** A block holds at most one element a bit. */
const MAX_ELEMENTS_PER_BLOCK: number = 8 * BLOCK_BYTES;
/** What the kernel is told of a block, and answers: i32 at, endBit, out, count, and where its codes ended. */
const JOB_WORDS = 5;
/** What the kernel needs while it decodes. */
const SCRATCH_BYTES = 4096;
/** A code may end in the next block, and a load may look past it: bytes wanted behind a run of blocks. */
export const LOOK_AHEAD = 8;

/** Where the bytes of a batch go. */
export interface BatchInput {
  /** From the batch's first block on: the batch and LOOK_AHEAD more, where there are so many. */
  readonly stream: Uint8Array;
  readonly signMantissa: Uint8Array;
}

/** Look-ups of one unit in the kernels' memory, and the checks that go with them. */
export interface BlockDecoder {
  /** Views to fill with the bytes of blocks [first, last), at most BATCH of them. The caller takes no region between the decoder's creation and its last use. */
  input(first: number, last: number): BatchInput;
  /**
   * Decodes the blocks that `input` was called for.
   *
   * @returns bf16 patterns as little-endian bytes, two an element: a view that the next call overwrites.
   * @throws {FormatError} `format.field` when a block does not decode or does not end where it must.
   */
  run(): Uint8Array;
  /**
   * Patterns of blocks [first, last), any number of them.
   *
   * @param stream - bytes of the unit's stream from block `first` on, as in BatchInput.
   * @param out - receives bf16 patterns as little-endian bytes, two an element.
   */
  decode(first: number, last: number, stream: Uint8Array, signMantissa: Uint8Array, out: Uint8Array): void;
}

/** What the decoder asks of a unit. */
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
  const fast = workspace.take(8 * 2048);
  const jobs = workspace.take(4 * JOB_WORDS * BATCH);
  const scratch = workspace.take(SCRATCH_BYTES);
  const piece = workspace.take(BATCH * BLOCK_BYTES + 2 * LOOK_AHEAD);
  const base = workspace.mark();
  workspace.bytes(tables).set(luts);
  kernel.buildTable(tables.at, rows, fast.at);
  const startBit = (block: number): number => 8 * BLOCK_BYTES * block + index.gap(block);
  let batch: { first: number; last: number; count: number; exponents: number; rest: number; merged: number } | undefined;

  function input(first: number, last: number, restAddress = 0, outAddress = 0): BatchInput {
    const count = index.position(last) - index.position(first);
    if (last - first > BATCH || count > (last - first) * MAX_ELEMENTS_PER_BLOCK)
      throw fail(`blocks ${first} to ${last} claim ${count} elements, more than their bits`);
    workspace.release(base);
    const exponents = workspace.take(count + 64).at;
    // V8 copies to and from shared memory byte by byte where the two sides' addresses differ modulo 8.
    const rest = workspace.take(count + 24).at + (restAddress % 8);
    const merged = workspace.take(2 * count + 40).at + (outAddress % 8);
    batch = { first, last, count, exponents, rest, merged };
    const bytes = Math.min((last - first) * BLOCK_BYTES + LOOK_AHEAD, index.streamBytes - first * BLOCK_BYTES);
    workspace.bytes(piece).fill(0, bytes);
    return {
      stream: workspace.bytes({ at: piece.at, byteLength: bytes }),
      signMantissa: workspace.bytes({ at: rest, byteLength: count }),
    };
  }

  function run(): Uint8Array {
    const { first, last, count, exponents, rest, merged } = batch!;
    const from = index.position(first);
    const streamBits = 8 * Math.min(index.streamBytes - first * BLOCK_BYTES, (last - first) * BLOCK_BYTES);
    const records = new Int32Array(workspace.memory.buffer, jobs.at, JOB_WORDS * (last - first));
    for (let i = 0; i < last - first; i++) {
      const at = JOB_WORDS * i;
      records[at] = startBit(first + i) - 8 * BLOCK_BYTES * first;
      records[at + 1] = Math.min(streamBits, 8 * BLOCK_BYTES * (i + 1));
      records[at + 2] = exponents + index.position(first + i) - from;
      records[at + 3] = index.position(first + i + 1) - index.position(first + i);
    }
    kernel.turnStream(piece.at, piece.byteLength);
    kernel.decodeBlocks(piece.at, tables.at, rows, fast.at, scratch.at, jobs.at, last - first);
    for (let block = first; block < last; block++) checkEnd(block, records[JOB_WORDS * (block - first) + 4]!, first);
    kernel.mergePatterns(exponents, rest, count, merged);
    return workspace.bytes({ at: merged, byteLength: 2 * count });
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

  return {
    input,
    run,
    decode(first, last, stream, signMantissa, out) {
      const origin = index.position(first);
      for (let begin = first; begin < last; begin += BATCH) {
        const end = Math.min(begin + BATCH, last);
        const from = index.position(begin) - origin;
        const into = input(begin, end, signMantissa.byteOffset + from, out.byteOffset + 2 * from);
        const at = (begin - first) * BLOCK_BYTES;
        into.stream.set(stream.subarray(at, at + into.stream.length));
        into.signMantissa.set(signMantissa.subarray(from, from + into.signMantissa.length));
        out.set(run(), 2 * from);
      }
    },
  };
}
