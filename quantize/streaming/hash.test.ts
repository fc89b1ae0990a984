import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createRandom } from "../../core/random.ts";
import { hashRanges } from "./hash.ts";

let directory: string;
let path: string;
const random = createRandom(7);
const bytes = Uint8Array.from({ length: 1_300_000 }, () => random.below(256));

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "hash-"));
  path = join(directory, "data");
  await writeFile(path, bytes);
});
afterAll(() => rm(directory, { recursive: true, force: true }));

test("hashes are those of the ranges, in order, whatever their sizes", async () => {
  const spans = [
    [0, 0],
    [1_299_999, 1],
    [5, 1_200_000],
    [524_288, 524_288],
  ] as const;
  const ranges = spans.map(([offset, byteLength]) => ({ name: `at ${offset}`, path, offset, byteLength }));
  const expected = spans.map(([start, size]) =>
    createHash("sha256")
      .update(bytes.subarray(start, start + size))
      .digest("hex"),
  );
  expect(await hashRanges(ranges, { workers: 2 })).toEqual(expected);
});

test("a range past the end of its file is refused by name", async () => {
  const ranges = [{ name: "w", path, offset: 1_299_990, byteLength: 11 }];
  await expect(hashRanges(ranges, { workers: 0 })).rejects.toMatchObject({ code: "format.truncated", details: { tensor: "w" } });
});

test("an aborted signal stops hashing", async () => {
  const ranges = [{ name: "w", path, offset: 0, byteLength: 100 }];
  await expect(hashRanges(ranges, { workers: 0, signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "interrupted" });
});
