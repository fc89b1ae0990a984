import { expect, test } from "vitest";
import { compilePattern, requireMatches } from "./patterns.ts";

const NAMES = ["model.layers.0.mlp.down_proj", "model.layers.10.mlp.down_proj", "model.layers.1.self_attn.q_proj", "lm_head"];

test.each([
  ["down_proj", [0, 1]],
  ["mlp.down_proj", [0, 1]],
  ["model.layers.1.self_attn.q_proj", [2]],
  ["layers.1*", [1, 2]],
  ["*.q_proj", [2]],
  ["re:.*layers\\.0\\.", [0]],
  // Anchored at the start, as the compressed-tensors library matches.
  ["re:layers", []],
  // Whole parts of a name only.
  ["proj", []],
] as const)("%s matches %j", (pattern, expected) => {
  const matches = compilePattern(pattern);
  expect(NAMES.flatMap((name, i) => (matches(name) ? [i] : []))).toEqual(expected);
});

test("characters of a name are not read as a regular expression", () => {
  expect(compilePattern("a.b*")("xaXb1")).toBe(false);
  expect(compilePattern("a.b*")("x.a.b1")).toBe(true);
});

test("a pattern that matches nothing is refused with the endings there are", () => {
  expect(() => requireMatches("ignore", ["lm_haed"], NAMES)).toThrow(/--ignore "lm_haed".*down_proj, q_proj, lm_head/);
});

test("a broken regular expression is refused", () => {
  expect(() => compilePattern("re:(")).toThrow(expect.objectContaining({ code: "input.option" }));
});
