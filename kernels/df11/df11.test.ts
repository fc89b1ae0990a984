import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FormatError } from "../../core/errors.ts";
import { createRandom } from "../../core/random.ts";
import { decodeUnit } from "../../formats/encodings/dfloat11/decode.ts";
import { encodeUnit } from "../../formats/encodings/dfloat11/encode.ts";
import type { Df11Unit } from "../../formats/encodings/dfloat11/fields.ts";
import { openCheckpoint } from "../../formats/checkpoint.ts";
import { decodeUnitFast } from "./decode.ts";
import { encodeUnitFast } from "./encode.ts";

const FIXTURES = join(import.meta.dirname, "../../fixtures/lossless/df11");
const bytesOf = (patterns: Uint16Array): Uint8Array => new Uint8Array(patterns.buffer, patterns.byteOffset, patterns.byteLength);

function decodeFast(unit: Df11Unit): Uint16Array {
  const out = new Uint16Array(unit.signMantissa.length);
  decodeUnitFast("unit", unit, bytesOf(out));
  return out;
}

/** Gaussian weights of a scale, as bf16 patterns. */
function gaussian(count: number, seed: number, scale = 0.02): Uint16Array {
  const random = createRandom(seed);
  const words = new Uint32Array(Float32Array.from({ length: count }, () => random.normal() * scale).buffer);
  return Uint16Array.from(words, (word) => word >>> 16);
}

describe("the WASM twins", () => {
  test("encode and decode every fixture source like the definition", async () => {
    const checkpoint = await openCheckpoint(join(FIXTURES, "edges/source.safetensors"));
    expect(checkpoint.tensors.size).toBeGreaterThan(16);
    for (const [name, lazy] of checkpoint.tensors) {
      const { bytes } = await lazy.read();
      const patterns = new Uint16Array(bytes.slice().buffer);
      const expected = encodeUnit(patterns, []);
      expect(encodeUnitFast([bytes], []), name).toEqual(expected);
      if ("unit" in expected) expect(decodeFast(expected.unit), name).toEqual(patterns);
    }
    await checkpoint.close();
  });

  test("agree with the definition at every length around a window and a block boundary", () => {
    const all = gaussian(14000, 1);
    for (const length of [2, 3, 17, 63, 64, 65, 500, 12290, 12311, 12345, 12399, 12400, 12401, 13999]) {
      const patterns = all.slice(0, length);
      const expected = encodeUnit(patterns, []);
      expect(encodeUnitFast([bytesOf(patterns)], []), String(length)).toEqual(expected);
      if ("unit" in expected) expect(decodeFast(expected.unit)).toEqual(patterns);
    }
  });

  test("a unit of several tensors is encoded as one stream, whatever the pieces", () => {
    const [a, b, c] = [gaussian(5001, 2), gaussian(1, 3), gaussian(80001, 4)];
    const joined = Uint16Array.from([...a, ...b, ...c]);
    expect(encodeUnitFast([bytesOf(a), bytesOf(b), bytesOf(c)], [5001, 5002])).toEqual(encodeUnit(joined, [5001, 5002]));
  });

  test("agree over many blocks where steps of twelve codes, of four and of one follow each other", () => {
    const random = createRandom(8);
    const pick = {
      // Twelve codes fit a step nearly always.
      common: () => (random.uniform() < 0.6 ? 120 : 121 + random.below(14)),
      // Each four of these fit, twelve do not.
      rare: () => 121 + random.below(14),
      // None of these has a rank.
      far: () => 10 + random.below(6),
    };
    const run = (count: number, kind: keyof typeof pick): number[] =>
      Array.from({ length: count }, () => (pick[kind]() << 7) | (random.below(128) + (random.below(2) << 15)));
    const kinds: (keyof typeof pick)[] = ["common", "rare", "far"];
    const patterns = Uint16Array.from([
      ...run(60_001, "common"),
      ...run(20_003, "rare"),
      ...run(500, "far"),
      // Runs of 1 to 20, so that every place in a window and in a step meets every other.
      ...Array.from({ length: 4000 }, () => run(1 + random.below(20), kinds[random.below(3)]!)).flat(),
      ...run(5, "far"),
    ]);
    const expected = encodeUnit(patterns, []);
    if (!("unit" in expected)) throw new Error(expected.refusal.text);
    expect(expected.unit.outputPositions.length).toBeGreaterThan(12);
    expect(encodeUnitFast([bytesOf(patterns)], [])).toEqual(expected);
    expect(Buffer.compare(bytesOf(decodeFast(expected.unit)), bytesOf(patterns))).toBe(0);
  });

  test("agree on random alphabets, with codes far longer than the fast table sees", () => {
    const alphabet = fc.uniqueArray(fc.integer({ min: 0, max: 239 }), { minLength: 2, maxLength: 30 });
    fc.assert(
      fc.property(alphabet, fc.integer(), fc.integer({ min: 1, max: 3000 }), (symbols, seed, count) => {
        const random = createRandom(seed);
        // Geometric counts make long codes.
        const pick = (): number => symbols[Math.min(symbols.length - 1, Math.floor(-Math.log2(1 - random.uniform())))]!;
        const patterns = Uint16Array.from({ length: count }, () => (pick() << 7) | (random.below(128) + (random.below(2) << 15)));
        const expected = encodeUnit(patterns, []);
        expect(encodeUnitFast([bytesOf(patterns)], [])).toEqual(expected);
        if ("unit" in expected) expect(decodeFast(expected.unit)).toEqual(patterns);
      }),
      { seed: 5, numRuns: 60 },
    );
  });

  test("a changed byte gives a typed error or the definition's own answer, never anything else", () => {
    const patterns = gaussian(20000, 6);
    const encoding = encodeUnitFast([bytesOf(patterns)], []);
    if (!("unit" in encoding)) throw new Error("not held");
    const random = createRandom(7);
    let errors = 0;
    for (let i = 0; i < 200; i++) {
      const unit = { ...encoding.unit };
      const field = (["luts", "encodedExponent", "gaps"] as const)[random.below(3)]!;
      unit[field] = unit[field].slice();
      unit[field][random.below(unit[field].length)]! ^= 1 << random.below(8);
      try {
        const decoded = decodeFast(unit);
        expect(decoded.length).toBe(patterns.length);
        // Gaps inside a block are not used. Changed rows may give other weights: what tells is the checksum above this layer.
        if (field === "gaps") expect(Buffer.compare(bytesOf(decoded), bytesOf(patterns))).toBe(0);
        if (field === "encodedExponent") expect(Buffer.compare(bytesOf(decoded), bytesOf(decodeUnit("unit", unit)))).toBe(0);
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
        errors++;
      }
    }
    expect(errors).toBeGreaterThan(30);
  });
});

test("the recipes up to fifteen million weights, by hash of the six tensors", { timeout: 60_000 }, async () => {
  const { createHash } = await import("node:crypto");
  const { recipes } = JSON.parse(readFileSync(join(FIXTURES, "recipes.json"), "utf8")) as {
    recipes: {
      name: string;
      counts: [number, number][];
      a: number;
      b: number;
      elements: number;
      tensors: Record<string, { sha256: string }>;
    }[];
  };
  for (const { name, counts, a, b, elements, tensors } of recipes.toSorted((x, y) => x.elements - y.elements).slice(0, 5)) {
    const exponents = new Uint8Array(elements);
    let at = 0;
    for (const [exponent, count] of counts) {
      exponents.fill(exponent, at, at + count);
      at += count;
    }
    const patterns = new Uint16Array(elements);
    for (let i = 0; i < elements; i++) {
      const s = Math.imul(i, 0x9e3779b1) >>> 24;
      patterns[i] = ((s & 0x80) << 8) | (exponents[(i * a + b) % elements]! << 7) | (s & 0x7f);
    }
    const encoding = encodeUnitFast([bytesOf(patterns)], []);
    if (!("unit" in encoding)) throw new Error(`${name}: ${encoding.refusal.text}`);
    const hash = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
    const { unit } = encoding;
    const raw = { luts: unit.luts, encoded_exponent: unit.encodedExponent, sign_mantissa: unit.signMantissa, gaps: unit.gaps };
    for (const [suffix, bytes] of Object.entries(raw)) expect(hash(bytes), `${name}.${suffix}`).toBe(tensors[suffix]!.sha256);
    expect(hash(new Uint8Array(unit.outputPositions.buffer)), name).toBe(tensors["output_positions"]!.sha256);
    expect(Buffer.compare(bytesOf(decodeFast(unit)), bytesOf(patterns)), name).toBe(0);
  }
});
