import { mkdtemp, readdir, readFile, rm, writeFile, mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { InputError, InterruptedError } from "../../core/errors.ts";
import { quantize, resume } from "../quantize.ts";
import { encodeSafetensors } from "../../formats/containers/safetensors/write.ts";
import type { QuantizeOptions } from "../types.ts";

let work: string;
let source: string;
const recipe = { method: ["dfloat11"] };

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "resume-df11-"));
  source = join(work, "source");
  await mkdir(source);
  const patterns = (seed: number): Uint8Array =>
    new Uint8Array(Uint16Array.from({ length: 65536 }, (_, i) => 0x3c00 + (Math.imul(i + seed, 0x9e3779b1) >>> 22)).buffer);
  const tensors = new Map(
    Array.from(
      { length: 6 },
      (_, i) => [`layers.${i}.a.weight`, { dtype: "BF16" as const, shape: [256, 256], bytes: patterns(i) }] as const,
    ),
  );
  await writeFile(join(source, "model.safetensors"), encodeSafetensors(tensors));
});
afterAll(() => rm(work, { recursive: true, force: true }));

/** Stops once `share` of the bytes are encoded. */
async function interrupt(out: string, share: number): Promise<void> {
  const stop = new AbortController();
  const onProgress: QuantizeOptions["onProgress"] = ({ phase, done, total }) => {
    if (phase === "quantize" && done >= share * total) stop.abort();
  };
  await expect(quantize(source, { recipe, out, workers: 0, signal: stop.signal, onProgress })).rejects.toThrow(InterruptedError);
}

async function files(directory: string): Promise<Map<string, string>> {
  return new Map(
    await Promise.all(
      (await readdir(directory))
        .toSorted()
        .map(async (name) => [name, (await readFile(join(directory, name))).toString("base64")] as const),
    ),
  );
}

test("interrupted, the same call goes on and gives the same bytes", async () => {
  const [whole, broken] = [join(work, "whole"), join(work, "broken")];
  await quantize(source, { recipe, out: whole, workers: 0 });
  await interrupt(broken, 0.5);
  expect((await readdir(broken)).filter((name) => name.endsWith(".safetensors"))).toEqual([]);
  let encoded = 0;
  const report = await quantize(source, {
    recipe,
    out: broken,
    workers: 0,
    onProgress: ({ phase, done, total }) => void (phase === "quantize" && encoded === 0 && (encoded = done / total)),
  });
  expect(report.resumed).toBe(true);
  // What was finished before was not done again.
  expect(encoded).toBeGreaterThan(0.3);
  expect(await files(broken)).toEqual(await files(whole));
});

test("the directory alone is enough to go on", async () => {
  const out = join(work, "by-directory");
  await interrupt(out, 0.3);
  expect((await resume(out, { workers: 0 })).verified.ok).toBe(true);
});

test("another recipe does not go on with it, and a finished artifact is replaced only by force", async () => {
  const out = join(work, "forced");
  await interrupt(out, 0.3);
  await expect(quantize(source, { recipe: { ...recipe, patterns: [{ pattern: "layers\\.0" }] }, out, workers: 0 })).rejects.toThrow(
    InputError,
  );
  await quantize(source, { recipe, out, workers: 0 });
  await expect(quantize(source, { recipe, out, workers: 0 })).rejects.toThrow(/--force/);
  await quantize(source, { recipe: { ...recipe, patterns: [{ pattern: "layers\\.0" }] }, out, workers: 0, force: true });
  expect((await readdir(out)).toSorted()).toEqual(["bitwright.json", "config.json", "layers_0.safetensors", "model.safetensors"]);
});
