/**
 * Encodes a unit strip by strip, in memory that does not grow with the unit
 * (but for one byte a 64-bit window), and decodes every block it has written
 * before the next strip.
 * @module
 */
import { InputError, NumericError, VerifyError } from "../../core/errors.ts";
import { END, type CodeWord } from "../../formats/encodings/dfloat11/code-table.ts";
import { planUnit } from "../../formats/encodings/dfloat11/encode.ts";
import { BLOCK_BYTES, BYTES_PER_THREAD, GAP_BYTES_PER_BLOCK, type Df11Refusal } from "../../formats/encodings/dfloat11/fields.ts";
import { wasm } from "../generated/df11.wasm.ts";
import type { Region, Workspace } from "../load-wasm.ts";
import { bufferOf, createBlockDecoder, LOOK_AHEAD, MAX_ELEMENTS_PER_BLOCK, type BlockDecoder } from "./blocks.ts";
import type { Df11Kernel } from "./kernel.ts";

/** Elements of a strip, at most. */
export const STRIP: number = 2 ** 20;
const WINDOWS_PER_BLOCK = BLOCK_BYTES / BYTES_PER_THREAD;
/** Blocks whose codes may still be waiting for their last bits when a strip ends. */
const OPEN_BLOCKS = 3;
const CARRY = OPEN_BLOCKS * MAX_ELEMENTS_PER_BLOCK;

/** The code of a unit and the sizes that follow from its histogram. */
export interface UnitCode {
  readonly table: readonly CodeWord[];
  readonly luts: Uint8Array;
  readonly elements: number;
  readonly totalBits: number;
  readonly streamBytes: number;
  readonly blocks: number;
}

/** @param counts - occurrences by exponent, length 256. */
export function planCode(counts: Float64Array): UnitCode | { readonly refusal: Df11Refusal } {
  const plan = planUnit(counts);
  if ("refusal" in plan) return plan;
  const totalBits = plan.table.reduce((sum, { symbol, length }) => (symbol === END ? sum : sum + counts[symbol]! * length), 0);
  const streamBytes = Math.ceil(totalBits / 8);
  const elements = counts.reduce((sum, count) => sum + count, 0);
  return { ...plan, elements, totalBits, streamBytes, blocks: Math.ceil(streamBytes / BLOCK_BYTES) };
}

/** Adds up exponents of bf16 patterns. The caller marks before and releases after. */
export interface ExponentCounter {
  /** Where the next patterns go: at most STRIP of them. */
  readonly input: Region;
  /** Counts `elements` patterns at `input`. */
  add(elements: number): void;
  readonly counts: Float64Array;
}

export function createExponentCounter(workspace: Workspace): ExponentCounter {
  const kernel = workspace.kernel<Df11Kernel>(wasm);
  const input = workspace.take(2 * STRIP);
  const tables = workspace.take(4096);
  const counts = new Float64Array(256);
  return {
    input,
    counts,
    add(elements) {
      workspace.bytes(tables).fill(0);
      kernel.countExponents(input.at, elements, tables.at);
      const found = new Uint32Array(workspace.memory.buffer, tables.at, 1024);
      for (let i = 0; i < 1024; i++) counts[i % 256]! += found[i]!;
    },
  };
}

/** What a strip added to the streams: views that the next call overwrites. */
export interface EncodedStrip {
  readonly stream: Uint8Array;
  readonly signMantissa: Uint8Array;
}

export interface UnitEncoder {
  /** Where to put the next `elements` patterns (at most STRIP), little-endian bytes. */
  input(elements: number): Uint8Array;
  /** Encodes what was put there. @throws {VerifyError} when it does not decode to that. */
  push(elements: number): EncodedStrip;
  /** The stream's last bytes and the index. @throws {VerifyError}; {NumericError} when the patterns were not those that were counted. */
  finish(): { readonly stream: Uint8Array; readonly gaps: Uint8Array; readonly outputPositions: Uint32Array };
}

/**
 * The caller marks before and releases after.
 *
 * @param name - for messages.
 * @param check - decode every block and compare it with the patterns that went in.
 */
export function createUnitEncoder(name: string, code: UnitCode, workspace: Workspace, { check }: { readonly check: boolean }): UnitEncoder {
  const { table, luts, elements, totalBits, blocks, streamBytes } = code;
  const kernel = workspace.kernel<Df11Kernel>(wasm);
  const windows = blocks * WINDOWS_PER_BLOCK;
  const codes = workspace.take(256 * 8);
  const words = new BigUint64Array(workspace.memory.buffer, codes.at, 256).fill(0n);
  for (const { symbol, length, bits } of table) if (symbol !== END) words[symbol] = (BigInt(bits) << 6n) | BigInt(length);
  const gaps = workspace.take(windows + 64);
  const positions = workspace.take(4 * (blocks + 2));
  const state = workspace.take(24);
  const strip = Math.min(STRIP, elements);
  // What is not checked yet stays in front of what comes next.
  const source = workspace.take(2 * (CARRY + strip) + 64);
  const rest = workspace.take(CARRY + strip + 64);
  // A code is at most 32 bits, so a strip writes at most one word an element.
  const stream = workspace.take((OPEN_BLOCKS + 1) * BLOCK_BYTES + 4 * strip + 64);
  workspace.bytes(gaps).fill(0);
  workspace.bytes(state).fill(0);
  const positionWords = (): Uint32Array => new Uint32Array(workspace.memory.buffer, positions.at, blocks + 2);
  const gapBytes = (): Uint8Array => workspace.bytes({ at: gaps.at, byteLength: windows });
  positionWords().fill(elements);
  positionWords()[0] = 0;
  const exponents = check ? workspace.take(CARRY + strip + 128) : undefined;
  const merged = check ? workspace.take(2 * (CARRY + strip) + 64) : undefined;
  const decoder: BlockDecoder | undefined = check
    ? createBlockDecoder(
        name,
        luts,
        {
          position: (block) => positionWords()[block]!,
          gap: (block) => gapBytes()[WINDOWS_PER_BLOCK * block]!,
          blocks,
          elements,
          streamBytes,
        },
        workspace,
      )
    : undefined;
  /** Blocks checked; elements and stream bytes held in front, which begin where block `checked` begins. */
  let checked = 0;
  let heldElements = 0;
  let heldBytes = 0;
  let done = 0;

  const moveDown = (region: Region, from: number, length: number): void => {
    new Uint8Array(workspace.memory.buffer).copyWithin(region.at, region.at + from, region.at + from + length);
  };
  const mismatch = (text: string): VerifyError =>
    new VerifyError("verify.mismatch", `DFloat11 unit ${name}: what was encoded does not decode to what was read (${text})`, {
      unit: name,
    });

  function checkBlocks(last: number): void {
    const from = positionWords()[checked]!;
    const count = positionWords()[last]! - from;
    if (decoder !== undefined && last > checked) {
      decoder.decodeRun({ first: checked, last, stream: stream.at, exponents: exponents!.at });
      kernel.mergePatterns(exponents!.at, rest.at, count, merged!.at);
      const same = bufferOf(workspace, { at: merged!.at, byteLength: 2 * count }).equals(
        bufferOf(workspace, { at: source.at, byteLength: 2 * count }),
      );
      if (!same) throw mismatch(`blocks ${checked} to ${last}`);
    }
    heldElements -= count;
    heldBytes -= (last - checked) * BLOCK_BYTES;
    moveDown(source, 2 * count, 2 * heldElements);
    moveDown(rest, count, heldElements);
    moveDown(stream, (last - checked) * BLOCK_BYTES, Math.max(0, heldBytes));
    checked = last;
  }

  return {
    input(count) {
      if (count > strip || done + count > elements) {
        throw new InputError("input.shape", `unit ${name}: ${done + count} elements, ${elements} were counted`, { unit: name });
      }
      // The last strip's blocks are checked when the next one is asked for: until then its views are the caller's.
      const last = Math.min(blocks, Math.floor(Math.max(0, checked * BLOCK_BYTES + heldBytes - LOOK_AHEAD) / BLOCK_BYTES));
      if (last > checked) checkBlocks(last);
      return workspace.bytes({ at: source.at + 2 * heldElements, byteLength: 2 * count });
    },
    push(count) {
      const [at, restAt, streamAt] = [source.at + 2 * heldElements, rest.at + heldElements, stream.at + heldBytes];
      const bytes = 4 * kernel.encodeExponents(at, count, codes.at, streamAt, gaps.at, positions.at, state.at);
      kernel.splitSignMantissa(at, count, restAt);
      heldElements += count;
      heldBytes += bytes;
      done += count;
      return {
        stream: workspace.bytes({ at: streamAt, byteLength: bytes }),
        signMantissa: workspace.bytes({ at: restAt, byteLength: count }),
      };
    },
    finish() {
      const tail = new DataView(workspace.memory.buffer, state.at, 24);
      const held = tail.getUint32(8, true);
      const written = 4 * tail.getUint32(12, true);
      if (done !== elements || 8 * written + held !== totalBits) {
        throw new NumericError(
          "numeric.no-data",
          `unit ${name}: the weights changed while they were read; leave the source alone and start again`,
          { unit: name },
        );
      }
      const end = table.find(({ symbol }) => symbol === END)!;
      const last = finishStream(tail.getBigUint64(0, true), held, end);
      workspace.bytes({ at: stream.at + heldBytes, byteLength: last.length }).set(last);
      heldBytes += last.length;
      workspace.bytes({ at: stream.at + heldBytes, byteLength: 2 * LOOK_AHEAD }).fill(0);
      positionWords()[blocks] = elements;
      // No code starts where the last one ends on a byte boundary: the end symbol is not written there.
      const endWindow = Math.floor(totalBits / (8 * BYTES_PER_THREAD));
      if (totalBits % 8 === 0 && endWindow < windows && tail.getUint32(16, true) === elements && gapBytes()[endWindow] === totalBits % 64) {
        gapBytes()[endWindow] = 0;
      }
      checkBlocks(blocks);
      const packed = workspace.take(blocks * GAP_BYTES_PER_BLOCK);
      kernel.packGaps(gaps.at, windows, packed.at);
      return { stream: last, gaps: workspace.bytes(packed).slice(), outputPositions: positionWords().slice(0, blocks + 1) };
    },
  };
}

/** The bits still held, then the leading bits of the end code in what is left of the last byte. */
function finishStream(pending: bigint, held: number, end: { readonly length: number; readonly bits: number }): Uint8Array {
  const space = (8 - (held % 8)) % 8;
  const taken = Math.min(space, end.length);
  let bits = pending & ((1n << BigInt(held)) - 1n);
  bits = (bits << BigInt(taken)) | BigInt(Math.floor(end.bits / 2 ** (end.length - taken)));
  bits <<= BigInt(space - taken);
  const out = new Uint8Array((held + space) / 8);
  for (let i = out.length - 1; i >= 0; i--) {
    out[i] = Number(bits & 0xffn);
    bits >>= 8n;
  }
  return out;
}
