import { expect, test } from "vitest";
import { fuzzBitwright } from "../fuzz/bitwright.ts";

test("100,000 mutated bitwright artifacts: a typed error or weights of the right count, in bounded time and memory", async () => {
  const before = process.memoryUsage().rss;
  const { read, slowest, failures } = await fuzzBitwright(100_000, 1_000_000);
  expect(failures).toEqual([]);
  expect(read).toBeGreaterThan(5000);
  expect(slowest).toBeLessThan(20_000);
  expect(process.memoryUsage().rss - before).toBeLessThan(1e9);
});
