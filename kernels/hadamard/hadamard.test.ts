import { describe, expect, test } from "vitest";
import { awkward, readVectors } from "../../tests/support/kernels.ts";
import { hadamard, hadamardFast } from "./hadamard.ts";

describe("known answers", () => {
  test.each(readVectors("hadamard") as readonly { name: string; size: number; x: number[]; out: number[] }[])(
    "$name",
    ({ size, x, out }) => {
      for (const transform of [hadamard, hadamardFast]) {
        const found = Float32Array.from(x);
        transform(found, size);
        expect(found).toEqual(Float32Array.from(out));
      }
    },
  );
});

test.each([1, 2, 4, 8, 64, 1024, 131_072])("the SIMD twin gives the bits of the definition at size %i", (size) => {
  const x = awkward(size, 3 * size, "f32");
  const [slow, fast] = [x.slice(), x.slice()];
  hadamard(slow, size);
  hadamardFast(fast, size);
  expect(Buffer.from(fast.buffer).equals(Buffer.from(slow.buffer))).toBe(true);
});

test("twice gives the input back up to rounding, and lengths are kept", () => {
  const x = awkward(9, 256, "f32");
  const y = x.slice();
  hadamardFast(y, 256);
  const energy = (v: Float32Array): number => v.reduce((sum, value) => sum + value * value, 0);
  expect(energy(y) / energy(x)).toBeCloseTo(1, 5);
  hadamardFast(y, 256);
  // log2(256) additions and one product each way, each off by at most 2^-24 of the row's length.
  const bound = 2 * (8 + 1) * 2 ** -24 * Math.sqrt(energy(x));
  expect(y.every((value, i) => Math.abs(value - x[i]!) <= bound)).toBe(true);
});

test.each([0, 3, 12, -4])("size %i is refused", (size) => {
  expect(() => hadamard(new Float32Array(12), size)).toThrow("power of two");
});
