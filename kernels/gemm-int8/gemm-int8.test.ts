import { describe, expect, test } from "vitest";
import { bfp, NVFP4, parseBlockFormat } from "../../core/blocks/format.ts";
import { dequantizeBlocks, quantizeBlocks } from "../../core/blocks/quantize.ts";
import { createRandom } from "../../core/random.ts";
import { place, take } from "../../tests/support/kernels.ts";
import { createWorkspace, type Workspace } from "../load-wasm.ts";
import {
  gemmAt,
  gemmBlocks,
  gemmFloat,
  gemmFloatAt,
  gemmInt8,
  gemmScaled,
  packRowsFor,
  sumBytes,
  type GemmShape,
  type ScaledRows,
} from "./gemm-int8.ts";

const random = createRandom(6);
const codes = (count: number): Int8Array => Int8Array.from({ length: count }, () => random.below(256) - 128);
const SHAPES: readonly GemmShape[] = [
  { m: 1, n: 1, k: 1 },
  { m: 5, n: 8, k: 32 },
  { m: 6, n: 9, k: 33 },
  { m: 11, n: 23, k: 129 },
  { m: 3, n: 40, k: 2500 },
];

function run(workspace: Workspace, a: ScaledRows, b: ScaledRows, { m, n, k }: GemmShape, block?: number): number {
  const side = (which: "a" | "b", rows: ScaledRows, count: number) =>
    packRowsFor(
      workspace,
      which,
      place(workspace, rows.codes),
      { rows: count, cols: k },
      block === undefined ? undefined : { units: place(workspace, rows.units), block },
    );
  const [left, right] = [side("a", a, m), side("b", b, n)];
  const out = workspace.take(m * n * 4);
  gemmAt(workspace, left, right, workspace.take(sumBytes(m, n)), out.at);
  return out.at;
}

test("a product by hand", () => {
  expect([...gemmInt8(Int8Array.of(1, 2, -3, 127, -128, 0), Int8Array.of(4, 5, 6), { m: 2, n: 1, k: 3 })]).toEqual([-4, -132]);
  const unit = Float32Array.of(0.5);
  expect([
    ...gemmScaled({ codes: Int8Array.of(3, 4), units: unit }, { codes: Int8Array.of(5, -6), units: unit }, { m: 1, n: 1, k: 2 }, 2),
  ]).toEqual([-2.25]);
});

test.each(SHAPES)("the SIMD twin is exact: $m × $n × $k", (shape) => {
  const none = new Float32Array(0);
  const [a, b] = [codes(shape.m * shape.k), codes(shape.n * shape.k)];
  const workspace = createWorkspace();
  const at = run(workspace, { codes: a, units: none }, { codes: b, units: none }, shape);
  expect(take(workspace, at, shape.m * shape.n, Int32Array)).toEqual(gemmInt8(a, b, shape));
});

test("the most negative codes everywhere do not overflow", () => {
  const shape = { m: 1, n: 1, k: 100_000 };
  const a = new Int8Array(shape.k).fill(-128);
  const workspace = createWorkspace();
  const none = new Float32Array(0);
  const at = run(workspace, { codes: a, units: none }, { codes: a, units: none }, shape);
  expect(take(workspace, at, 1, Int32Array)[0]).toBe(16384 * shape.k);
  expect(() => gemmInt8(new Int8Array(200_000), new Int8Array(200_000), { m: 1, n: 1, k: 200_000 })).toThrow(
    expect.objectContaining({ code: "input.shape" }),
  );
});

describe.each([1, 7, 16, 32, 128, 4096])("blocks of %i", (block) => {
  test.each(SHAPES)("the SIMD twin gives the definition's bits: $m × $n × $k", (shape) => {
    const blocks = Math.ceil(shape.k / block);
    const side = (rows: number): ScaledRows => ({
      codes: codes(rows * shape.k),
      units: Float32Array.from({ length: rows * blocks }, () => 2 ** (random.below(40) - 25)),
    });
    const [a, b] = [side(shape.m), side(shape.n)];
    const workspace = createWorkspace();
    const at = run(workspace, a, b, shape, block);
    expect(take(workspace, at, shape.m * shape.n, Float32Array)).toEqual(gemmScaled(a, b, shape, block));
  });
});

test.each(SHAPES)("the f32 twin gives the definition's bits: $m × $n × $k", (shape) => {
  const values = (count: number): Float32Array => Float32Array.from({ length: count }, () => random.normal());
  const [a, b] = [values(shape.m * shape.k), values(shape.n * shape.k)];
  const workspace = createWorkspace();
  const [left, right, out] = [place(workspace, a), place(workspace, b), workspace.take(shape.m * shape.n * 4)];
  gemmFloatAt(workspace, left, right, shape, out.at);
  expect(take(workspace, out.at, shape.m * shape.n, Float32Array)).toEqual(gemmFloat(a, b, shape));
});

test.each([bfp(4), bfp(8), bfp(12), ...["mxint8", "mxfp8", "mxfp6", "mxfp4"].map((name) => parseBlockFormat(name)!), NVFP4])(
  "$name: products of block formats are those of their values, to rounding",
  (format) => {
    const [m, n, k] = [3, 4, 70];
    const values = (count: number): Float32Array => Float32Array.from({ length: count }, () => random.normal());
    const [a, b] = [quantizeBlocks(values(m * k), m, k, format), quantizeBlocks(values(n * k), n, k, format)];
    const [x, y] = [dequantizeBlocks(a), dequantizeBlocks(b)];
    const found = gemmBlocks(a, b);
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let exact = 0;
        for (let l = 0; l < k; l++) exact += x[i * k + l]! * y[j * k + l]!;
        expect(Math.abs(found[i * n + j]! - exact)).toBeLessThan(1e-4);
      }
    }
  },
);
