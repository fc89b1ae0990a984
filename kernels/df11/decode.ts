/**
 * Fast twin of the DFloat11 decoder: blocks are decoded four at a time, each
 * from the position and gap the unit stores for it, and every block must end
 * where the next one begins.
 *
 * Weaker than the definition in one point only: gaps inside a block are not
 * compared, since nothing here uses them.
 * @module
 */
import { FormatError } from "../../core/errors.ts";
import { checkUnit, gapAt } from "../../formats/encodings/dfloat11/decode.ts";
import { BLOCK_BYTES, THREADS_PER_BLOCK, type Df11Unit } from "../../formats/encodings/dfloat11/fields.ts";
import { wasm } from "../generated/df11.wasm.ts";
import { threadWorkspace, type Workspace } from "../load-wasm.ts";
import type { Df11Kernel } from "./kernel.ts";

/** Blocks copied into the kernels' memory at a time; a multiple of four. */
const BATCH = 64;
/** A block holds at most one element a bit. */
const MAX_ELEMENTS = 8 * BLOCK_BYTES;

/**
 * Decode one unit.
 *
 * @param name - the unit's module path, for messages.
 * @param out - receives the bf16 patterns as little-endian bytes, two an element.
 * @throws {FormatError} `format.field` when the structure or the stream disagrees with itself.
 */
export function decodeUnitFast(name: string, unit: Df11Unit, out: Uint8Array, workspace: Workspace = threadWorkspace()): void {
  checkUnit(name, unit);
  const mark = workspace.mark();
  try {
    decode(name, unit, out, workspace);
  } finally {
    workspace.release(mark);
  }
}

function decode(name: string, unit: Df11Unit, out: Uint8Array, workspace: Workspace): void {
  const { luts, encodedExponent, signMantissa, outputPositions, gaps } = unit;
  const fail = (text: string): FormatError => new FormatError("format.field", `DFloat11 unit ${name}: ${text}`, { unit: name });
  const kernel = workspace.kernel<Df11Kernel>(wasm);
  const rows = luts.length / 256 - 1;
  const tables = workspace.take(luts.length);
  const fast = workspace.take(8 * 4096);
  workspace.bytes(tables).set(luts);
  kernel.buildTable(tables.at, rows, fast.at);
  const blocks = outputPositions.length - 1;
  const startBit = (block: number): number => 8 * BLOCK_BYTES * block + gapAt(gaps, THREADS_PER_BLOCK * block);
  const jobs = workspace.take(64);
  const stream = workspace.take(BATCH * BLOCK_BYTES + 16);
  const base = workspace.mark();
  for (let first = 0; first < blocks; first += BATCH) {
    const last = Math.min(first + BATCH, blocks);
    const from = outputPositions[first]!;
    const count = outputPositions[last]! - from;
    if (count > (last - first) * MAX_ELEMENTS) throw fail(`blocks ${first} to ${last} claim ${count} elements, more than their bits`);
    workspace.release(base);
    const exponents = workspace.take(count + 64);
    const rest = workspace.take(count + 16);
    const merged = workspace.take(2 * count + 32);
    // Eight bytes more than the batch: a code may end in the next block, a load may look past it.
    const bytes = encodedExponent.subarray(first * BLOCK_BYTES, last * BLOCK_BYTES + 8);
    const padded = workspace.bytes(stream);
    padded.set(bytes);
    padded.fill(0, bytes.length);
    const streamBits = 8 * Math.min(encodedExponent.length - first * BLOCK_BYTES, (last - first) * BLOCK_BYTES);
    for (let group = first; group < last; group += 4) {
      const members = Math.min(4, last - group);
      const records = new Int32Array(workspace.memory.buffer, jobs.at, 16).fill(0);
      for (let i = 0; i < members; i++) {
        const block = group + i;
        const local = startBit(block) - 8 * BLOCK_BYTES * first;
        records.set(
          [
            local,
            Math.min(streamBits, 8 * BLOCK_BYTES * (block - first + 1)),
            exponents.at + outputPositions[block]! - from,
            outputPositions[block + 1]! - outputPositions[block]!,
          ],
          4 * i,
        );
      }
      if (members === 4) kernel.decodeFour(stream.at, tables.at, rows, fast.at, jobs.at);
      else {
        for (let i = 0; i < members; i++) {
          records[4 * i] = kernel.decodeBlock(
            stream.at,
            records[4 * i]!,
            records[4 * i + 1]!,
            tables.at,
            rows,
            fast.at,
            records[4 * i + 2]!,
            records[4 * i + 3]!,
          );
        }
      }
      const ends = new Int32Array(workspace.memory.buffer, jobs.at, 16);
      for (let i = 0; i < members; i++) checkEnd(group + i, ends[4 * i]!, first);
    }
    workspace.bytes(rest).set(signMantissa.subarray(from, from + count));
    kernel.mergePatterns(exponents.at, rest.at, count, merged.at);
    out.set(workspace.bytes({ at: merged.at, byteLength: 2 * count }), 2 * from);
  }

  function checkEnd(block: number, end: number, first: number): void {
    const isLast = outputPositions[block + 1] === signMantissa.length;
    // A last code that ends on its first byte boundary leaves a block in which none starts.
    if (outputPositions[block] === signMantissa.length) return;
    if (end < 0) throw fail(`the stream of block ${block} ends before its elements do, or holds a code without a meaning`);
    const absolute = end + 8 * BLOCK_BYTES * first;
    if (!isLast) {
      if (absolute !== startBit(block + 1))
        throw fail(`block ${block} ends at bit ${absolute}, block ${block + 1} starts at bit ${startBit(block + 1)}`);
    } else if (Math.ceil(absolute / 8) !== encodedExponent.length) {
      throw fail(`the elements take ${Math.ceil(absolute / 8)} bytes of the stream, it has ${encodedExponent.length}`);
    }
  }
}
