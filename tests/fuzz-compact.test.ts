import { expect, test } from "vitest";
import { fuzzCompact } from "./fuzz/compact.ts";

test("2,000 mutated compact files: a typed error or the exact weights, in bounded time and memory", async () => {
  const before = process.memoryUsage().rss;
  const { cases, accepted, codes, slowest, failures } = await fuzzCompact(2000, 1);
  expect(failures).toEqual([]);
  // A generator that breaks only the footer, or nothing, would prove little.
  expect(accepted).toBeLessThan(cases / 2);
  for (const code of ["exact", "format.checksum", "format.field", "format.truncated", "format.magic"]) {
    expect([code, (codes.get(code) ?? 0) > 0]).toEqual([code, true]);
  }
  expect(slowest).toBeLessThan(2000);
  expect(process.memoryUsage().rss - before).toBeLessThan(500e6);
});
