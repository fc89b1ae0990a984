import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  BF16,
  decodeBf16,
  decodeE8M0,
  decodeF16,
  decodeFloat,
  E2M1,
  E4M3,
  E5M2,
  encodeBf16,
  encodeE8M0,
  encodeF16,
  encodeFloat,
  exponentOf,
  F16,
  FLOAT_FORMATS,
  roundToFloat,
} from "./float.ts";

describe.each(Object.entries(FLOAT_FORMATS))("%s", (_name, format) => {
  const codes = Array.from({ length: 2 ** (1 + format.exponentBits + format.mantissaBits) }, (_, code) => code);
  const finite = codes.map((code) => decodeFloat(format, code)).filter((x) => Number.isFinite(x));

  test("every finite code decodes and encodes back to itself", () => {
    const wrong = codes.filter(
      (code) => Number.isFinite(decodeFloat(format, code)) && encodeFloat(format, decodeFloat(format, code)) !== code,
    );
    expect(wrong).toEqual([]);
  });

  test("the largest finite value is the format's max", () => {
    expect(finite.reduce((a, b) => Math.max(a, b))).toBe(format.max);
  });

  test("a midpoint of neighbours goes to the even code, and its sides to the nearer one", () => {
    const positive = [...new Set(finite.filter((x) => x >= 0))].toSorted((a, b) => a - b);
    const step = Math.max(1, Math.floor(positive.length / 2000));
    const wrong: number[] = [];
    for (let i = 0; i + 1 < positive.length; i += step) {
      const [low, high] = [positive[i]!, positive[i + 1]!];
      const middle = low / 2 + high / 2;
      const even = encodeFloat(format, low) % 2 === 0 ? low : high;
      const quarter = (high - low) / 4;
      if (roundToFloat(format, middle) !== even) wrong.push(middle);
      if (roundToFloat(format, middle - quarter) !== low || roundToFloat(format, middle + quarter) !== high) wrong.push(middle);
    }
    expect(wrong).toEqual([]);
  });

  test("signs mirror", () => {
    fc.assert(
      fc.property(fc.float({ noNaN: true }), (x) => {
        expect(Math.abs(roundToFloat(format, -x))).toBe(Math.abs(roundToFloat(format, x)));
      }),
      { seed: 1 },
    );
  });
});

test("e4m3: 448 is 0x7E, above 464 is NaN unless saturating, the smallest subnormal is 2^-9", () => {
  expect(encodeFloat(E4M3, 448)).toBe(0x7e);
  expect(encodeFloat(E4M3, 464)).toBe(0x7e);
  expect(encodeFloat(E4M3, 465)).toBe(0x7f);
  expect(encodeFloat(E4M3, 465, true)).toBe(0x7e);
  expect(encodeFloat(E4M3, -1e9, true)).toBe(0xfe);
  expect(decodeFloat(E4M3, 1)).toBe(2 ** -9);
  expect(decodeFloat(E4M3, 0x7f)).toBeNaN();
});

test("e5m2 overflows to infinity at 61440 and has NaN codes", () => {
  expect(decodeFloat(E5M2, encodeFloat(E5M2, 61439))).toBe(57344);
  expect(decodeFloat(E5M2, encodeFloat(E5M2, 61440))).toBe(Infinity);
  expect(decodeFloat(E5M2, 0x7d)).toBeNaN();
});

test("e2m1 thresholds are those of OCP MX: ties to the even code", () => {
  const thresholds: readonly [number, number][] = [
    [0.25, 0],
    [0.26, 0.5],
    [0.75, 1],
    [1.25, 1],
    [1.75, 2],
    [2.5, 2],
    [3.5, 4],
    [5, 4],
    [5.01, 6],
    [100, 6],
  ];
  expect(thresholds.map(([x]) => roundToFloat(E2M1, x))).toEqual(thresholds.map(([, y]) => y));
});

test("f16 rounds 65520 to infinity and 65519 to the maximum", () => {
  expect(roundToFloat(F16, 65519)).toBe(65504);
  expect(roundToFloat(F16, 65520)).toBe(Infinity);
  expect(encodeFloat(F16, 1)).toBe(0x3c00);
  expect(encodeFloat(F16, 2 ** -24)).toBe(1);
});

test("the fast f16 pair agrees with the generic one on every f32 and every code", () => {
  fc.assert(
    fc.property(fc.float(), fc.boolean(), (x, saturating) => {
      expect(encodeF16(x, saturating)).toBe(encodeFloat(F16, x, saturating));
    }),
    { numRuns: 3000, seed: 16 },
  );
  for (let code = 0; code < 65536; code++) {
    const x = decodeFloat(F16, code);
    if (!Object.is(decodeF16(code), x)) expect([code, decodeF16(code)]).toEqual([code, x]);
    // Both halves between this code and the next, and a hair to either side.
    const next = decodeFloat(F16, code + 1 < 65536 ? code + 1 : code);
    for (const near of [(x + next) / 2, Math.fround(((x + next) / 2) * (1 - 2 ** -20)), Math.fround(((x + next) / 2) * (1 + 2 ** -20))]) {
      if (encodeF16(near) !== encodeFloat(F16, near)) expect([near, encodeF16(near)]).toEqual([near, encodeFloat(F16, near)]);
    }
  }
});

test("the fast bf16 pair agrees with the generic one on every f32", () => {
  fc.assert(
    fc.property(fc.float({ noNaN: true }), (x) => {
      expect(encodeBf16(x)).toBe(encodeFloat(BF16, x));
      expect(decodeBf16(encodeBf16(x))).toBe(decodeFloat(BF16, encodeBf16(x)));
    }),
    { seed: 2, numRuns: 2000 },
  );
  expect(decodeBf16(encodeBf16(NaN))).toBeNaN();
});

test("exponentOf is exact at powers of two and just below them", () => {
  for (let e = -1060; e <= 1020; e += 13) {
    expect(exponentOf(2 ** e)).toBe(e);
    if (e > -1020) expect(exponentOf(2 ** e * (1 - 2 ** -53))).toBe(e - 1);
  }
});

test("e8m0 holds powers of two, clamps, and has one NaN", () => {
  expect(decodeE8M0(encodeE8M0(-3))).toBe(0.125);
  expect(encodeE8M0(500)).toBe(254);
  expect(encodeE8M0(-500)).toBe(0);
  expect(decodeE8M0(255)).toBeNaN();
});
