import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { byteLength, DTYPES, isDType } from "./dtype.ts";
import { packBits, packedLength, unpackBits } from "./pack.ts";
import { createRandom, shuffled } from "./random.ts";
import { clamp, roundHalfAway, roundHalfEven } from "./round.ts";
import { scaleShape, schemeName } from "./scheme.ts";
import { createTensor, fromFloat32, lazyOf, tensorOf, toFloat32 } from "./tensor.ts";

describe("rounding", () => {
  test("half even sends ties to the even neighbour on both sides of zero", () => {
    expect([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49999999999999994].map((x) => roundHalfEven(x) + 0)).toEqual([-2, -2, 0, 0, 2, 2, 0]);
  });
  test("half away sends ties away from zero", () => {
    expect([-2.5, -0.5, 0.5, 2.5].map(roundHalfAway)).toEqual([-3, -1, 1, 3]);
  });
  test("clamp keeps NaN", () => expect(clamp(NaN, 0, 1)).toBeNaN());
});

describe("packing", () => {
  test("the worked int4 example of compressed-tensors gives word 0x4B79F810", () => {
    const bytes = new Uint8Array(4);
    packBits(
      [-8, -7, 0, 7, 1, -1, 3, -4].map((q) => q + 8),
      4,
      bytes,
    );
    expect(new DataView(bytes.buffer).getUint32(0, true)).toBe(0x4b79f810);
  });
  test("3-bit codes straddle words densely", () => {
    const bytes = new Uint8Array(12);
    packBits(
      Array.from({ length: 32 }, (_, i) => i % 8),
      3,
      bytes,
    );
    expect(Array.from(new Uint32Array(bytes.buffer))).toEqual([0x88fac688, 0xc688fac6, 0xfac688fa]);
  });
  test("unpacking gives back what was packed, for every width", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 16 }), fc.array(fc.nat(65535), { maxLength: 100 }), (bits, values) => {
        const codes = values.map((v) => v % 2 ** bits);
        const bytes = new Uint8Array(packedLength(codes.length, bits));
        packBits(codes, bits, bytes);
        const out = new Uint16Array(codes.length);
        unpackBits(bytes, bits, out);
        expect([...out]).toEqual(codes);
      }),
      { seed: 3 },
    );
  });
  test("short buffers and impossible widths are refused", () => {
    expect(() => packBits([1, 2, 3], 8, new Uint8Array(2))).toThrowError(/must hold 3 codes/);
    expect(() => unpackBits(new Uint8Array(1), 17, new Uint8Array(1))).toThrowError(/1 to 16/);
  });
});

describe("random", () => {
  test("depends on the seed alone", () => {
    const draw = (seed: number): number[] => {
      const random = createRandom(seed);
      return [random.uint32(), random.below(10), random.uniform(), random.normal()];
    };
    expect(draw(7)).toEqual(draw(7));
    expect(draw(7)).not.toEqual(draw(8));
  });
  test("normal numbers have mean 0 and variance 1 within five standard errors", () => {
    const random = createRandom(1);
    const n = 20000;
    const values = Array.from({ length: n }, () => random.normal());
    const mean = values.reduce((a, b) => a + b) / n;
    const variance = values.reduce((a, b) => a + (b - mean) ** 2, 0) / n;
    expect(Math.abs(mean)).toBeLessThan(5 / Math.sqrt(n));
    expect(Math.abs(variance - 1)).toBeLessThan(5 * Math.sqrt(2 / n));
  });
  test("shuffling keeps every item", () => {
    const items = Array.from({ length: 50 }, (_, i) => i);
    const result = shuffled(items, createRandom(3));
    expect(result).not.toEqual(items);
    expect(result.toSorted((a, b) => a - b)).toEqual(items);
  });
});

describe("tensors", () => {
  test("f32 survives a round trip through every float dtype that holds it", () => {
    const data = Float32Array.of(0, 1, -0.5, 3, 448, -0.001953125);
    for (const dtype of ["F32", "F64", "BF16", "F16", "F8_E4M3"] as const) {
      const shape = [2, 3];
      expect(toFloat32(fromFloat32(data.slice(), shape, dtype))).toEqual(data);
    }
  });
  test("unaligned bytes are read all the same", () => {
    const bytes = new Uint8Array(9).subarray(1);
    bytes.set(new Uint8Array(Float32Array.of(1.5, -2).buffer));
    expect(toFloat32(createTensor("F32", [2], bytes))).toEqual(Float32Array.of(1.5, -2));
  });
  test("a wrong byte count names both numbers", () => {
    expect(() => createTensor("BF16", [3], new Uint8Array(5))).toThrowError(/takes 6 bytes, got 5/);
  });
  test("reading a lazy tensor copies", async () => {
    const lazy = lazyOf("a", tensorOf(Float32Array.of(1), [1]));
    (await lazy.read()).bytes.fill(0);
    expect(toFloat32(await lazy.read())).toEqual(Float32Array.of(1));
  });
  test("sub-byte dtypes must fill whole bytes", () => {
    expect(byteLength("F4", [2, 3])).toBe(3);
    expect(() => byteLength("F4", [3])).toThrowError(/12 bits/);
    expect(isDType("__proto__")).toBe(false);
    expect(Object.keys(DTYPES)).toHaveLength(22);
  });
});

describe("schemes", () => {
  test("scale shapes follow the granularity", () => {
    expect(scaleShape({ kind: "tensor" }, 4, 6)).toEqual([1]);
    expect(scaleShape({ kind: "channel" }, 4, 6)).toEqual([4, 1]);
    expect(scaleShape({ kind: "group", size: 4 }, 4, 6)).toEqual([4, 2]);
    expect(scaleShape({ kind: "block", rows: 3, cols: 3 }, 4, 6)).toEqual([2, 2]);
  });
  test("names are short and say what matters", () => {
    expect(
      schemeName({
        format: { kind: "int", bits: 4, symmetric: false },
        granularity: { kind: "group", size: 128 },
        timing: "static",
        scale: "model",
        dialect: "awq",
      }),
    ).toBe("int4 asym group 128");
  });
});
