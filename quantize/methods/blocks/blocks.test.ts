import { expect, test } from "vitest";
import { resolveMethods } from "../../recipe.ts";
import { parseBits } from "../../bits.ts";
import { resolveSettings, activationScheme, weightScheme } from "../../settings.ts";

test.each(["bfp", "mxint8", "mxfp8", "mxfp6", "mxfp4", "nvfp4"])("--method %s is round to nearest in that format", (name) => {
  const { method } = resolveMethods([name]);
  expect(parseBits(method.defaultBits).block?.name.startsWith(name)).toBe(true);
});

test("a width or a16 behind the name is a method as well", () => {
  expect(resolveMethods(["bfp12"]).method.defaultBits).toBe("bfp12");
  expect(resolveMethods(["nvfp4a16"]).method.defaultBits).toBe("nvfp4a16");
});

test("a16 leaves activations float; without it both are blocks, dynamic for activations", () => {
  const both = resolveSettings({ method: ["bfp"], bits: "bfp12", groupSize: 64 });
  expect(weightScheme(both, both.site, "x", 256)).toMatchObject({
    format: { kind: "bfp", mantissaBits: 4 },
    granularity: { kind: "group", size: 64 },
    timing: "static",
    scale: "e8m0",
  });
  expect(activationScheme(both, both.site)).toMatchObject({ format: { kind: "bfp", mantissaBits: 4 }, timing: "dynamic" });
  const weights = resolveSettings({ method: ["mxfp4a16"] });
  expect(activationScheme(weights, weights.site)).toBeUndefined();
});

test("scale rules are part of the scheme", () => {
  const settings = resolveSettings({ method: ["mxfp4"], scheme: { scale: "even" } });
  expect(weightScheme(settings, settings.site, "x", 256).scaleRule).toBe("even");
});

test.each([
  [{ method: ["mxfp4"], bits: "w4a16" }, /contradict/],
  [{ method: ["rtn"], bits: "bfp25" }, /bfp10 to bfp24/],
  [{ method: ["rtn"], bits: "bfp9" }, /bfp10 to bfp24/],
  [{ method: ["rtn"], bits: "w4a16", scheme: { scale: "even" } }, /block formats/],
  [{ method: ["nvfp4"], scheme: { preset: "awq" } }, /block format/],
  [{ method: ["rtn"], kv: "bfp12:blok=3" }, /blok/],
] as const)("%j is refused", (recipe, message) => {
  expect(() => {
    const settings = resolveSettings(recipe);
    weightScheme(settings, settings.site, "x", 256);
  }).toThrow(message);
});

test("MX and NVFP4 have the block they have", () => {
  const settings = resolveSettings({ method: ["mxfp4"], groupSize: 64 });
  expect(() => weightScheme(settings, settings.site, "x", 256)).toThrow(/blocks of 32/);
});
