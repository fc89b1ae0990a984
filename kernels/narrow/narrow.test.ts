import { describe, expect, test } from "vitest";
import { encodeBf16, encodeFloat, F16 } from "../../core/float.ts";
import { createRandom } from "../../core/random.ts";
import { place, readVectors, take } from "../../tests/support/kernels.ts";
import { createWorkspace } from "../load-wasm.ts";
import { narrowAt } from "./narrow.ts";

function fast(dtype: "BF16" | "F16", x: Float32Array): Uint16Array {
  const workspace = createWorkspace();
  const out = place(workspace, new Uint16Array(x.length));
  narrowAt(workspace, dtype, place(workspace, x), out, x.length);
  return take(workspace, out, x.length, Uint16Array);
}

const encode = { BF16: encodeBf16, F16: (x: number): number => encodeFloat(F16, x) };

describe("known answers", () => {
  test.each(readVectors("narrow") as readonly { name: string; dtype: "BF16" | "F16"; x: number[]; out: number[] }[])(
    "$name",
    ({ dtype, x, out }) => {
      expect(Uint16Array.from(Float32Array.from(x), encode[dtype])).toEqual(Uint16Array.from(out));
      expect(fast(dtype, Float32Array.from(x))).toEqual(Uint16Array.from(out));
    },
  );
});

test.each(["BF16", "F16"] as const)("the SIMD twin gives the definition's %s of any f32 bits", (dtype) => {
  const random = createRandom(1);
  for (const length of [1, 7, 8, 9, 10_000]) {
    const bits = Uint32Array.from({ length }, () => random.uint32());
    // Random exponents are mostly far outside f16: give half of them one near 0.
    for (let i = 0; i < length; i += 2) bits[i] = (bits[i]! & 0x81ffffff) + 0x38000000 + (random.below(3) - 1) * 0x02000000;
    const x = new Float32Array(bits.buffer).map((value) => (Number.isNaN(value) ? 1 : value));
    expect(fast(dtype, x)).toEqual(Uint16Array.from(x, encode[dtype]));
  }
  expect(fast(dtype, Float32Array.of(NaN, Infinity, -Infinity))).toEqual(Uint16Array.of(...[NaN, Infinity, -Infinity].map(encode[dtype])));
});
