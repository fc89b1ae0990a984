import { describe, expect, test } from "vitest";
import { packedLength } from "../../core/pack.ts";
import { createRandom } from "../../core/random.ts";
import { place, readVectors, take } from "../../tests/support/kernels.ts";
import { createWorkspace } from "../load-wasm.ts";
import { packRows, packRowsAt } from "./pack-rows.ts";

function slow(codes: Int8Array, rows: number, cols: number, bits: number, stride: number): Uint8Array {
  const out = new Uint8Array(rows * stride).fill(0xaa);
  packRows(codes, rows, cols, bits, out, stride);
  return out;
}

function fast(codes: Int8Array, rows: number, cols: number, bits: number, stride: number): Uint8Array {
  const workspace = createWorkspace();
  const out = place(workspace, new Uint8Array(rows * stride).fill(0xaa));
  packRowsAt(workspace, place(workspace, codes), rows, cols, bits, out, stride);
  return take(workspace, out, rows * stride, Uint8Array);
}

describe("known answers", () => {
  type Case = { name: string; rows: number; cols: number; bits: number; stride: number; codes: number[]; out: number[] };
  test.each(readVectors("pack-rows") as readonly Case[])("$name", ({ rows, cols, bits, stride, codes, out }) => {
    expect(slow(Int8Array.from(codes), rows, cols, bits, stride)).toEqual(Uint8Array.from(out));
    expect(fast(Int8Array.from(codes), rows, cols, bits, stride)).toEqual(Uint8Array.from(out));
  });
});

test.each([1, 2, 3, 4, 5, 6, 7, 8])("the SIMD twin gives the bytes of the definition at %i bits", (bits) => {
  const random = createRandom(bits);
  for (const cols of [1, 2, 15, 31, 32, 33, 64, 100]) {
    const codes = Int8Array.from({ length: 3 * cols }, () => random.below(2 ** bits) - 2 ** (bits - 1));
    for (const stride of [packedLength(cols, bits), 4 * Math.ceil((cols * bits) / 32)]) {
      expect(fast(codes, 3, cols, bits, stride)).toEqual(slow(codes, 3, cols, bits, stride));
    }
  }
});

test("a stride too short for a row is refused", () => {
  expect(() => packRows(new Int8Array(8), 1, 8, 4, new Uint8Array(3), 3)).toThrow("at least 4 each");
});
