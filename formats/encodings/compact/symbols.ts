/**
 * From patterns to symbols and back: a weight's coded part relative to what its row and column let expect.
 * @module
 */
import { FormatError } from "../../../core/errors.ts";
import type { Classes } from "./classes.ts";
import { createCodeTable, type CodeTable } from "./table.ts";
import { ESCAPE, FREQUENCIES, RELATIVE_MIN, RELATIVE_ZERO } from "./frequencies.ts";
import type { ElementKind } from "./view.ts";

/** The constant tables, in order of `q mod 4`. */
export const FLOAT_TABLES: readonly CodeTable[] = FREQUENCIES.map(createCodeTable);

/** Where exponent and top two mantissa bits lie in a pattern: value = (pattern >> shift) & mask. */
export const CODED_BITS = { bf16: { shift: 5, mask: 0x3ff }, f16: { shift: 8, mask: 0x7f } } as const;

/** What a decoder needs to know of a tensor beside the bytes of a block. */
export interface TensorModel {
  /** All zeros for bytes. */
  readonly classes: Classes;
  /** The table of a tensor of bytes; the constant tables otherwise. */
  readonly tables: readonly CodeTable[];
}

/** Escapes of a block: one byte `relative` when it is 0..254, else 255 and the coded bits as u16, little-endian. */
export interface SymbolRow {
  readonly symbols: Uint8Array;
  readonly escapes: readonly number[];
}

/** Symbols and escapes of row `r` (of the tensor), given its patterns. */
export function toSymbols(kind: "bf16" | "f16", patterns: Uint16Array, { rows, columns }: Classes, r: number): SymbolRow {
  const { shift, mask } = CODED_BITS[kind];
  const escapes: number[] = [];
  const symbols = Uint8Array.from(patterns, (pattern, c) => {
    const coded = (pattern >> shift) & mask;
    const relative = coded - 4 * ((rows[r]! + columns[c]!) >> 2) + RELATIVE_ZERO;
    const symbol = relative - RELATIVE_MIN;
    if (symbol >= 0 && symbol < ESCAPE) return symbol;
    if (relative >= 0 && relative < 255) escapes.push(relative);
    else escapes.push(255, coded & 0xff, coded >> 8);
    return ESCAPE;
  });
  return { symbols, escapes };
}

/** Which table codes element [r, c]. */
export function tableOf({ classes, tables }: TensorModel, r: number, c: number): CodeTable {
  return tables.length === 1 ? tables[0]! : tables[(classes.rows[r]! + classes.columns[c]!) & 3]!;
}

/** Reads escapes in order. */
export function escapeReader(name: string, kind: ElementKind, bytes: Uint8Array): { next(expected: number): number; done(): boolean } {
  let at = 0;
  const byte = (): number => {
    if (at >= bytes.length) throw new FormatError("format.field", `${name}: more escapes than their bytes hold`, { block: name });
    return bytes[at++]!;
  };
  return {
    /** @param expected - coded bits of relative 0. */
    next(expected) {
      const relative = byte();
      const mask = kind === "f16" ? 0x7f : 0x3ff;
      return (relative < 255 ? expected + relative : byte() + 256 * byte()) & mask;
    },
    done: () => at === bytes.length,
  };
}
