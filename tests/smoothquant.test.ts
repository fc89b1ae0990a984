/** SmoothQuant on the small Llama against the reference stack. Figures: fixtures/goldens/perplexity.json. */
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { calibrate, type Calibration } from "../calibrate/calibrate.ts";
import { toFloat32 } from "../core/tensor.ts";
import { openFileSource } from "../formats/containers/bytes.ts";
import { openSafetensors } from "../formats/containers/safetensors/read.ts";
import type { Engine } from "../model/engines/engine.ts";
import { createEngine } from "../model/engines/index.ts";
import { evaluate, logitsOf } from "../model/evaluate.ts";
import { tokenSample } from "../model/inputs.ts";
import type { Model } from "../model/model.ts";
import { openModel } from "../model/sources/open.ts";
import { loadTokenizer } from "../model/tokenizer.ts";
import { lazyOf, tensorOf } from "../core/tensor.ts";
import { decide } from "../quantize/decide.ts";
import { foldWeight } from "../quantize/fold-state.ts";
import { prepare } from "../quantize/prepare.ts";
import { quantize } from "../quantize/quantize.ts";
import type { Decisions } from "../quantize/decisions.ts";
import { resolveSettings } from "../quantize/settings.ts";
import { chooseSites } from "../quantize/sites.ts";

const MODEL = "fixtures/models/tiny-llama";
const MINIS = "fixtures/models/minis";
const WINDOWS = 32;
let directory: string;
let engine: Engine;
let model: Model;
let calibration: Calibration;
let ids: readonly number[];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "smoothquant-"));
  engine = await createEngine("auto");
  model = await openModel(MODEL);
  const file = await openSafetensors(await openFileSource("fixtures/goldens/statistics.safetensors"));
  const flat = toFloat32(await file.tensors.get("calibration_ids")!.read());
  await file.close();
  const samples = Array.from({ length: 32 }, (_, i) => tokenSample(model, [...flat.subarray(256 * i, 256 * (i + 1))]));
  calibration = await calibrate(model, samples, { statistics: ["absmax"], engine });
  ids = (await loadTokenizer(MODEL)).encode(readFileSync("fixtures/data/test.txt", "utf8"));
});
afterAll(async () => {
  await engine.close();
  await rm(directory, { recursive: true, force: true });
});

async function decideSmoothing(): Promise<Decisions> {
  const prepared = await prepare(MODEL, { recipe: { method: ["smoothquant"] }, out: directory });
  return decide(model, prepared.choices, prepared.settings, { calibration, scaleDType: "BF16" });
}

test("smoothing scales equal the reference's to 1e-5", async () => {
  const { pairs } = await decideSmoothing();
  const golden = await openSafetensors(await openFileSource("fixtures/goldens/smoothquant.safetensors"));
  expect(pairs).toHaveLength(golden.tensors.size);
  for (const [name, lazy] of golden.tensors) {
    const expected = toFloat32(await lazy.read());
    const found = pairs.find((pair) => pair.name === `model.${name}`)!.scales;
    const worst = expected.reduce((most, s, j) => Math.max(most, Math.abs(found[j]! / s - 1)), 0);
    expect(worst).toBeLessThan(1e-5);
  }
  await golden.close();
});

/** The model with folds applied in f32, nothing quantized. */
async function smooth(source: Model, { folds, replaced }: Decisions): Promise<Model> {
  const blocks = await Promise.all(
    source.blocks.map(async (block) => {
      const weights = new Map(block.weights);
      for (const [slot, lazy] of block.weights) {
        const [norm, fold] = [replaced.get(lazy.name), folds.get(lazy.name)];
        const site = block.sites.find(({ weight }) => weight === slot);
        if (norm !== undefined) weights.set(slot, lazyOf(lazy.name, norm));
        else if (fold !== undefined)
          weights.set(slot, lazyOf(lazy.name, tensorOf(foldWeight(toFloat32(await lazy.read()), fold, site!), lazy.shape)));
      }
      return { ...block, weights };
    }),
  );
  return { ...source, blocks };
}

/** Largest difference of outputs, relative to the largest output. */
async function difference(a: Model, b: Model, prompt: readonly number[]): Promise<number> {
  const outputsOf = async (one: Model): Promise<Float32Array> => toFloat32([...(await logitsOf(one, [prompt], { engine })).values()][0]!);
  const [source, changed] = [await outputsOf(a), await outputsOf(b)];
  const top = source.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return source.reduce((most, value, i) => Math.max(most, Math.abs(value - changed[i]!)), 0) / top;
}

test("smoothing leaves float logits unchanged to 1e-5, although the norms are stored in bf16", async () => {
  expect(await difference(model, await smooth(model, await decideSmoothing()), ids.slice(0, 64))).toBeLessThan(1e-5);
});

test.each(readdirSync(MINIS).filter((name) => name !== "llama-sharded"))(
  "every exact fold of %s leaves its outputs unchanged",
  async (name) => {
    const mini = await openModel(join(MINIS, name));
    const prompt = Array.from({ length: 24 }, (_, i) => (7 * i + 3) % mini.facts.vocabularySize);
    const settings = resolveSettings({ method: ["smoothquant"], scheme: { pairs: "all" } });
    const choices = chooseSites(mini, settings);
    const statistics = await calibrate(mini, [tokenSample(mini, prompt)], { statistics: ["absmax"], engine });
    const decisions = await decide(mini, choices, settings, { calibration: statistics, scaleDType: "F32" });
    expect(await difference(mini, await smooth(mini, decisions), prompt)).toBeLessThan(1e-5);
  },
);

test("W8A8 SmoothQuant stays within 0.1 % of the source's perplexity, O3 within 1 %", async () => {
  for (const [name, scheme, limit] of [
    ["dynamic", {}, 1.001],
    ["o3", { level: "O3" }, 1.01],
  ] as const) {
    const out = join(directory, name);
    await quantize(MODEL, { recipe: { method: ["smoothquant"], scheme }, calibration, out, workers: 0 });
    const result = await evaluate(await openModel(out), ids, { engine, window: 256, maxTokens: WINDOWS * 256, reference: model });
    expect(result.perplexity / result.referencePerplexity!).toBeLessThan(limit);
  }
});
