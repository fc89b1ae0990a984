import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { fuzzDfloat11 } from "./fuzz/dfloat11.ts";

test("2,000 mutated DFloat11 artifacts: a typed error or the exact weights, in bounded time and memory", async () => {
  const directory = mkdtempSync(join(tmpdir(), "bitwright-fuzz-df11-"));
  const before = process.memoryUsage().rss;
  const { cases, exact, codes, slowest, failures } = await fuzzDfloat11(2000, 1, directory);
  rmSync(directory, { recursive: true, force: true });
  expect(failures).toEqual([]);
  // Gaps inside a block, texts nobody reads: some damage leaves the weights alone. A generator that only did that would prove little.
  expect(exact).toBeGreaterThan(cases / 100);
  expect(exact).toBeLessThan(cases / 2);
  for (const code of ["format.checksum", "format.field", "format.truncated"])
    expect([code, (codes.get(code) ?? 0) > 20]).toEqual([code, true]);
  expect(slowest).toBeLessThan(2000);
  expect(process.memoryUsage().rss - before).toBeLessThan(500e6);
});
