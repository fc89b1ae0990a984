import fc from "fast-check";
import { expect, test } from "vitest";
import { decodeRows, fromRows, packRows, quantizeRows, rowLayout, toRows, toSigned, type RowDialect } from "./row-codes.ts";

const row = Float32Array.of(-0.8, 0.4, 0.05, -0.1, 0.8, 0, 0.3, -0.55);

test("extreme: the value of largest size becomes code 0, and its negative clips (the formula of onnxruntime's MatMulNBits quantizer)", () => {
  // min and max are equally large, so the negative one counts: scale 0.1, codes floor(10 w + 8.5) clipped at 15.
  const { codes, scales, zeros } = quantizeRows(row, 1, 8, { bits: 4, group: 8, dialect: "extreme", search: false });
  expect([...codes]).toEqual([0, 12, 9, 7, 15, 8, 11, 3]);
  expect(scales[0]).toBeCloseTo(0.1, 6);
  expect(zeros[0]).toBe(8);
});

test("absmax: int8 codes of max|w| / 127 around 128, half to even", () => {
  const { codes, scales } = quantizeRows(Float32Array.of(-1.27, 0.635, 0.005, 0.015), 1, 4, {
    bits: 8,
    group: 4,
    dialect: "absmax",
    search: false,
  });
  expect(scales[0]).toBeCloseTo(0.01, 7);
  expect(codes[0]).toBe(1);
  expect([...toSigned(codes, 8)].map((byte) => (byte << 24) >> 24)[0]).toBe(-127);
});

test("affine: the range holds 0, both ends are codes", () => {
  const { codes, zeros, scales } = quantizeRows(Float32Array.of(0.5, 3, 1.5, 0), 1, 4, {
    bits: 4,
    group: 4,
    dialect: "affine",
    search: false,
  });
  expect(scales[0]).toBeCloseTo(0.2, 7);
  expect(zeros[0]).toBe(0);
  expect([codes[1], codes[3]]).toEqual([15, 0]);
});

test("a run of zeros decodes to zeros in every dialect", () => {
  for (const dialect of ["absmax", "extreme", "affine"] satisfies RowDialect[]) {
    const coded = quantizeRows(new Float32Array(40), 1, 40, { bits: 4, group: 32, dialect, search: true });
    expect([...decodeRows(coded, 1, 40, 32)].every((value) => value === 0)).toBe(true);
  }
});

test("a search is never worse than the dialect's own scale, and the error it reports is that of its codes", () => {
  const values = fc.float32Array({ minLength: 48, maxLength: 48, min: -4, max: 4, noNaN: true });
  fc.assert(
    fc.property(values, fc.constantFrom<RowDialect>("absmax", "extreme", "affine"), (data, dialect) => {
      const scheme = { bits: 4, group: 16, dialect };
      const plain = quantizeRows(data, 3, 16, { ...scheme, search: false });
      const searched = quantizeRows(data, 3, 16, { ...scheme, search: true });
      expect(searched.noise).toBeLessThanOrEqual(plain.noise);
      const found = decodeRows(searched, 3, 16, 16).reduce((sum, value, i) => sum + (value - data[i]!) ** 2, 0);
      expect(found).toBeCloseTo(searched.noise, 3);
    }),
    { seed: 5, numRuns: 60 },
  );
});

test("NaN in a weight is an error", () => {
  expect(() => quantizeRows(Float32Array.of(1, NaN), 1, 2, { bits: 8, group: 2, dialect: "absmax", search: false })).toThrow(/NaN/);
});

test("rows of any axis come back in place", () => {
  const layout = rowLayout([2, 3, 4], 1);
  const values = Float32Array.from({ length: 24 }, (_, i) => i);
  const rows = toRows(values, layout);
  expect([...rows.subarray(0, 8)]).toEqual([0, 1, 2, 3, 12, 13, 14, 15]);
  expect(fromRows(rows, layout)).toEqual(values);
});

test("codes are packed first in the low bits, a row's last byte filled", () => {
  expect([...packRows(Uint8Array.of(1, 2, 3, 4, 5, 6), 3, 4, 8)]).toEqual([0x21, 0x83, 0x54, 0x86]);
  expect([...packRows(Uint8Array.of(1, 2, 3, 0), 4, 2, 0)]).toEqual([0b00111001]);
});

test("neighbours never add up to more than the limit, and free codes within it stay as they are", () => {
  const limit = { sum: 160, width: 6 };
  const scheme = { bits: 8, group: 6, dialect: "absmax", search: false } as const;
  const neighbours = Float32Array.of(127, 120, -127, 10, -100, -90);
  const { codes, zeros } = quantizeRows(neighbours, 1, 6, { ...scheme, pairs: limit });
  const signed = [...codes].map((code) => code - zeros[0]!);
  expect([signed[0]! + signed[1]!, signed[4]! + signed[5]!]).toEqual([160, -160]);
  expect(signed.slice(2, 4)).toEqual([-127, 10]);
  // The nearest point of the limit: both move by half of the excess, 87 and 30.
  expect([84, 83]).toContain(signed[0]);
  expect(signed.slice(4)).toEqual([-85, -75]);
});
