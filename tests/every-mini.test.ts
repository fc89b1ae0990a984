/** Every fixture architecture through the main job: written, verified, opened again, and close to its source. */
import { mkdtemp, rm } from "node:fs/promises";
import { readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { toFloat32 } from "../core/tensor.ts";
import type { Engine } from "../model/engines/engine.ts";
import { createEngine } from "../model/engines/index.ts";
import { logitsOf } from "../model/evaluate.ts";
import type { Model } from "../model/model.ts";
import { openModel } from "../model/sources/open.ts";
import { quantize } from "../quantize/quantize.ts";
import type { Recipe } from "../quantize/types.ts";

const MINIS = "fixtures/models/minis";
let directory: string;
let engine: Engine;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "minis-"));
  engine = await createEngine("auto");
});
afterAll(async () => {
  await engine.close();
  await rm(directory, { recursive: true, force: true });
});

const idsOf = (model: Model): number[] => Array.from({ length: 24 }, (_, i) => (7 * i + 3) % model.facts.vocabularySize);

/** Cosine of two models' outputs. */
async function cosine(a: Model, b: Model): Promise<number> {
  const outputsOf = async (model: Model): Promise<Float32Array> =>
    toFloat32([...(await logitsOf(model, [idsOf(a)], { engine })).values()][0]!);
  const [x, y] = [await outputsOf(a), await outputsOf(b)];
  let [dot, xx, yy] = [0, 0, 0];
  for (let i = 0; i < x.length; i++) {
    dot += x[i]! * y[i]!;
    xx += x[i]! ** 2;
    yy += y[i]! ** 2;
  }
  return dot / Math.sqrt(xx * yy);
}

/** The least cosine: random weights of a few dozen channels, where 4 bits lose much. */
const RECIPES: readonly (readonly [string, Recipe, number])[] = [
  ["rtn w8a8", { method: ["rtn"], bits: "w8a8" }, 0.99],
  ["rtn w4a16", { method: ["rtn"], bits: "w4a16" }, 0.8],
  ["smoothquant", { method: ["smoothquant"] }, 0.99],
];

describe.each(readdirSync(MINIS).filter((name) => name !== "gpt2"))("%s", (name) => {
  test.each(RECIPES)("%s gives a verified artifact that runs like its source", async (label, recipe, least) => {
    const source = await openModel(join(MINIS, name));
    const out = join(directory, `${name} ${label}`);
    const report = await quantize(source, { recipe, out, engine, workers: 0, sequences: [idsOf(source)] });
    expect(report.verified.ok).toBe(true);
    expect(report.sites.some(({ scheme }) => scheme !== "float")).toBe(true);
    expect(await cosine(source, await openModel(out))).toBeGreaterThan(least);
  });
});

test("static scales of q, k and v outputs are calibrated and stored", async () => {
  const source = await openModel(join(MINIS, "qwen2"));
  const recipe: Recipe = { method: ["smoothquant"], scheme: { level: "O3", "qkv-outputs": "true", pairs: "all", preset: "sq-fake" } };
  const out = join(directory, "outputs");
  await quantize(source, { recipe, out, engine, workers: 0, sequences: [idsOf(source)] });
  const artifact = await openModel(out);
  const site = source.blocks.flatMap(({ sites }) => sites).find(({ name }) => name.endsWith("v_proj"))!;
  expect(artifact.activations.get(site.name)?.output).toMatchObject({ scheme: { timing: "static" } });
  expect(await cosine(source, artifact)).toBeGreaterThan(0.98);
});

test("gpt2, all Conv1D, is refused with a target that could hold it or the reason", async () => {
  const out = join(directory, "gpt2");
  await expect(quantize(join(MINIS, "gpt2"), { recipe: { method: ["rtn"] }, out, engine })).rejects.toMatchObject({
    code: "unsupported.scheme",
    message: expect.stringMatching(/Conv1D|transposed/),
  });
});

test("a group size that does not divide the columns is refused with one that does", async () => {
  const options = { recipe: { method: ["rtn"], bits: "w4a16", groupSize: 48 }, out: join(directory, "group"), engine };
  await expect(quantize(join(MINIS, "llama"), options)).rejects.toMatchObject({
    code: "input.option",
    message: expect.stringMatching(/group-size 48 does not divide the \d+ columns of .*; the nearest that does is \d+/),
  });
});
