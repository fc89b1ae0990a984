import fc from "fast-check";
import { expect, test } from "vitest";
import type { QuantScheme } from "../../../core/scheme.ts";
import { dequantize } from "../../dequantize.ts";
import { quantizeRtn } from "./rtn.ts";

const int8 = (granularity: QuantScheme["granularity"], dialect: QuantScheme["dialect"], bits = 8, symmetric = true): QuantScheme => ({
  format: { kind: "int", bits, symmetric },
  granularity,
  timing: "static",
  scale: "f32",
  dialect,
});

test("a row by hand: absmax 127 gives scale 1 and the values themselves", () => {
  const { codes, scales } = quantizeRtn(
    { rows: 1, cols: 4, data: Float32Array.of(127, -3, 0.4, 2.5) },
    int8({ kind: "channel" }, "sq-fake"),
    "f32",
    "F32",
  );
  expect([...codes.data]).toEqual([127, -3, 0, 2]);
  expect([...scales]).toEqual([1]);
});

test("no weight moves by more than half a step", () => {
  const values = fc.array(fc.float({ noNaN: true, min: Math.fround(-1e3), max: Math.fround(1e3) }), { minLength: 32, maxLength: 32 });
  fc.assert(
    fc.property(values, fc.constantFrom("channel" as const, "tensor" as const), (list, kind) => {
      const data = Float32Array.from(list);
      const quantized = quantizeRtn({ rows: 4, cols: 8, data }, int8({ kind }, "sq-fake"), "f32", "F32");
      const restored = dequantize(quantized);
      return data.every((w, i) => Math.abs(w - restored[i]!) <= quantized.scales[kind === "tensor" ? 0 : Math.floor(i / 8)]! * 0.500001);
    }),
    { seed: 3 },
  );
});

test("asymmetric groups give back values of one sign with a zero point inside the code range", () => {
  const data = Float32Array.from({ length: 32 }, (_, i) => 1 + i / 31);
  const quantized = quantizeRtn(
    { rows: 1, cols: 32, data },
    int8({ kind: "group", size: 16 }, "compressed-tensors", 4, false),
    "f32",
    "F32",
  );
  const restored = dequantize(quantized);
  expect(quantized.scales).toHaveLength(2);
  expect(data.every((w, i) => Math.abs(w - restored[i]!) <= quantized.scales[Math.floor(i / 16)]! * 0.51)).toBe(true);
});

test("NaN and infinity are refused", () => {
  expect(() =>
    quantizeRtn({ rows: 1, cols: 2, data: Float32Array.of(1, NaN) }, int8({ kind: "channel" }, "sq-fake"), "f32", "F32"),
  ).toThrow(/NaN or infinity/);
});
