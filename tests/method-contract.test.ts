/** What every method and transform promises, checked on every one in the tables: a new one is covered by being there. */
import { describe, expect, test } from "vitest";
import type { QuantScheme } from "../core/scheme.ts";
import { createRandom } from "../core/random.ts";
import type { Matrix } from "../core/tensor.ts";
import { dequantize } from "../quantize/dequantize.ts";
import { METHODS } from "../quantize/methods/index.ts";
import { resolveSettings } from "../quantize/settings.ts";
import { TRANSFORMS } from "../quantize/transforms/index.ts";

const random = createRandom(11);
const weight: Matrix = { rows: 5, cols: 128, data: Float32Array.from({ length: 640 }, () => random.normal()) };
const zeros: Matrix = { rows: 3, cols: 128, data: new Float32Array(384) };

const scheme = (bits: number, symmetric: boolean, group?: number): QuantScheme => ({
  format: { kind: "int", bits, symmetric },
  granularity: group === undefined ? { kind: "channel" } : { kind: "group", size: group },
  timing: "static",
  scale: "f32",
  dialect: "compressed-tensors",
});
const SCHEMES = [scheme(8, true), scheme(4, true, 32), scheme(4, false, 64), scheme(2, false)];

describe.each([...Object.entries(METHODS), ...Object.entries(TRANSFORMS)])("%s", (key, entry) => {
  test("is listed under its own name", () => expect(entry.name).toBe(key));

  test("cites a source and says what it does", () => {
    expect(entry.source).toMatch(/^(arXiv:\d{4}\.\d{5}|https:\/\/)/);
    expect(entry.summary).not.toBe("");
  });

  test("rejects a setting it does not know", () => {
    expect(() => resolveSettings({ method: [key], scheme: { alhpa: "1" } })).toThrow(expect.objectContaining({ code: "input.option" }));
  });
});

describe.each(Object.entries(METHODS))("method %s", (_key, method) => {
  test.each(SCHEMES)("gives the same codes twice and leaves its input alone: %o", (one) => {
    const before = weight.data.slice();
    expect(method.quantize(weight, one, "f32", "F32")).toEqual(method.quantize(weight, one, "f32", "F32"));
    expect(weight.data).toEqual(before);
  });

  test.each(SCHEMES)("keeps codes in range and scales positive: %o", (one) => {
    const { codes, scales } = method.quantize(weight, one, "f32", "F32");
    const { bits } = one.format as { bits: number };
    const data = codes.data as Int8Array;
    expect(Math.min(...data)).toBeGreaterThanOrEqual(-(2 ** (bits - 1)));
    expect(Math.max(...data)).toBeLessThanOrEqual(2 ** (bits - 1) - 1);
    expect(Math.min(...scales)).toBeGreaterThan(0);
  });

  test.each(SCHEMES)("gives zeros for zeros: %o", (one) => {
    const restored = dequantize(method.quantize(zeros, one, "f32", "F32"));
    expect(restored.every((value) => value === 0)).toBe(true);
  });

  test("refuses NaN", () => {
    const damaged = { ...weight, data: weight.data.with(3, NaN) };
    expect(() => method.quantize(damaged, SCHEMES[0]!, "f32", "F32")).toThrow(expect.objectContaining({ code: "numeric.not-finite" }));
  });
});

describe.each(Object.entries(TRANSFORMS))("transform %s", (key, transform) => {
  test("chooses the same positive factors twice", async () => {
    const settings = resolveSettings({ method: [key] });
    const site = { name: "s", kind: "linear", weight: "w", cols: 4, rows: 2, channelAxis: 0 } as const;
    const pair = { kind: "norm", name: "n", channels: 4, producer: { weight: "g", offset: 0, axis: 0 }, consumers: [site], value: "x" };
    const context = {
      pairs: [pair],
      settings,
      absmax: () => Float32Array.of(1, 100, 0, 3),
      weight: async () => Float32Array.of(1, 2, 3, 4, 0, -1, 0.5, 0),
    } as unknown as Parameters<typeof transform.decide>[0];
    const first = await transform.decide(context);
    expect(await transform.decide(context)).toEqual(first);
    expect(first.flatMap(({ scales }) => [...scales]).every((s) => s > 0 && Number.isFinite(s))).toBe(true);
  });
});
