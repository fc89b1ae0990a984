import { describe, expect, test } from "vitest";
import { codeOf, intRule, storageShift } from "../../core/dialect.ts";
import type { DialectName } from "../../core/scheme.ts";
import { awkward, place, placeValues, readVectors, SHAPES, take } from "../../tests/support/kernels.ts";
import { SUMS_BYTES, type ErrorSums } from "../error-sums.ts";
import { createWorkspace } from "../load-wasm.ts";
import { minMax } from "../min-max/min-max.ts";
import { runCount, type RunShape, type Stored } from "../runs.ts";
import { scalesOf } from "../scales/scales.ts";
import { rtnInt, rtnIntAt, type RtnIntOptions } from "./rtn-int.ts";

const STORED: readonly Stored[] = ["bf16", "f32"];

interface Quantized {
  codes: Int8Array;
  sums: ErrorSums;
}

function slow(x: Float32Array, shape: RunShape, scales: Float32Array, zeros: Float32Array | undefined, options: RtnIntOptions): Quantized {
  const codes = new Int8Array(x.length);
  const sums = { weights: 0, errors: 0 };
  rtnInt(x, shape, scales, zeros, options, codes, sums);
  return { codes, sums };
}

function fast(
  stored: Stored,
  x: Float32Array,
  shape: RunShape,
  scales: Float32Array,
  zeros: Float32Array | undefined,
  options: RtnIntOptions,
): Quantized {
  const workspace = createWorkspace();
  const places = {
    x: placeValues(workspace, stored, x),
    scales: place(workspace, scales),
    zeros: zeros === undefined ? 0 : place(workspace, zeros),
    out: place(workspace, new Int8Array(x.length)),
    sums: place(workspace, new Float64Array(SUMS_BYTES / 8)),
  };
  rtnIntAt(workspace, stored, shape, options, places);
  const [weights, errors] = take(workspace, places.sums, 2, Float64Array);
  return { codes: take(workspace, places.out, x.length, Int8Array), sums: { weights: weights!, errors: errors! } };
}

describe("known answers", () => {
  type Case = RunShape & {
    name: string;
    dialect: DialectName;
    bits: number;
    symmetric: boolean;
    x: number[];
    scales: number[];
    zeros?: number[];
    codes: number[];
  };
  test.each(readVectors("rtn-int") as readonly Case[])("$name", ({ rows, cols, group, dialect, bits, symmetric, codes, ...arrays }) => {
    const options: RtnIntOptions = { rule: intRule(dialect, bits, symmetric), bits, arithmetic: "f32" };
    const zeros = arrays.zeros === undefined ? undefined : Float32Array.from(arrays.zeros);
    const [x, scales] = [Float32Array.from(arrays.x), Float32Array.from(arrays.scales)];
    const shape = { rows, cols, group };
    expect(slow(x, shape, scales, zeros, options).codes).toEqual(Int8Array.from(codes));
    for (const stored of STORED) expect(fast(stored, x, shape, scales, zeros, options).codes).toEqual(Int8Array.from(codes));
  });
});

describe("the SIMD twin gives the codes and the error sums of the definition, to the bit", () => {
  const FORMS = [
    ["compressed-tensors", true, 8],
    ["compressed-tensors", false, 4],
    ["compressed-tensors", false, 8],
    ["awq", false, 8],
    ["gptq", false, 3],
    ["omniquant", false, 4],
    ["hqq", false, 2],
    ["sq-fake", true, 6],
  ] as const;
  test.each(FORMS)("%s, symmetric %s, %i bits", (dialect, symmetric, bits) => {
    const rule = intRule(dialect, bits, symmetric);
    for (const arithmetic of ["f32", "bf16"] as const) {
      for (const stored of STORED) {
        for (const [rows, cols, group] of SHAPES) {
          const shape = { rows, cols, group };
          const x = awkward(rows * 100 + cols, rows * cols, stored);
          const [low, high, scales, zeros] = Array.from({ length: 4 }, () => new Float32Array(runCount(shape))) as [
            Float32Array,
            Float32Array,
            Float32Array,
            Float32Array,
          ];
          minMax(x, shape, low, high);
          scalesOf(rule, low, high, { arithmetic, storage: "BF16" }, scales, zeros);
          const options = { rule, bits, arithmetic };
          const given = symmetric ? undefined : zeros;
          expect(fast(stored, x, shape, scales, given, options)).toEqual(slow(x, shape, scales, given, options));
        }
      }
    }
  });
});

test("codes are those of codeOf less the storage shift", () => {
  const x = awkward(3, 64, "f32");
  const [scales, zeros] = [Float32Array.of(0.03), Float32Array.of(7)];
  const rule = intRule("awq", 4, false);
  const { codes } = slow(x, { rows: 1, cols: 64, group: 64 }, scales, zeros, { rule, bits: 4, arithmetic: "f32" });
  expect([...codes]).toEqual([...x].map((value) => codeOf(rule, value, scales[0]!, 7) - storageShift(rule, 4)));
});

test("no weight inside the range moves by more than half a scale", () => {
  const x = awkward(11, 512, "f32");
  const shape = { rows: 4, cols: 128, group: 128 };
  const rule = intRule("sq-fake", 8, true);
  const [low, high, scales] = [new Float32Array(4), new Float32Array(4), new Float32Array(4)];
  minMax(x, shape, low, high);
  scalesOf(rule, low, high, {}, scales);
  const { codes } = slow(x, shape, scales, undefined, { rule, bits: 8, arithmetic: "f32" });
  for (let i = 0; i < x.length; i++) {
    const scale = scales[Math.floor(i / 128)]!;
    expect(Math.abs(x[i]! - codes[i]! * scale)).toBeLessThanOrEqual(scale / 2 + 1e-6 * Math.abs(x[i]!));
  }
});

test("error sums do not depend on how rows were cut into calls", () => {
  const x = awkward(5, 40 * 96, "bf16");
  const shape = { rows: 40, cols: 96, group: 32 };
  const scales = new Float32Array(runCount(shape)).fill(0.01);
  const options: RtnIntOptions = { rule: intRule("compressed-tensors", 8, true), bits: 8, arithmetic: "f32" };
  const whole = fast("bf16", x, shape, scales, undefined, options);
  const workspace = createWorkspace();
  const at = placeValues(workspace, "bf16", x);
  const places = { scales: place(workspace, scales), zeros: 0, out: place(workspace, new Int8Array(x.length)) };
  const sums = place(workspace, new Float64Array(SUMS_BYTES / 8));
  for (const [first, rows] of [
    [0, 7],
    [7, 1],
    [8, 32],
  ] as const) {
    rtnIntAt(workspace, "bf16", { ...shape, rows }, options, {
      x: at + first * 96 * 2,
      scales: places.scales + first * 3 * 4,
      zeros: 0,
      out: places.out + first * 96,
      sums,
    });
  }
  expect([...take(workspace, sums, 2, Float64Array)]).toEqual([whole.sums.weights, whole.sums.errors]);
});
