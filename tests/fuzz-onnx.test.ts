import { expect, test } from "vitest";
import { fuzzOnnx } from "./fuzz/onnx.ts";

test("2,000 mutated ONNX files: a typed error, or a model that reads, inlines and writes, in bounded time and memory", async () => {
  const before = process.memoryUsage().rss;
  const { cases, accepted, codes, slowest, failures } = await fuzzOnnx(2000, 1);
  expect(failures).toEqual([]);
  // A generator that breaks everything, or nothing, would prove little.
  expect(accepted).toBeGreaterThan(cases / 50);
  expect(accepted).toBeLessThan((cases * 3) / 4);
  for (const code of ["format.field", "format.truncated", "format.missing", "format.duplicate", "format.limit", "unsupported.format"]) {
    expect([code, codes.get(code) ?? 0]).toEqual([code, expect.any(Number)]);
    expect(codes.get(code) ?? 0).toBeGreaterThan(0);
  }
  expect(slowest).toBeLessThan(2000);
  expect(process.memoryUsage().rss - before).toBeLessThan(500e6);
});
