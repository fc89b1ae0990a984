import { expect, test } from "vitest";
import { fuzzBitwright } from "./fuzz/bitwright.ts";

test("2,000 mutated bitwright artifacts: a typed error or weights of the right count, in bounded time and memory", async () => {
  const before = process.memoryUsage().rss;
  const { read, codes, slowest, failures } = await fuzzBitwright(2000, 1);
  expect(failures).toEqual([]);
  expect(read).toBeGreaterThan(100);
  for (const code of ["format.config", "format.field", "format.truncated", "format.missing"])
    expect([code, (codes.get(code) ?? 0) > 5]).toEqual([code, true]);
  expect(slowest).toBeLessThan(2000);
  expect(process.memoryUsage().rss - before).toBeLessThan(500e6);
});
