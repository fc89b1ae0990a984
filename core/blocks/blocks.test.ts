import { describe, expect, test } from "vitest";
import { packBits } from "../pack.ts";
import { createRandom } from "../random.ts";
import { SCALE_RULES } from "../scheme.ts";
import { bfp, blockFormatOf, blockScheme, elementFacts, NVFP4, parseBlockFormat, type BlockFormat } from "./format.ts";
import {
  decodeScales,
  dequantizeBlocks,
  elementValues,
  encodeScales,
  fakeQuantizeBlocks,
  quantizeBlocks,
  type BlockOptions,
} from "./quantize.ts";

const mx = (name: string): BlockFormat => parseBlockFormat(name)!;
const MX = ["mxint8", "mxfp8-e4m3", "mxfp8-e5m2", "mxfp6-e3m2", "mxfp6-e2m3", "mxfp4"].map(mx);
const BFP = [2, 3, 4, 5, 6, 7, 8, 9, 12, 16].map((bits) => bfp(bits));
const quantize = (values: readonly number[], format: BlockFormat, options?: BlockOptions) =>
  quantizeBlocks(Float32Array.from(values), 1, values.length, format, options);
const codesOf = (values: readonly number[], format: BlockFormat, options?: BlockOptions) => [
  ...quantize(values, format, options).codes.data,
];
const scaleByte = (values: readonly number[], format: BlockFormat, options?: BlockOptions) =>
  encodeScales(format, quantize(values, format, options).scales)[0];

describe("known answers", () => {
  test("BFP12: largest exponent, steps of 2^(e-2), codes -7 to 7, saturating at the top", () => {
    // 5.9 = 1.475 · 2^2: step 1. 7.5 rounds to 8 and is held at 7; 2.5 and 3.5 go to even.
    expect(codesOf([5.9, -1, 2.5, 3.5, 0.4, -0.5, 7.5, -7.9], bfp(4))).toEqual([6, -1, 2, 4, 0, 0, 7, -7]);
    expect(scaleByte([5.9], bfp(4))).toBe(127 + 2);
    expect([...quantize([5.9], bfp(4)).scales]).toEqual([1]);
  });

  test("BFP16 is MXINT8: the same codes, scales and values", () => {
    const random = createRandom(3);
    const values = Array.from({ length: 64 }, () => random.normal() * 2 ** (random.below(20) - 10));
    const [a, b] = [quantize(values, bfp(8)), quantize(values, mx("mxint8"))];
    expect(a.codes).toEqual(b.codes);
    expect(a.scales).toEqual(b.scales);
    // OCP MX v1.0: elements of MXINT8 carry an implicit 2^-6.
    expect(dequantizeBlocks(quantize([1.984375], mx("mxint8")))).toEqual(Float32Array.of(127 / 64));
  });

  test("MXFP4: ties to even, and a maximum of 7.9 saturates to 6 under floor", () => {
    const ties = [7.9, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, -5];
    const values = dequantizeBlocks(quantize(ties, mx("mxfp4")));
    expect([...values]).toEqual([6, 0, 1, 1, 2, 2, 4, 4, -4]);
  });

  test("the scale rules part where their definitions say", () => {
    // [absmax, floor, ceil, rceil, even] as exponents of the E2M1 block's scale, 2 below the maximum's.
    for (const [most, ...exponents] of [
      [4, 0, 0, 0, 0],
      [6, 0, 1, 0, 0],
      [6.5, 0, 1, 1, 0],
      [7, 0, 1, 1, 1],
      [7.9, 0, 1, 1, 1],
    ] as const) {
      const found = (["floor", "ceil", "rceil", "even"] as const).map((rule) => scaleByte([most], mx("mxfp4"), { rule })! - 127);
      expect([most, ...found]).toEqual([most, ...exponents]);
    }
  });

  test("mse takes the power of two with the least error: up for a maximum that would saturate, down for a lone outlier", () => {
    const exponent = (values: number[]) => scaleByte(values, mx("mxfp4"), { rule: "mse" })! - 127;
    expect(exponent([7.9, 0.1])).toBe(1);
    expect(exponent([6, 3, 1.5, 0.5])).toBe(0);
    expect(exponent([4, ...Array.from({ length: 31 }, () => 0.24)])).toBe(-1);
  });

  test("NVFP4: the worked example of the format's description", () => {
    const group = [0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, -0.8, 0.9, -1, 1.1, -1.2, 1.3, -1.4, 1.5, -3];
    const quantized = quantizeBlocks(Float32Array.from([6, ...Array.from({ length: 15 }, () => 0), ...group]), 2, 16, NVFP4);
    expect(quantized.globalScale).toBe(448);
    expect([...quantized.scales]).toEqual([448, 224]);
    const packed = new Uint8Array(8);
    packBits(quantized.codes.data.subarray(16), 4, packed);
    expect(Buffer.from(packed).toString("hex")).toBe("90a1a2b3c4c4d5f5");
  });
});

describe("every code of every format", () => {
  test.each([...MX, ...BFP])("$name: decoding and encoding again gives the code, at every scale that f32 can hold", (format) => {
    const { max, maxExponent, fractionBits } = elementFacts(format);
    const elements = elementValues(format);
    const bits = format.element.kind === "int" ? format.element.bits : 0;
    const codes =
      elements === undefined
        ? Array.from({ length: 2 ** bits - 1 }, (_, i) => i - (2 ** (bits - 1) - 1))
        : [...elements.keys()].filter((code) => Number.isFinite(elements[code]!));
    const top = elements === undefined ? 2 ** (bits - 1) - 1 : codes.find((code) => elements[code] === max)!;
    const all = [top, ...codes];
    const scheme = blockScheme(format);
    // Bytes at both ends, and powers whose products are denormal; 127 = 2^0.
    for (const byte of [0, 1, 5, 100, 127, 200, 254 - maxExponent]) {
      const scales = decodeScales(format, Uint8Array.of(byte));
      for (let start = 0; start < all.length; start += format.block - 1) {
        const part = [top, ...all.slice(start, start + format.block - 1)];
        const data = elements === undefined ? (bits <= 8 ? Int8Array.from(part) : Int16Array.from(part)) : Uint8Array.from(part);
        const kind = data instanceof Int8Array ? "i8" : data instanceof Int16Array ? "i16" : "u8";
        const values = dequantizeBlocks({
          shape: [1, part.length],
          channelAxis: 0,
          scheme,
          codes: { kind, data } as never,
          scales,
        });
        const unit = 2 ** (byte - 127 - fractionBits);
        if (elements === undefined) expect([...values]).toEqual(part.map((code) => code * unit + 0));
        const again = quantizeBlocks(values, 1, part.length, format);
        expect([...again.codes.data]).toEqual(part);
        expect([...encodeScales(format, again.scales)]).toEqual([byte]);
      }
    }
  });

  test("nvfp4: all 16 codes under all 126 positive scales", () => {
    for (let byte = 1; byte < 0x7f; byte++) {
      const scales = decodeScales(NVFP4, Uint8Array.of(byte));
      const data = Uint8Array.from({ length: 16 }, (_, code) => code);
      const quantized = {
        shape: [1, 16],
        channelAxis: 0,
        scheme: blockScheme(NVFP4),
        codes: { kind: "u8", data },
        scales,
        globalScale: 7,
      } as const;
      const values = dequantizeBlocks(quantized);
      const again = quantizeBlocks(values, 1, 16, NVFP4, { globalScale: 7 });
      expect([...encodeScales(NVFP4, again.scales)]).toEqual([byte]);
      expect([...again.codes.data]).toEqual([...data]);
    }
  });

  test.each([...MX, ...BFP])("$name: scale byte 255 is NaN, and encodes back", (format) => {
    const scales = decodeScales(format, Uint8Array.of(255));
    expect(scales[0]).toBeNaN();
    expect([...encodeScales(format, scales)]).toEqual([255]);
  });

  test("scale bytes 0 to 254 pass through f32 unchanged in every format", () => {
    const bytes = Uint8Array.from({ length: 255 }, (_, byte) => byte);
    for (const format of [...MX, ...BFP]) expect(encodeScales(format, decodeScales(format, bytes))).toEqual(bytes);
  });

  test("values of codes are monotone and symmetric", () => {
    for (const format of MX) {
      const elements = elementValues(format);
      if (elements === undefined) continue;
      const half = elements.length / 2;
      const positive = [...elements.subarray(0, half)].filter(Number.isFinite);
      expect(positive).toEqual(positive.toSorted((a, b) => a - b));
      expect(positive.map((_, code) => -elements[code + half]!)).toEqual(positive);
    }
  });
});

describe("awkward blocks", () => {
  const ALL = [...MX, ...BFP, NVFP4];
  test.each(ALL)("$name: zeros have codes 0 and read as zeros", (format) => {
    const quantized = quantize(
      Array.from({ length: 20 }, () => 0),
      format,
    );
    expect([...quantized.codes.data]).toEqual(Array.from({ length: 20 }, () => 0));
    expect([...dequantizeBlocks(quantized)]).toEqual(Array.from({ length: 20 }, () => 0));
    if (format !== NVFP4) expect([...new Set(encodeScales(format, quantized.scales))]).toEqual([0]);
  });

  test.each(ALL)("$name: negative zero keeps its sign as a float and loses it as an integer", (format) => {
    const read = dequantizeBlocks(quantize([1, -0, -1e-30], format));
    const expected = format.element.kind === "float";
    expect([Object.is(read[1], -0), Object.is(read[2], -0)]).toEqual([expected, expected]);
  });

  test.each([...MX, ...BFP])("$name: a block of denormals is a block like others, as far as the scale reaches", (format) => {
    const { fractionBits } = elementFacts(format);
    const least = 2 ** (-127 - fractionBits);
    const values = [2 ** -127, -(2 ** -128), 2 ** -149];
    const quantized = quantize(values, format);
    expect([...encodeScales(format, quantized.scales)]).toEqual([0]);
    const read = dequantizeBlocks(quantized);
    if (format.element.kind === "int") for (const [i, x] of values.entries()) expect(Math.abs(read[i]! - x)).toBeLessThanOrEqual(least / 2);
    else expect(read[0]).toBe(2 ** -127);
  });

  test.each(ALL)("$name: the largest f32 stays finite under every rule", (format) => {
    for (const rule of SCALE_RULES) {
      const read = dequantizeBlocks(quantize([3.4028234663852886e38, -3e38, 1], format, { rule }));
      for (const x of read) expect(Number.isFinite(x)).toBe(true);
      expect(read[0]).toBeGreaterThan(1.7e38);
    }
  });

  test.each(ALL)("$name: NaN and infinities are refused with their index, or make their block NaN and no other", (format) => {
    for (const bad of [NaN, Infinity, -Infinity]) {
      const values = Float32Array.from({ length: 3 * format.block }, (_, i) => (i === format.block + 1 ? bad : 1));
      expect(() => quantizeBlocks(values, 1, values.length, format)).toThrow(
        expect.objectContaining({ code: "numeric.not-finite", details: { index: format.block + 1 } }),
      );
      const quantized = quantizeBlocks(values, 1, values.length, format, { notFinite: "nan" });
      expect(encodeScales(format, quantized.scales)[1]).toBe(format === NVFP4 ? 0x7f : 255);
      fakeQuantizeBlocks(values, values.length, format);
      expect([...values].map(Number.isNaN)).toEqual([...values].map((_, i) => Math.floor(i / format.block) === 1));
    }
  });

  test.each(ALL)("$name: a shorter last block is as if padded with zeros, or refused when asked", (format) => {
    const random = createRandom(11);
    const cols = format.block + 5;
    const values = Float32Array.from({ length: 3 * cols }, () => random.normal());
    const padded = new Float32Array(3 * 2 * format.block);
    for (let r = 0; r < 3; r++) padded.set(values.subarray(r * cols, (r + 1) * cols), r * 2 * format.block);
    for (const rule of SCALE_RULES) {
      const [short, long] = [
        quantizeBlocks(values, 3, cols, format, { rule }),
        quantizeBlocks(padded, 3, 2 * format.block, format, { rule }),
      ];
      expect(short.scales).toEqual(long.scales);
      for (let r = 0; r < 3; r++) {
        const at = r * 2 * format.block;
        expect(short.codes.data.subarray(r * cols, (r + 1) * cols)).toEqual(long.codes.data.subarray(at, at + cols));
      }
    }
    expect(() => quantizeBlocks(values, 3, cols, format, { partial: "refuse" })).toThrow(expect.objectContaining({ code: "input.shape" }));
  });

  test.each(ALL)("$name: fake quantization is quantizing and reading, and doing it twice changes nothing under floor", (format) => {
    const random = createRandom(5);
    const values = Float32Array.from({ length: 6 * 50 }, () => random.normal() * 2 ** random.below(8));
    for (const rule of SCALE_RULES) {
      const once = values.slice();
      fakeQuantizeBlocks(once, 50, format, { rule });
      expect(once).toEqual(dequantizeBlocks(quantizeBlocks(values, 6, 50, format, { rule })));
      if (rule !== "floor" || format === NVFP4) continue;
      const twice = once.slice();
      fakeQuantizeBlocks(twice, 50, format, { rule });
      expect(twice).toEqual(once);
    }
  });
});

describe("error", () => {
  test("mse is never worse than any other rule, block by block, when that rule's scale is among its candidates", () => {
    const random = createRandom(8);
    const values = Float32Array.from({ length: 200 * 32 }, () => random.normal());
    const error = (format: BlockFormat, options: BlockOptions): number => {
      const read = dequantizeBlocks(quantizeBlocks(values, 200, 32, format, options));
      return values.reduce((sum, x, i) => sum + (x - read[i]!) ** 2, 0);
    };
    for (const format of [...MX, bfp(4), NVFP4]) {
      const least = error(format, { rule: "mse" });
      for (const rule of ["floor", "even", "ceil", "rceil"] as const) expect(least).toBeLessThanOrEqual(error(format, { rule }));
    }
  });
});

describe("names", () => {
  test.each([
    ["bfp10", 2, 32],
    ["bfp12", 4, 32],
    ["bfp24", 16, 32],
  ])("%s has mantissas of %i bits", (name, bits, block) => {
    expect(parseBlockFormat(name)).toEqual({ name, family: "bfp", element: { kind: "int", bits }, block });
  });
  test.each(["bfp9", "bfp25", "bfp8", "bfp999"])("%s is out of range", (name) => {
    expect(() => parseBlockFormat(name)).toThrow(expect.objectContaining({ code: "input.option" }));
  });
  test("MX and NVFP4 have one block size", () => {
    expect(parseBlockFormat("mxfp4", 32)?.block).toBe(32);
    expect(() => parseBlockFormat("mxfp4", 64)).toThrow(expect.objectContaining({ code: "input.option" }));
    expect(() => bfp(4, 0)).toThrow(expect.objectContaining({ code: "input.option" }));
    expect(parseBlockFormat("w4a16")).toBeUndefined();
  });
  test("a scheme gives its format back", () => {
    for (const format of [...MX, ...BFP, bfp(5, 7), NVFP4]) expect(blockFormatOf(blockScheme(format))).toEqual(format);
  });
});
