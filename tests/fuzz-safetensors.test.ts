import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { fuzzSafetensors } from "./fuzz/safetensors.ts";

test("2,000 mutated safetensors, index and config files: a typed error or correct data, in bounded time and memory", async () => {
  const directory = mkdtempSync(join(tmpdir(), "bitwright-fuzz-"));
  const before = process.memoryUsage().rss;
  const { cases, accepted, codes, slowest, failures } = await fuzzSafetensors(2000, 1, directory);
  rmSync(directory, { recursive: true, force: true });
  expect(failures).toEqual([]);
  // A generator that only breaks the length field, or nothing, would prove little.
  expect(accepted).toBeGreaterThan(cases / 50);
  expect(accepted).toBeLessThan(cases / 2);
  for (const code of [
    "format.field",
    "format.config",
    "format.duplicate",
    "format.overlap",
    "format.truncated",
    "format.limit",
    "format.missing",
  ]) {
    expect([code, codes.get(code) ?? 0]).toEqual([code, expect.any(Number)]);
    expect(codes.get(code) ?? 0).toBeGreaterThan(0);
  }
  expect(slowest).toBeLessThan(2000);
  expect(process.memoryUsage().rss - before).toBeLessThan(500e6);
});
