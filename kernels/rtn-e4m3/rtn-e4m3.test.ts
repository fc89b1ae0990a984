import { describe, expect, test } from "vitest";
import { floatScale, type Arithmetic } from "../../core/dialect.ts";
import { decodeFloat, E4M3 } from "../../core/float.ts";
import { absMax } from "../abs-max/abs-max.ts";
import { awkward, place, placeValues, readVectors, SHAPES, take } from "../../tests/support/kernels.ts";
import { SUMS_BYTES, type ErrorSums } from "../error-sums.ts";
import { createWorkspace } from "../load-wasm.ts";
import { runCount, type RunShape, type Stored } from "../runs.ts";
import { rtnE4m3, rtnE4m3At } from "./rtn-e4m3.ts";

const STORED: readonly Stored[] = ["bf16", "f32"];

interface Quantized {
  codes: Uint8Array;
  sums: ErrorSums;
}

function slow(x: Float32Array, shape: RunShape, scales: Float32Array, arithmetic: Arithmetic): Quantized {
  const codes = new Uint8Array(x.length);
  const sums = { weights: 0, errors: 0 };
  rtnE4m3(x, shape, scales, arithmetic, codes, sums);
  return { codes, sums };
}

function fast(stored: Stored, x: Float32Array, shape: RunShape, scales: Float32Array, arithmetic: Arithmetic): Quantized {
  const workspace = createWorkspace();
  const out = place(workspace, new Uint8Array(x.length));
  const sums = place(workspace, new Float64Array(SUMS_BYTES / 8));
  const places = { x: placeValues(workspace, stored, x), scales: place(workspace, scales), out, sums };
  rtnE4m3At(workspace, stored, shape, arithmetic, places);
  const [weights, errors] = take(workspace, sums, 2, Float64Array);
  return { codes: take(workspace, out, x.length, Uint8Array), sums: { weights: weights!, errors: errors! } };
}

describe("known answers", () => {
  type Case = RunShape & { name: string; x: number[]; scales: number[]; codes: number[] };
  test.each(readVectors("rtn-e4m3") as readonly Case[])("$name", ({ rows, cols, group, x, scales, codes }) => {
    const shape = { rows, cols, group };
    const [values, factors] = [Float32Array.from(x), Float32Array.from(scales)];
    expect(slow(values, shape, factors, "f32").codes).toEqual(Uint8Array.from(codes));
    for (const stored of STORED) expect(fast(stored, values, shape, factors, "f32").codes).toEqual(Uint8Array.from(codes));
  });
});

test("every finite code comes back from its own value, and halfway values go to the even code", () => {
  const codes = Array.from({ length: 0x7f }, (_, code) => code);
  const values = codes.map((code) => decodeFloat(E4M3, code));
  const halves = codes.slice(1).map((code) => (values[code]! + values[code - 1]!) / 2);
  const x = Float32Array.from([...values, ...halves]);
  const expected = Uint8Array.from([...codes, ...codes.slice(1).map((code) => (code % 2 === 0 ? code : code - 1))]);
  const shape = { rows: 1, cols: x.length, group: x.length };
  expect(fast("f32", x, shape, Float32Array.of(1), "f32").codes).toEqual(expected);
  expect(slow(x, shape, Float32Array.of(1), "f32").codes).toEqual(expected);
});

test.each(SHAPES)("the SIMD twin gives codes and error sums of the definition for %i rows of %i in groups of %i", (rows, cols, group) => {
  const shape = { rows, cols, group };
  for (const arithmetic of ["f32", "bf16"] as const) {
    for (const stored of STORED) {
      const x = awkward(rows * cols, rows * cols, stored);
      const most = new Float32Array(runCount(shape));
      absMax(x, shape, most);
      const scales = most.map((value) => floatScale("e4m3", value, { arithmetic, storage: "BF16" }));
      expect(fast(stored, x, shape, scales, arithmetic)).toEqual(slow(x, shape, scales, arithmetic));
    }
  }
});
