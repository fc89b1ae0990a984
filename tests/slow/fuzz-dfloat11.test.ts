import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { fuzzDfloat11 } from "../fuzz/dfloat11.ts";

const CASES = 10_000;

test.each(Array.from({ length: 10 }, (_, part) => part))(
  "100,000 mutated DFloat11 artifacts, part %d: a typed error or the exact weights, in bounded time and memory",
  async (part) => {
    const directory = mkdtempSync(join(tmpdir(), "bitwright-fuzz-df11-"));
    const before = process.memoryUsage().rss;
    const { exact, slowest, failures } = await fuzzDfloat11(CASES, 1_000_000 + part * CASES, directory);
    rmSync(directory, { recursive: true, force: true });
    expect(failures).toEqual([]);
    expect(exact).toBeGreaterThan(CASES / 100);
    expect(slowest).toBeLessThan(20_000);
    expect(process.memoryUsage().rss - before).toBeLessThan(1e9);
  },
);
