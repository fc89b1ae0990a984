/**
 * Look-up rows: the code table as 256-entry tables that a decoder follows one
 * byte of the stream at a time.
 *
 * Row i serves the codes that begin with prefix i, a whole number of bytes;
 * a value ≥ 240 is a pointer: row 256 − value goes on with the next byte. The
 * last row holds code lengths. Source: DFloat11 0.5.0 `get_luts`.
 * @module
 */
import { END, type CodeWord } from "./code-table.ts";
import { FIRST_POINTER, MAX_DECODE_ROWS, type Df11Refusal } from "./fields.ts";

/** Whole bytes of a code before its last, and the code's text. */
function prefixOf(bits: string): string {
  return bits.slice(0, 8 * Math.floor((bits.length - 1) / 8));
}

/**
 * @param table - code words in table order, the end symbol included.
 * @returns the rows, shape [decode rows + 1, 256], or why there are none.
 */
export function buildLookUp(table: readonly CodeWord[]): { readonly luts: Uint8Array } | { readonly refusal: Df11Refusal } {
  const words = table
    .filter(({ symbol }) => symbol !== END)
    .map(({ symbol, length, bits }) => ({ symbol, text: bits.toString(2).padStart(length, "0") }));
  const prefixes = [...new Set(["", ...words.map(({ text }) => prefixOf(text))])].toSorted((a, b) => a.length - b.length);
  if (prefixes.length > MAX_DECODE_ROWS) {
    return {
      refusal: { reason: "rows", text: `needs ${prefixes.length} decode rows, the format can point to ${MAX_DECODE_ROWS}` },
    };
  }
  const rowOf = new Map(prefixes.map((prefix, row) => [prefix, row]));
  const luts = new Uint8Array((prefixes.length + 1) * 256);
  const known = new Uint8Array(prefixes.length * 256);
  for (const { symbol, text } of words) {
    const own = prefixOf(text);
    for (let depth = 0; 8 * depth <= own.length; depth++) {
      const row = rowOf.get(own.slice(0, 8 * depth));
      // A shorter prefix of a code owns a row only when some code ends there; pointers skip none, so it always does or is the parent.
      if (row === undefined) return { refusal: { reason: "rows", text: "a code skips a decode row" } };
      const rest = text.slice(8 * depth);
      const key = Number.parseInt(rest.slice(0, 8).padEnd(8, "0"), 2);
      luts[row * 256 + key] = 8 * depth === own.length ? symbol : 256 - rowOf.get(text.slice(0, 8 * (depth + 1)))!;
      known[row * 256 + key] = 1;
    }
  }
  if (known[0] === 0) {
    return { refusal: { reason: "end-code", text: "the end symbol owns the all-zero code, so look-up row 0 has no first value" } };
  }
  // The official fill carries the last value forward and does not start afresh at a row's head.
  let last = 0;
  for (let i = 0; i < known.length; i++) {
    if (known[i] === 1) last = luts[i]!;
    else luts[i] = last;
  }
  for (const { symbol, length } of table) if (symbol !== END) luts[known.length + symbol] = length;
  return { luts };
}

/** Whether a look-up value is a pointer to another row. */
export function isPointer(value: number): boolean {
  return value >= FIRST_POINTER;
}
