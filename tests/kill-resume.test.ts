/** A run that is killed at random moments and started again ends in the bytes of one that was not. */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createRandom } from "../core/random.ts";
import { tensorOf, type Tensor } from "../core/tensor.ts";
import { writeSafetensors } from "../formats/containers/safetensors/write.ts";
import { quantize, resume } from "../quantize/quantize.ts";

const SHARD_BYTES = 150_000;
let directory: string;
let source: string;

/** A checkpoint of many small matrices: many journal lines, several shards. */
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "kill-"));
  source = join(directory, "model.safetensors");
  const random = createRandom(7);
  const tensors = new Map<string, Tensor>();
  for (let layer = 0; layer < 24; layer++) {
    const values = Float32Array.from({ length: 128 * 256 }, () => random.normal());
    tensors.set(`layers.${layer}.proj.weight`, tensorOf(values, [128, 256]));
    tensors.set(`layers.${layer}.norm.weight`, tensorOf(values.slice(0, 256), [256]));
  }
  await writeSafetensors(source, tensors);
});
afterAll(() => rm(directory, { recursive: true, force: true }));

function hashes(out: string): ReadonlyMap<string, string> {
  return new Map(
    readdirSync(out)
      .toSorted()
      .map((name) => [
        name,
        createHash("sha256")
          .update(readFileSync(join(out, name)))
          .digest("hex"),
      ]),
  );
}

const options = (out: string, workers: number) => ({
  recipe: { method: ["rtn"], bits: "w4a16" },
  out,
  workers,
  maxShardBytes: SHARD_BYTES,
});

/** Run `quantize` in a process of its own and kill it after `delay` ms. @returns whether it had finished. */
function runAndKill(out: string, delay: number): Promise<boolean> {
  const code =
    `const { quantize } = await import("./quantize/quantize.ts");` +
    `process.stdout.write("started");` +
    `await quantize(${JSON.stringify(source)}, ${JSON.stringify(options(out, 1))});`;
  const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", code], { stdio: ["ignore", "pipe", "inherit"] });
  return new Promise((resolve, reject) => {
    // The clock starts when the work does, not while modules load.
    child.stdout.once("data", () => setTimeout(() => child.kill("SIGKILL"), delay));
    child.once("error", reject);
    child.once("exit", (status) => resolve(status === 0));
  });
}

test("kill -9 at random moments never leaves a finished-looking artifact, and the same command then gives the same bytes", async () => {
  const whole = join(directory, "whole");
  await quantize(source, options(whole, 0));
  const expected = hashes(whole);
  const random = createRandom(11);
  let kills = 0;
  for (let round = 0; round < 3; round++) {
    const out = join(directory, `killed-${round}`);
    for (let attempt = 0; attempt < 2; attempt++) {
      if (await runAndKill(out, random.below(220))) break;
      kills++;
      // Whatever looks finished must be whole: the manifest comes last.
      const looksFinished = existsSync(join(out, "bitwright.json"));
      const found = looksFinished ? hashes(out) : expected;
      expect([...expected].filter(([name, hash]) => found.get(name) !== hash)).toEqual([]);
    }
    if (!existsSync(join(out, "bitwright.json")) || existsSync(join(out, ".bitwright"))) await quantize(source, options(out, 0));
    expect(hashes(out)).toEqual(expected);
  }
  expect(kills).toBeGreaterThan(0);
}, 180_000);

test("one worker and several write the same bytes", async () => {
  const [one, three] = [join(directory, "one"), join(directory, "three")];
  await quantize(source, options(one, 1));
  await quantize(source, options(three, 3));
  expect(hashes(three)).toEqual(hashes(one));
});

test("an aborted run rejects as interrupted, and resume needs nothing but its directory", async () => {
  const [whole, out] = [join(directory, "whole-2"), join(directory, "aborted")];
  await quantize(source, options(whole, 0));
  const stop = new AbortController();
  const aborted = quantize(source, {
    ...options(out, 1),
    signal: stop.signal,
    onProgress: ({ phase }) => phase === "quantize" && stop.abort(),
  });
  await expect(aborted).rejects.toMatchObject({ code: "interrupted" });
  expect(existsSync(join(out, "bitwright.json"))).toBe(false);
  expect((await resume(out)).resumed).toBe(true);
  expect(hashes(out)).toEqual(hashes(whole));
});

test("finished artifacts, foreign files and the source itself are never written over", async () => {
  const out = join(directory, "taken");
  await quantize(source, options(out, 0));
  await expect(quantize(source, options(out, 0))).rejects.toMatchObject({ code: "input.output-exists" });
  const replaced = await quantize(source, { ...options(out, 0), recipe: { method: ["rtn"], bits: "w8a16" }, force: true });
  expect(replaced.verified.ok).toBe(true);
  writeFileSync(join(out, "notes.txt"), "mine");
  await expect(quantize(source, { ...options(out, 0), force: true })).rejects.toMatchObject({ code: "input.output-exists" });
  await expect(quantize(source, options(directory, 0))).rejects.toMatchObject({ code: "input.path" });
});
