import { expect, test } from "vitest";
import { InputError } from "../core/errors.ts";
import { parseBits } from "./bits.ts";
import { parseGate } from "./gate.ts";
import { compilePattern } from "./patterns.ts";
import { activationScheme, resolveSettings, weightScheme } from "./settings.ts";
import type { Recipe } from "./types.ts";

const settle = (recipe: Partial<Recipe>) => resolveSettings({ method: ["rtn"], ...recipe });
const weight = (recipe: Partial<Recipe>, cols = 256) => {
  const settings = settle(recipe);
  return weightScheme(settings, settings.site, "site", cols);
};

test("smoothquant alone ends in rtn, w8a8, channel weights and token activations", () => {
  const settings = settle({ method: ["smoothquant"] });
  expect([settings.transforms.map(({ name }) => name), settings.method.name, settings.site.bits.name]).toEqual([
    ["smoothquant"],
    "rtn",
    "w8a8",
  ]);
  expect(weight({}).granularity).toEqual({ kind: "channel" });
  expect(activationScheme(settings, settings.site)).toMatchObject({ granularity: { kind: "token" }, timing: "dynamic" });
});

test("w4a16 has symmetric groups of 128, smaller where 128 does not divide", () => {
  expect(weight({ bits: "w4a16" })).toMatchObject({ format: { bits: 4, symmetric: true }, granularity: { kind: "group", size: 128 } });
  expect(weight({ bits: "w4a16" }, 192).granularity).toEqual({ kind: "group", size: 64 });
});

test("a group size that does not divide names both numbers and the nearest that does", () => {
  expect(() => weight({ bits: "w4a16", groupSize: 128 }, 192)).toThrow(
    /--group-size 128 does not divide the 192 columns of site; the nearest that does is 96/,
  );
});

test("levels have tensor weights and token, tensor and static activations", () => {
  for (const [level, kind, timing] of [
    ["O1", "token", "dynamic"],
    ["O2", "tensor", "dynamic"],
    ["O3", "tensor", "static"],
  ] as const) {
    const settings = settle({ scheme: { level } });
    expect(weight({ scheme: { level } }).granularity).toEqual({ kind: "tensor" });
    expect(activationScheme(settings, settings.site)).toMatchObject({ granularity: { kind }, timing });
  }
});

test("awq has zero points, other presets not; scales are F32 where a preset is chosen", () => {
  expect(weight({ bits: "w4a16", scheme: { preset: "awq" } })).toMatchObject({
    format: { symmetric: false },
    scale: "f32",
    dialect: "awq",
  });
  expect(weight({ bits: "w4a16" })).toMatchObject({ scale: "model", dialect: "compressed-tensors" });
});

test.each([
  [{ method: ["smothquant"] }, "method"],
  [{ bits: "w9a8" }, "bits"],
  [{ bits: "w8a12" }, "bits"],
  [{ scheme: { presset: "awq" } }, "scheme"],
  [{ scheme: { preset: "awk" } }, "scheme"],
  [{ scheme: { alpha: "2" } }, "scheme"],
  [{ scheme: { __proto__x: "1" } }, "scheme"],
] as const)("%j is refused with the known names", (recipe, option) => {
  const error = thrownBy(() => settle(recipe));
  expect(error).toBeInstanceOf(InputError);
  const { details } = error as InputError;
  expect([details["option"], Array.isArray(details["known"])]).toEqual([option, true]);
});

function thrownBy(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  return undefined;
}

test.each([
  { bits: "w4a16", scheme: { act: "static" } },
  { scheme: { level: "O1", act: "token" } },
  { scheme: { level: "O1" }, groupSize: 128 },
  { scheme: { symmetric: "false" } },
  { bits: "fp8", scheme: { preset: "awq" } },
  { bits: "w4a16", scheme: { preset: "sq-fake", arithmetic: "bf16" } },
] satisfies Partial<Recipe>[])("%j contradicts itself", (recipe) => {
  expect(() => settle(recipe)).toThrow(/contradict/);
});

test("every width of wNaM parses", () => {
  for (let w = 2; w <= 8; w++) {
    for (const a of [2, 3, 4, 5, 6, 7, 8]) expect(parseBits(`w${w}a${a}`)).toMatchObject({ weight: { bits: w }, activation: { bits: a } });
    expect(parseBits(`w${w}a16`).activation).toBeUndefined();
  }
});

test("patterns are names, last parts, globs and anchored regular expressions", () => {
  const name = "model.layers.10.mlp.down_proj";
  for (const pattern of [name, "down_proj", "mlp.down_proj", "layers.10.*", "re:.*down", "re:model\\.layers"])
    expect(compilePattern(pattern)(name)).toBe(true);
  for (const pattern of ["own_proj", "layers.1.*", "re:layers", "down_pro"]) expect(compilePattern(pattern)(name)).toBe(false);
});

test("gates are numbers under known keys", () => {
  expect(parseGate({ perplexity: "1.01", sqnr: "30" })).toEqual({ perplexity: 1.01, sqnr: 30 });
  expect(() => parseGate({ ppl: "1" })).toThrow(/no key "ppl"/);
  expect(() => parseGate({ sqnr: "high" })).toThrow(/not a number/);
});
