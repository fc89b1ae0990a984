import { describe, expect, test } from "vitest";
import { createMatcher } from "./match.ts";
import { compilePattern } from "../../pattern.ts";
import type { ConfigGroup } from "./config.ts";

const q = "model.layers.12.self_attn.q_proj";

describe("patterns match as Python's re.match: anchored at the start, not at the end", () => {
  test.each([
    ["model", q, true],
    ["layers", q, false],
    [".*q_proj", q, true],
    [".*q_proj$", `${q}.extra`, false],
    [".*self_attn\\.(q|k|v)_proj$", q, true],
    [".*self_attn\\.(?:q|k|v)_proj$", "model.layers.1.self_attn.o_proj", false],
    ["model\\.layers\\.[0-9]+\\..*", q, true],
    ["model\\.layers\\.[^0-9]", q, false],
    ["model\\.layers\\.\\d{2}\\.", q, true],
    ["model\\.layers\\.\\d{3,}\\.", q, false],
    ["model\\.layers\\.\\d{1,2}?\\.", q, true],
    ["^model.*_proj$", q, true],
    ["(?P<a>model)\\.layers", q, true],
    ["[]a]+", "]a", true],
    ["[a-]+$", "a-a", true],
    ["a{,2}$", "aaa", false],
    ["a{x}", "a{x}", true],
    ["(a*)*b", "aaaa", false],
    ["", "anything", true],
    ["mode\\w\\.", q, true],
    ["lm_head|model.*", q, true],
  ])("%s on %s: %s", (pattern, text, expected) => {
    expect(compilePattern(pattern).matches(text)).toBe(expected);
  });
});

describe("patterns from a hostile file", () => {
  test.each(["(a+)+$", "(a|a)*$", "(a|aa)+$", ".*.*.*.*.*.*.*.*.*.*.*.*x", "(.*)*(.*)*(.*)*x"])("%s takes bounded time", (pattern) => {
    const start = performance.now();
    expect(compilePattern(pattern).matches(`${"a".repeat(900)}!`)).toBe(false);
    expect(performance.now() - start).toBeLessThan(1000);
  });

  test.each(["(", ")", "[a", "*a", "a**", "\\", "[z-a]", "a{3,1}"])("%s is not a pattern", (pattern) => {
    expect(() => compilePattern(pattern)).toThrow(expect.objectContaining({ code: "format.config" }));
  });

  test.each(["(?!a)b", "(?=a)", "\\b", "(a)\\1", "(a{1000}){1000}", "((){9999}){9999}", "a*+", `${"(".repeat(40)}a${")".repeat(40)}`])(
    "%s is refused by name",
    (pattern) => {
      expect(() => compilePattern(pattern)).toThrow(expect.objectContaining({ code: "unsupported.format" }));
    },
  );
});

test("exact names come before patterns, patterns before the class", () => {
  const group = (name: string, ...targets: string[]): ConfigGroup => ({
    name,
    targets,
    weights: undefined,
    input: undefined,
    output: undefined,
    format: undefined,
  });
  const { groupOf, isIgnored } = createMatcher({
    groups: [group("class", "Linear"), group("pattern", "re:.*_proj$"), group("exact", q)],
    ignore: ["lm_head", "re:.*router"],
    format: "dense",
  });
  expect(groupOf(q)?.name).toBe("exact");
  expect(groupOf("model.layers.0.self_attn.q_proj")?.name).toBe("pattern");
  expect(groupOf("model.layers.0.mlp.fc1")?.name).toBe("class");
  expect(isIgnored("lm_head")).toBe(true);
  expect(isIgnored("model.lm_head")).toBe(false);
  expect(isIgnored("a.router")).toBe(true);
});
