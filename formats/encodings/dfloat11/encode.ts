/**
 * DFloat11 encoder, byte-identical with the official one.
 *
 * This is the definition: plain and slow. `kernels/df11` has the fast twins.
 * One deliberate difference: where the official encoder leaves out the last
 * output position (a code that straddles a block boundary and ends on a byte
 * boundary), this one writes it, as its kernel needs.
 *
 * Source: DFloat11 0.5.0 `encode_weights`, `get_codec`.
 * @module
 */
import { buildCodeTable, END, type CodeWord } from "./code-table.ts";
import {
  BLOCK_BYTES,
  BYTES_PER_THREAD,
  countExponents,
  FIRST_POINTER,
  GAP_BYTES_PER_BLOCK,
  MAX_BLOCK_ELEMENTS,
  MAX_UNIT_ELEMENTS,
  signMantissaOf,
  type Df11Refusal,
  type Df11Unit,
} from "./fields.ts";
import { buildLookUp } from "./look-up.ts";

export type Df11Encoding = { readonly unit: Df11Unit } | { readonly refusal: Df11Refusal };

/** The code of a unit, or why it cannot have one. @param counts - occurrences by exponent, length 256. */
export function planUnit(
  counts: Float64Array,
): { readonly table: readonly CodeWord[]; readonly luts: Uint8Array } | { readonly refusal: Df11Refusal } {
  const symbols = Array.from(counts.keys()).filter((symbol) => counts[symbol]! > 0);
  const total = counts.reduce((sum, count) => sum + count, 0);
  const refuse = (reason: Df11Refusal["reason"], text: string): { refusal: Df11Refusal } => ({ refusal: { reason, text } });
  if (total === 0) return refuse("empty", "holds no element");
  if (total > MAX_UNIT_ELEMENTS) return refuse("size", `${total} elements, the kernel counts to ${MAX_UNIT_ELEMENTS}`);
  const high = symbols.find((symbol) => symbol >= FIRST_POINTER);
  if (high !== undefined)
    return refuse("exponent", `exponent ${high} (huge, Inf or NaN) has no code; the format holds 0 to ${FIRST_POINTER - 1}`);
  if (symbols.length === 1) return refuse("symbols", "one exponent only: the official encoder has no form for it");
  const table = buildCodeTable(counts);
  if (table === undefined) return refuse("code-length", "no code of at most 32 bits");
  const rows = buildLookUp(table);
  return "refusal" in rows ? rows : { table, luts: rows.luts };
}

/**
 * Encode one unit.
 *
 * @param patterns - bf16 bit patterns of the unit's tensors one after another, row-major.
 * @param splitPositions - cumulative element counts, the last one left out.
 * @returns the six tensors, or why DFloat11 (or its official loader) cannot hold the unit.
 */
export function encodeUnit(patterns: Uint16Array, splitPositions: readonly number[]): Df11Encoding {
  const plan = planUnit(countExponents(patterns));
  if ("refusal" in plan) return plan;
  const codes = new Map(plan.table.map((word) => [word.symbol, word]));
  const totalBits = patterns.reduce((sum, pattern) => sum + codes.get((pattern >> 7) & 0xff)!.length, 0);
  const bytes = Math.ceil(totalBits / 8);
  const blocks = Math.ceil(bytes / BLOCK_BYTES);
  const stream = new Uint8Array(bytes);
  const windows = blocks * (BLOCK_BYTES / BYTES_PER_THREAD);
  const firstStart = new Int8Array(windows).fill(-1);
  const positions = new Uint32Array(blocks + 1).fill(patterns.length);
  const signMantissa = new Uint8Array(patterns.length);
  let at = 0;
  const noteStart = (element: number): void => {
    const window = Math.floor(at / (8 * BYTES_PER_THREAD));
    if (window >= windows || firstStart[window] !== -1) return;
    firstStart[window] = at % (8 * BYTES_PER_THREAD);
    const block = Math.floor(at / (8 * BLOCK_BYTES));
    positions[block] = Math.min(positions[block]!, element);
  };
  for (let i = 0; i < patterns.length; i++) {
    const { length, bits } = codes.get((patterns[i]! >> 7) & 0xff)!;
    noteStart(i);
    writeBits(stream, at, bits, length);
    at += length;
    signMantissa[i] = signMantissaOf(patterns[i]!);
  }
  if (at % 8 !== 0) {
    // The last byte is filled with the leading bits of the end code, zeros after it; the end code starts in its window.
    noteStart(patterns.length);
    const end = codes.get(END)!;
    const space = 8 - (at % 8);
    const taken = Math.min(space, end.length);
    writeBits(stream, at, Math.floor(end.bits / 2 ** (end.length - taken)), taken);
  }
  return {
    unit: {
      luts: plan.luts,
      encodedExponent: stream,
      signMantissa,
      outputPositions: positions,
      gaps: packGaps(firstStart, blocks),
      splitPositions,
    },
  };
}

/**
 * Why the official loader could not launch a unit that the format holds: its kernel stages one block's
 * elements in shared memory. Encoders whose output must load there store such a unit uncompressed.
 */
export function refuseLaunch({ outputPositions }: Df11Unit): Df11Refusal | undefined {
  const largest = outputPositions.reduce((most, position, b) => (b === 0 ? 0 : Math.max(most, position - outputPositions[b - 1]!)), 0);
  if (largest <= MAX_BLOCK_ELEMENTS) return undefined;
  return {
    reason: "shared-memory",
    text: `${largest} elements in one ${BLOCK_BYTES}-byte block, the official kernel launches with at most ${MAX_BLOCK_ELEMENTS}`,
  };
}

/** Write the low `length` bits of `bits` at bit `at`, most significant first; the target is zero. */
function writeBits(stream: Uint8Array, at: number, bits: number, length: number): void {
  let left = length;
  let position = at;
  while (left > 0) {
    const space = 8 - (position % 8);
    const take = Math.min(space, left);
    const piece = Math.floor(bits / 2 ** (left - take)) % 2 ** take;
    stream[Math.floor(position / 8)]! |= piece << (space - take);
    position += take;
    left -= take;
  }
}

/** 5-bit gaps, most significant first; a window in which no code starts has gap 0. */
function packGaps(firstStart: Int8Array, blocks: number): Uint8Array {
  const gaps = new Uint8Array(blocks * GAP_BYTES_PER_BLOCK);
  for (let w = 0; w < firstStart.length; w++) if (firstStart[w]! > 0) writeBits(gaps, 5 * w, firstStart[w]!, 5);
  return gaps;
}
