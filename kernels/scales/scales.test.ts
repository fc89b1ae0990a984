import { describe, expect, test } from "vitest";
import { intRule, type Arithmetic, type IntRule } from "../../core/dialect.ts";
import { roundBf16 } from "../../core/float.ts";
import { createRandom } from "../../core/random.ts";
import type { DialectName } from "../../core/scheme.ts";
import { place, readVectors, take } from "../../tests/support/kernels.ts";
import { createWorkspace } from "../load-wasm.ts";
import { RULE_BYTES, scalesAt, scalesOf, writeRule } from "./scales.ts";

type Storage = "F32" | "BF16" | "F16";

function slow(
  rule: IntRule,
  low: Float32Array,
  high: Float32Array,
  arithmetic: Arithmetic,
  storage: Storage,
): [Float32Array, Float32Array] {
  const [scales, zeros] = [new Float32Array(low.length), new Float32Array(low.length)];
  scalesOf(rule, low, high, { arithmetic, storage }, scales, zeros);
  return [scales, zeros];
}

function fast(
  rule: IntRule,
  low: Float32Array,
  high: Float32Array,
  arithmetic: Arithmetic,
  storage: Storage,
): [Float32Array, Float32Array] {
  const workspace = createWorkspace();
  const block = writeRule(workspace, workspace.take(RULE_BYTES), rule, { arithmetic, storage });
  const [scales, zeros] = [place(workspace, new Float32Array(low.length)), place(workspace, new Float32Array(low.length))];
  expect(scalesAt(workspace, block, place(workspace, low), place(workspace, high), low.length, scales, zeros)).toBe(0);
  return [take(workspace, scales, low.length, Float32Array), take(workspace, zeros, low.length, Float32Array)];
}

describe("known answers", () => {
  type Case = {
    name: string;
    dialect: DialectName;
    bits: number;
    symmetric: boolean;
    storage: Storage;
    low: number[];
    high: number[];
    scales: number[];
    zeros: number[];
  };
  test.each(readVectors("scales") as readonly Case[])("$name", ({ dialect, bits, symmetric, storage, low, high, scales, zeros }) => {
    const rule = intRule(dialect, bits, symmetric);
    const expected = [Float32Array.from(scales), Float32Array.from(zeros)];
    expect(slow(rule, Float32Array.from(low), Float32Array.from(high), "f32", storage)).toEqual(expected);
    expect(fast(rule, Float32Array.from(low), Float32Array.from(high), "f32", storage)).toEqual(expected);
  });
});

const FORMS: readonly (readonly [DialectName, boolean])[] = [
  ["compressed-tensors", true],
  ["compressed-tensors", false],
  ["sq-fake", true],
  ["torch-int", true],
  ["awq", true],
  ["awq", false],
  ["gptq", true],
  ["gptq", false],
  ["quarot", true],
  ["quarot", false],
  ["omniquant", false],
  ["hqq", false],
  ["spqr", false],
];

test.each(FORMS)("the twin gives the bits of the definition: %s, symmetric %s", (dialect, symmetric) => {
  const random = createRandom(7);
  for (const bits of [2, 3, 4, 5, 8]) {
    for (const arithmetic of ["f32", "bf16"] as const) {
      for (const storage of ["F32", "BF16", "F16"] as const) {
        const pairs = Array.from({ length: 200 }, () => {
          const size = 10 ** (random.below(9) - 7);
          const ends = [random.normal() * size, random.below(4) === 0 ? 0 : random.normal() * size].map(roundBf16);
          return ends.toSorted((a, b) => a - b);
        });
        const low = Float32Array.from(pairs, ([a]) => a!);
        const high = Float32Array.from(pairs, ([, b]) => b!);
        const rule = intRule(dialect, bits, symmetric);
        expect(fast(rule, low, high, arithmetic, storage)).toEqual(slow(rule, low, high, arithmetic, storage));
      }
    }
  }
});

test("a scale that overflows f16 is refused by the definition and counted by the twin", () => {
  const rule = intRule("compressed-tensors", 2, true);
  const ends = Float32Array.of(1, 1e6);
  expect(() => slow(rule, ends, ends, "f32", "F16")).toThrow("store scales in F32 or BF16");
  const workspace = createWorkspace();
  const block = writeRule(workspace, workspace.take(RULE_BYTES), rule, { storage: "F16" });
  const at = place(workspace, ends);
  expect(scalesAt(workspace, block, at, at, 2, place(workspace, new Float32Array(2)), 0)).toBe(1);
});

test("a dialect without the form names one that has it", () => {
  expect(() => intRule("omniquant", 4, true)).toThrow('omniquant has no symmetric integer form; "compressed-tensors" and "awq" have both');
});
