import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeFloat, E4M3, encodeFloat } from "../../core/float.ts";
import { fp8E4M3, int8 } from "./bytes.ts";
import { encodings } from "./index.ts";
import { intPacked, packColumns, packedWords, packRows, unpackColumns, unpackRows } from "./int-packed.ts";

interface PackedCase {
  readonly name: string;
  readonly bits: number;
  readonly rows: number;
  readonly cols: number;
  readonly codes: number[];
  readonly words: string[];
}
const load = (name: string): unknown => JSON.parse(readFileSync(`fixtures/encodings/${name}.json`, "utf8"));
const packed = load("int-packed") as { cases: PackedCase[]; columns: PackedCase[] };

const bytesOf = (words: readonly string[]): Uint8Array => new Uint8Array(Uint32Array.from(words, Number).buffer);

describe("int-packed", () => {
  test.each(packed.cases)("$name", ({ bits, rows, cols, codes, words }) => {
    expect(packRows(Int8Array.from(codes), rows, cols, bits)).toEqual(bytesOf(words));
    const back = new Int8Array(rows * cols);
    unpackRows(bytesOf(words), rows, cols, bits, back);
    expect([...back]).toEqual(codes);
  });

  test.each(packed.columns)("$name", ({ bits, rows, cols, codes, words }) => {
    expect(packColumns(Int8Array.from(codes), rows, cols, bits)).toEqual(bytesOf(words));
    const back = new Int8Array(rows * cols);
    unpackColumns(bytesOf(words), rows, cols, bits, back);
    expect([...back]).toEqual(codes);
  });

  test("any codes of any width come back, and 32 of them take exactly as many words as bits", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 8 }),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 70 }),
        fc.nat(),
        (bits, rows, cols, seed) => {
          const half = 2 ** (bits - 1);
          const codes = Int8Array.from({ length: rows * cols }, (_, i) => ((i * 7919 + seed) % (2 * half)) - half);
          const encoding = intPacked(bits);
          const bytes = encoding.encode(codes, rows, cols);
          expect(bytes.length).toBe(rows * encoding.storedCols(cols) * 4);
          const back = new Int8Array(rows * cols);
          encoding.decode(bytes, rows, cols, back);
          expect(back).toEqual(codes);
          expect(packedWords(32, bits)).toBe(bits);
        },
      ),
      { seed: 1, numRuns: 200 },
    );
  });

  test("codes that do not fit and buffers of another size are refused", () => {
    expect(() => packRows(Int8Array.of(8), 1, 1, 4)).toThrow(/code 8 at \[0, 0\]/);
    expect(() => packRows(Int8Array.of(-9), 1, 1, 4)).toThrow(/does not fit 4 bits/);
    expect(() => packRows(new Int8Array(3), 1, 4, 4)).toThrow(/expected 4/);
    expect(() => unpackRows(new Uint8Array(3), 1, 4, 4, new Int8Array(4))).toThrow(/expected 4/);
    expect(() => intPacked(9)).toThrow(/1 to 8/);
  });
});

describe("one code a byte", () => {
  test("int8", () => {
    const { codes, bytes } = load("int8") as { codes: number[]; bytes: number[] };
    expect([...int8.encode(Int8Array.from(codes), 2, 4)]).toEqual(bytes);
    const back = new Int8Array(8);
    int8.decode(Uint8Array.from(bytes), 2, 4, back);
    expect([...back]).toEqual(codes);
  });

  test("fp8-e4m3: bytes are bit patterns", () => {
    const { values, bytes, decoded } = load("fp8-e4m3") as { values: number[]; bytes: number[]; decoded: number[] };
    const patterns = Uint8Array.from(values, (x) => encodeFloat(E4M3, x, true));
    expect([...fp8E4M3.encode(patterns, 1, values.length)]).toEqual(bytes);
    const back = new Uint8Array(values.length);
    fp8E4M3.decode(Uint8Array.from(bytes), 1, values.length, back);
    expect([...back].map((code) => decodeFloat(E4M3, code))).toEqual(decoded);
  });

  test("the table knows each by its name", () => {
    expect([...encodings.keys()]).toContain("int-packed-4");
    for (const [name, encoding] of encodings) expect(encoding.name).toBe(name);
  });
});
