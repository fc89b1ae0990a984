import { expect, test } from "vitest";
import { fuzzOnnx } from "../fuzz/onnx.ts";

test("100,000 mutated ONNX files: a typed error, or a model that reads, inlines and writes, in bounded time and memory", async () => {
  const before = process.memoryUsage().rss;
  const { accepted, slowest, failures } = await fuzzOnnx(100_000, 1_000_000);
  expect(failures).toEqual([]);
  expect(accepted).toBeGreaterThan(2000);
  expect(slowest).toBeLessThan(20_000);
  expect(process.memoryUsage().rss - before).toBeLessThan(1e9);
});
