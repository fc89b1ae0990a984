import { describe, expect, test } from "vitest";
import { decodeBf16, decodeFloat, E4M3, E5M2, F16 } from "../../core/float.ts";
import { createRandom } from "../../core/random.ts";
import { createTensor, toFloat32, type Tensor } from "../../core/tensor.ts";
import { expandFloat32 } from "./expand.ts";

/** Whole-array comparison in native code: vitest's own takes seconds for large arrays. */
const bytesOf = (values: Float32Array): Buffer => Buffer.from(values.buffer, values.byteOffset, values.byteLength);
const sameBits = (a: Float32Array, b: Float32Array): boolean => bytesOf(a).equals(bytesOf(b));

const words = (count: number): Uint8Array => new Uint8Array(Uint16Array.from({ length: count }, (_, i) => i).buffer);

describe("expand gives the bits of the definition", () => {
  test("every f16 code", () => {
    const tensor = createTensor("F16", [65536], words(65536));
    const expected = Float32Array.from({ length: 65536 }, (_, i) => decodeFloat(F16, i));
    expect(sameBits(expandFloat32(tensor), expected)).toBe(true);
  });
  test("every bf16 code", () => {
    const got = new Uint32Array(expandFloat32(createTensor("BF16", [65536], words(65536))).buffer);
    expect(got.every((bits, code) => bits === (code << 16) >>> 0)).toBe(true);
    expect(decodeBf16(0x3f80)).toBe(1);
  });
  test.each([
    ["F8_E4M3", E4M3],
    ["F8_E5M2", E5M2],
  ] as const)("every %s code", (dtype, format) => {
    const tensor = createTensor(
      dtype,
      [256],
      Uint8Array.from({ length: 256 }, (_, i) => i),
    );
    const expected = Float32Array.from({ length: 256 }, (_, i) => decodeFloat(format, i));
    expect(sameBits(expandFloat32(tensor), expected)).toBe(true);
  });
  test.each([0, 1, 3, 7, 9, 32767, 32768, 32769, 100_003])("%i values at an odd byte offset", (count) => {
    const random = createRandom(count);
    const bytes = new Uint8Array(2 * count + 1).map(() => random.below(256));
    const tensor: Tensor = { dtype: "BF16", shape: [count], bytes: bytes.subarray(1) };
    expect(sameBits(expandFloat32(tensor), toFloat32(tensor))).toBe(true);
  });
});

test("a dtype without a twin goes through the definition", () => {
  const tensor = createTensor("I8", [3], Uint8Array.of(1, 255, 128));
  expect([...expandFloat32(tensor)]).toEqual([1, -1, -128]);
});
