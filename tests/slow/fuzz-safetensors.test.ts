import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { openCheckpoint } from "../../formats/checkpoint.ts";
import { layoutSafetensors } from "../../formats/containers/safetensors/write.ts";
import { fuzzSafetensors } from "../fuzz/safetensors.ts";

const scratch = mkdtempSync(join(tmpdir(), "bitwright-fuzz-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

test("100,000 mutated safetensors, index and config files: a typed error or correct data, in bounded time and memory", async () => {
  const before = process.memoryUsage().rss;
  const { accepted, slowest, failures } = await fuzzSafetensors(100_000, 1_000_000, scratch);
  expect(failures).toEqual([]);
  expect(accepted).toBeGreaterThan(2000);
  expect(slowest).toBeLessThan(20_000);
  expect(process.memoryUsage().rss - before).toBeLessThan(1e9);
});

test("a tensor of more than 2 GiB is read whole, and tensors behind it where they are", async () => {
  const size = 2 ** 31 + 4096;
  const { header, fileBytes, offsets } = layoutSafetensors([
    { name: "big", dtype: "U8", shape: [size] },
    { name: "after", dtype: "BOOL", shape: [1] },
  ]);
  const path = join(scratch, "big.safetensors");
  const file = openSync(path, "w");
  writeSync(file, header);
  // Sparse: only the marks take disk.
  ftruncateSync(file, fileBytes);
  writeSync(file, Uint8Array.of(7), 0, 1, offsets.get("big")! + size - 1);
  writeSync(file, Uint8Array.of(1), 0, 1, offsets.get("after"));
  closeSync(file);
  const checkpoint = await openCheckpoint(path);
  const { bytes } = await checkpoint.tensors.get("big")!.read();
  expect([bytes.length, bytes.at(-1), bytes.at(-2)]).toEqual([size, 7, 0]);
  expect((await checkpoint.tensors.get("after")!.read()).bytes).toEqual(Uint8Array.of(1));
  await checkpoint.close();
});
