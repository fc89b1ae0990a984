/**
 * From patterns to symbols and back: a weight's coded part relative to what its row and column let expect.
 * @module
 */
import type { Classes } from "./classes.ts";
import type { EscapeWriter } from "./escapes.ts";
import { ESCAPE, FREQUENCIES, LENGTHS, RELATIVE_MIN, RELATIVE_ZERO } from "./frequencies.ts";
import { createCodeTable, type CodeTable } from "./table.ts";

/** The constant tables, in order of `q mod 4`. */
export const FLOAT_TABLES: readonly CodeTable[] = FREQUENCIES.map((frequencies, t) => createCodeTable(frequencies, LENGTHS[t]));

/** Where exponent and top two mantissa bits lie in a pattern: value = (pattern >> shift) & mask. */
export const CODED_BITS = { bf16: { shift: 5, mask: 0x3ff }, f16: { shift: 8, mask: 0x7f } } as const;

/** What a decoder needs to know of a tensor beside the bytes of a block. */
export interface TensorModel {
  /** All zeros for bytes. */
  readonly classes: Classes;
  /** The table of a tensor of bytes; the constant tables otherwise. */
  readonly tables: readonly CodeTable[];
}

/** Symbols of row `r` (of the tensor), given its patterns. @param escapes - receives what no symbol stands for. */
export function toSymbols(
  kind: "bf16" | "f16",
  patterns: Uint16Array,
  { rows, columns }: Classes,
  r: number,
  escapes?: EscapeWriter,
): Uint8Array {
  const { shift, mask } = CODED_BITS[kind];
  return Uint8Array.from(patterns, (pattern, c) => {
    const coded = (pattern >> shift) & mask;
    const relative = coded - 4 * ((rows[r]! + columns[c]!) >> 2) + RELATIVE_ZERO;
    const symbol = relative - RELATIVE_MIN;
    if (symbol >= 0 && symbol < ESCAPE) return symbol;
    escapes?.put(relative, coded);
    return ESCAPE;
  });
}

/** Which table codes element [r, c]. */
export function tableOf({ classes, tables }: TensorModel, r: number, c: number): CodeTable {
  return tables.length === 1 ? tables[0]! : tables[(classes.rows[r]! + classes.columns[c]!) & 3]!;
}
