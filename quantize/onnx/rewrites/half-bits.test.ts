import fc from "fast-check";
import { expect, test } from "vitest";
import { fromFloat32 } from "../../../core/tensor.ts";
import { toHalfBits } from "./half-bits.ts";

const AWKWARD = [
  0,
  -0,
  65504,
  65519,
  65520,
  -65536,
  2 ** -14,
  2 ** -24,
  2 ** -25,
  3 * 2 ** -25,
  2 ** -26,
  1 + 2 ** -11,
  1 + 3 * 2 ** -11,
  Infinity,
  -Infinity,
];

test("bits are those of core's encoder", () => {
  const values = fc.float32Array({ minLength: 1, maxLength: 64, noNaN: true });
  fc.assert(
    fc.property(values, (data) => {
      expect(toHalfBits(data)).toEqual(fromFloat32(data, [data.length], "F16").bytes);
    }),
    { seed: 2, numRuns: 500 },
  );
  const hard = Float32Array.from(AWKWARD);
  expect(toHalfBits(hard)).toEqual(fromFloat32(hard, [hard.length], "F16").bytes);
});
