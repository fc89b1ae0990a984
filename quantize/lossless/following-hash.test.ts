import { createHash } from "node:crypto";
import { mkdtempSync, openSync, closeSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createRandom } from "../../core/random.ts";
import { FormatError } from "../../core/errors.ts";
import { followFile, followFiles } from "./following-hash.ts";

let work: string;
beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), "following-hash-"));
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 2));

test.each([1, 2, 3])("pieces written in any order (seed %i): the hash is the finished file's", async (seed) => {
  const random = createRandom(seed);
  const bytes = Uint8Array.from({ length: 3_000_000 }, () => random.below(256));
  const path = join(work, `file-${seed}`);
  writeFileSync(path, new Uint8Array(bytes.length));
  const cuts = [0, ...Array.from({ length: 9 }, () => random.below(bytes.length)), bytes.length].toSorted((a, b) => a - b);
  const pieces = cuts.slice(1).map((to, i) => [cuts[i]!, to] as const);
  for (let i = pieces.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [pieces[i], pieces[j]] = [pieces[j]!, pieces[i]!];
  }
  const following = followFile(path, bytes.length);
  const file = openSync(path, "r+");
  for (const [from, to] of pieces) {
    writeSync(file, bytes.subarray(from, to), 0, to - from, from);
    following.wrote(from, to - from);
    await turn();
  }
  closeSync(file);
  expect(await following.digest()).toBe(createHash("sha256").update(bytes).digest("hex"));
});

test("bytes that nobody told of are read at the end; a file that is shorter is an error; closing ends the reading", async () => {
  const path = join(work, "plain");
  writeFileSync(path, "abc");
  const files = followFiles();
  files.add(path, 3, 1);
  await turn();
  // FIPS 180-2, appendix B.1.
  expect(await files.digest(path)).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  await expect(followFile(path, 4).digest()).rejects.toThrow(FormatError);
  const idle = followFile(path, 3);
  await idle.close();
});
