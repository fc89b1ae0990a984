import { describe, expect, test } from "vitest";
import { awkward, place, readVectors, take } from "../../tests/support/kernels.ts";
import { createWorkspace } from "../load-wasm.ts";
import { INFINITY_BITS } from "../runs.ts";
import {
  addCountsAt,
  countFloatsAt,
  flipOrder,
  floatHistogram,
  histogramStateBytes,
  NO_ORDERS,
  startHistogramAt,
  type FloatBins,
  type OrderRange,
} from "./float-histogram.ts";

interface Found extends OrderRange {
  readonly counts: Float64Array;
}

function slow(x: Float32Array, bins: FloatBins, start = 0): Found {
  const counts = new Float64Array(2 * bins.side + 1).fill(start);
  return { ...floatHistogram(x, bins, counts), counts };
}

function fast(x: Float32Array, bins: FloatBins, start = 0): Found {
  const workspace = createWorkspace();
  const counts = place(workspace, new Float64Array(2 * bins.side + 1).fill(start));
  // What was in the memory before makes no difference.
  const state = place(workspace, new Uint8Array(histogramStateBytes(bins)).fill(255));
  const at = place(workspace, x);
  const first = Math.min(x.length, 401);
  startHistogramAt(workspace, bins, state);
  countFloatsAt(workspace, at, first, bins, state);
  countFloatsAt(workspace, at + 4 * first, x.length - first, bins, state);
  addCountsAt(workspace, bins, state, counts);
  // The counts are cleared now, the range is not.
  const range = addCountsAt(workspace, bins, state, counts);
  return { ...range, counts: take(workspace, counts, 2 * bins.side + 1, Float64Array) };
}

const valueOf = (order: number): number => new Float32Array(Int32Array.of(flipOrder(order)).buffer)[0]!;

describe("known answers", () => {
  type Case = FloatBins & { name: string; x: number[]; counts: number[]; range: [number, number] | null };
  test.each(readVectors("float-histogram") as readonly Case[])("$name", ({ x, counts, range, ...bins }) => {
    for (const count of [slow, fast]) {
      const found = count(Float32Array.from(x), bins);
      expect(found.counts).toEqual(Float64Array.from(counts));
      if (range === null) expect(found).toMatchObject(NO_ORDERS);
      else expect([valueOf(found.least), valueOf(found.largest)]).toEqual(range.map(Math.fround));
    }
  });
});

const FINE: FloatBins = { droppedBits: 18, firstStep: (127 - 24) * 32, side: 64 * 32 };

test.each([0, 1, 3, 4, 5, 1000, 70_001])("the SIMD twin counts %i values as the definition, and adds to what is there", (length) => {
  const x = awkward(length, length, "f32");
  for (const bins of [FINE, { droppedBits: 23, firstStep: 120, side: 3 }]) {
    expect(fast(x, bins, 2 ** 40)).toEqual(slow(x, bins, 2 ** 40));
    expect(slow(x, bins).counts.reduce((sum, count) => sum + count, 0)).toBe(length);
  }
});

test("minus zero comes before plus zero", () => {
  for (const count of [slow, fast]) expect(count(Float32Array.of(0, -0, 0), FINE)).toMatchObject({ least: -1, largest: 0 });
});

test.each([0x7fc00000, 0xffc00000, 0x7f800001, 0x7f800000, 0xff800000])(
  "what is not finite (bits %i) is in an outermost bin and lies outside of every number, wherever it stands",
  (bad) => {
    for (const index of [0, 5, 70, 72]) {
      const x = awkward(index, 73, "f32");
      new Uint32Array(x.buffer)[index] = bad;
      const found = fast(x, FINE);
      expect(found).toEqual(slow(x, FINE));
      expect(found.counts[0]! + found.counts.at(-1)!).toBe(1);
      const isOutside = (order: number): boolean => (flipOrder(order) & 0x7fffffff) >= INFINITY_BITS;
      expect(isOutside(found.least) || isOutside(found.largest)).toBe(true);
    }
  },
);

test("another number of counts than bins is refused", () => {
  expect(() => floatHistogram(new Float32Array(1), FINE, new Float64Array(4096))).toThrow("4096 counts for 4097 bins");
});
