/**
 * Encodes a unit strip by strip, in memory that does not grow with the unit
 * (but for one byte a 64-bit window).
 * @module
 */
import { InputError, NumericError } from "../../core/errors.ts";
import { END, type CodeWord } from "../../formats/encodings/dfloat11/code-table.ts";
import { planUnit } from "../../formats/encodings/dfloat11/encode.ts";
import { BLOCK_BYTES, BYTES_PER_THREAD, GAP_BYTES_PER_BLOCK, type Df11Refusal } from "../../formats/encodings/dfloat11/fields.ts";
import { wasm } from "../generated/df11.wasm.ts";
import type { Region, Workspace } from "../load-wasm.ts";
import { LOOK_AHEAD, type BlockIndex } from "./blocks.ts";
import type { Df11Kernel } from "./kernel.ts";

/** Elements of a strip, at most: strip and output together stay in a second-level cache. */
export const STRIP: number = 2 ** 18;
const WINDOWS_PER_BLOCK = BLOCK_BYTES / BYTES_PER_THREAD;
/** Consecutive exponents that have a rank of their own in the kernels' tables of four. */
const RANKS = 15;
/** Bytes of a table by four ranks. */
const QUAD_TABLE_BYTES = 4 * 2 ** 16;
/** What the encoder's kernel keeps between calls and needs during one. */
const STATE_BYTES = 40;
const SCRATCH_BYTES = 24 * 1024;
/** Fewer elements are counted one by one: clearing and adding up a table of four costs more. */
const MIN_QUAD_ELEMENTS = 2 ** 14;
/** Counts are added up before 32 bits could overflow. */
const MAX_UNFOLDED = 2 ** 31;

/** The code of a unit and the sizes that follow from its histogram. */
export interface UnitCode {
  readonly table: readonly CodeWord[];
  readonly luts: Uint8Array;
  readonly elements: number;
  readonly totalBits: number;
  readonly streamBytes: number;
  readonly blocks: number;
  /** First of the exponents that have ranks: those 15 that occur most. */
  readonly base: number;
}

/** @param counts - occurrences by exponent, length 256. */
export function planCode(counts: Float64Array): UnitCode | { readonly refusal: Df11Refusal } {
  const plan = planUnit(counts);
  if ("refusal" in plan) return plan;
  const totalBits = plan.table.reduce((sum, { symbol, length }) => (symbol === END ? sum : sum + counts[symbol]! * length), 0);
  const streamBytes = Math.ceil(totalBits / 8);
  const elements = counts.reduce((sum, count) => sum + count, 0);
  return { ...plan, elements, totalBits, streamBytes, blocks: Math.ceil(streamBytes / BLOCK_BYTES), base: baseOf(counts) };
}

/** First of the consecutive exponents that occur most together. */
function baseOf(counts: Float64Array): number {
  let [base, most] = [0, -1];
  for (let first = 0; first + RANKS <= counts.length; first++) {
    const found = counts.subarray(first, first + RANKS).reduce((sum, count) => sum + count, 0);
    if (found > most) [base, most] = [first, found];
  }
  return base;
}

/** Adds up exponents of bf16 patterns. The caller marks before and releases after. */
export interface ExponentCounter {
  /** Where the next patterns go: at most STRIP of them. */
  readonly input: Region;
  /** Counts `elements` patterns at `input`. */
  add(elements: number): void;
  /** Occurrences by exponent so far, length 256. */
  readonly counts: Float64Array;
}

export function createExponentCounter(workspace: Workspace): ExponentCounter {
  const kernel = workspace.kernel<Df11Kernel>(wasm);
  const input = workspace.take(2 * STRIP);
  const single = workspace.take(4 * 256);
  const quads = workspace.take(QUAD_TABLE_BYTES);
  const counts = new Float64Array(256);
  workspace.bytes(single).fill(0);
  let base: number | undefined;
  let unfolded = 0;
  const fold = (): void => {
    if (unfolded === 0) return;
    if (base !== undefined) kernel.foldQuads(base, quads.at, single.at);
    new Uint32Array(workspace.memory.buffer, single.at, 256).forEach((count, exponent) => (counts[exponent]! += count));
    workspace.bytes(single).fill(0);
    unfolded = 0;
  };
  return {
    input,
    get counts() {
      fold();
      return counts;
    },
    add(elements) {
      if (unfolded + elements > MAX_UNFOLDED) fold();
      if (elements < MIN_QUAD_ELEMENTS) kernel.countExponents(input.at, elements, single.at);
      else {
        if (base === undefined) {
          // The first weights tell well enough which exponents are frequent; the others only take longer.
          fold();
          kernel.countExponents(input.at, MIN_QUAD_ELEMENTS, single.at);
          base = baseOf(Float64Array.from(new Uint32Array(workspace.memory.buffer, single.at, 256)));
          workspace.bytes(single).fill(0);
          kernel.clearQuads(quads.at);
        }
        kernel.countQuads(input.at, elements, base, quads.at, single.at);
      }
      unfolded += elements;
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
  /** Encodes what was put there. */
  push(elements: number): EncodedStrip;
  /** The index as far as it is known: of the complete blocks and the first position and gap behind them; after `finish`, all of it. */
  readonly index: BlockIndex;
  /** Blocks whose streams, and the bytes that a decoder looks at behind them, were handed out. */
  complete(): number;
  /** The stream's last bytes and the index. @throws {NumericError} when the patterns were not those that were counted. */
  finish(): { readonly stream: Uint8Array; readonly gaps: Uint8Array; readonly outputPositions: Uint32Array };
}

/**
 * The caller marks before and releases after.
 *
 * @param name - for messages.
 */
export function createUnitEncoder(name: string, code: UnitCode, workspace: Workspace): UnitEncoder {
  const { table, elements, totalBits, blocks, base } = code;
  const kernel = workspace.kernel<Df11Kernel>(wasm);
  const windows = blocks * WINDOWS_PER_BLOCK;
  const codes = workspace.take(256 * 8);
  const words = new BigUint64Array(workspace.memory.buffer, codes.at, 256).fill(0n);
  for (const { symbol, length, bits } of table) if (symbol !== END) words[symbol] = (BigInt(bits) << 6n) | BigInt(length);
  const quads = workspace.take(QUAD_TABLE_BYTES);
  const scratch = workspace.take(SCRATCH_BYTES);
  // A few codes are taken one by one sooner than a table is filled.
  if (elements < MIN_QUAD_ELEMENTS) workspace.bytes(quads).fill(0xff);
  else kernel.buildQuads(codes.at, base, quads.at, scratch.at);
  const gaps = workspace.take(windows + 64);
  const positions = workspace.take(4 * (blocks + 2));
  const state = workspace.take(STATE_BYTES);
  const strip = Math.min(STRIP, elements);
  const source = workspace.take(2 * strip + 64);
  const rest = workspace.take(strip + 64);
  // A code is at most 32 bits; a window may have been begun before.
  const stream = workspace.take(4 * strip + 64);
  workspace.bytes(gaps)[0] = 0;
  workspace.bytes(state).fill(0);
  const positionWords = (): Uint32Array => new Uint32Array(workspace.memory.buffer, positions.at, blocks + 2);
  positionWords().fill(elements);
  positionWords()[0] = 0;
  let done = 0;

  return {
    index: {
      position: (block) => positionWords()[block]!,
      gap: (block) => workspace.bytes(gaps)[WINDOWS_PER_BLOCK * block]!,
      blocks,
      elements,
      streamBytes: code.streamBytes,
    },
    complete() {
      const written = new Uint32Array(workspace.memory.buffer, state.at, 4)[3]!;
      return Math.max(0, Math.floor((written - LOOK_AHEAD / BYTES_PER_THREAD) / WINDOWS_PER_BLOCK));
    },
    input(count) {
      if (count > strip || done + count > elements) {
        throw new InputError("input.shape", `unit ${name}: ${done + count} elements, ${elements} were counted`, { unit: name });
      }
      return workspace.bytes({ at: source.at, byteLength: 2 * count });
    },
    push(count) {
      const written = kernel.encodeStrip(
        source.at,
        count,
        codes.at,
        base,
        quads.at,
        scratch.at,
        stream.at,
        rest.at,
        gaps.at,
        positions.at,
        state.at,
        // A changed source must not make the index longer than its memory.
        windows,
      );
      done += count;
      return {
        stream: workspace.bytes({ at: stream.at, byteLength: BYTES_PER_THREAD * written }),
        signMantissa: workspace.bytes({ at: rest.at, byteLength: count }),
      };
    },
    finish() {
      const tail = new DataView(workspace.memory.buffer, state.at, 24);
      const [pending, held, windowsWritten] = [tail.getBigUint64(0, true), tail.getUint32(8, true), tail.getUint32(12, true)];
      const written = 8 * BYTES_PER_THREAD * windowsWritten + held;
      if (done !== elements || written !== totalBits) {
        throw new NumericError(
          "numeric.no-data",
          `unit ${name}: the weights changed while they were read; leave the source alone and start again`,
          { unit: name },
        );
      }
      const end = table.find(({ symbol }) => symbol === END)!;
      positionWords()[blocks] = elements;
      // No code starts where the last one ends on a byte boundary: the end symbol is not written there.
      const gapBytes = workspace.bytes({ at: gaps.at, byteLength: windows });
      gapBytes.fill(0, windowsWritten + 1);
      const endWindow = Math.floor(totalBits / (8 * BYTES_PER_THREAD));
      if (totalBits % 8 === 0 && endWindow < windows && gapBytes[endWindow] === totalBits % 64) gapBytes[endWindow] = 0;
      const packed = workspace.take(blocks * GAP_BYTES_PER_BLOCK);
      kernel.packGaps(gaps.at, windows, packed.at);
      return {
        stream: finishStream(pending, held, end),
        gaps: workspace.bytes(packed).slice(),
        outputPositions: positionWords().slice(0, blocks + 1),
      };
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
