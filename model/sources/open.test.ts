import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { toFloat32, type Tensor } from "../../core/tensor.ts";
import { openCheckpoint } from "../../formats/checkpoint.ts";
import { writeSafetensors } from "../../formats/containers/safetensors/write.ts";
import { sitesOf } from "../model.ts";
import { openModel } from "./open.ts";

const FIXTURES = new URL("../../fixtures", import.meta.url).pathname;
const TINY = join(FIXTURES, "models/tiny-llama");

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "bitwright-open-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** The first layer of an official artifact as a model of one layer. */
async function writeArtifact(name: string): Promise<void> {
  const tensors = new Map<string, Tensor>();
  for (const path of [TINY, join(FIXTURES, "compressed-tensors", name, "layer0.safetensors")]) {
    const checkpoint = await openCheckpoint(path);
    for (const [tensor, lazy] of checkpoint.tensors) {
      if (path !== TINY || !tensor.startsWith("model.layers.")) tensors.set(tensor, await lazy.read());
    }
    await checkpoint.close();
  }
  const config = JSON.parse(readFileSync(join(FIXTURES, "compressed-tensors", name, "config.json"), "utf8")) as Record<string, unknown>;
  writeFileSync(join(folder, "config.json"), JSON.stringify({ ...config, num_hidden_layers: 1 }));
  await writeSafetensors(join(folder, "model.safetensors"), tensors);
}

test.each([
  ["w8a8-dynamic", 0.99, "dynamic"],
  ["w8a8-static", 0.99, "static"],
  ["fp8-static", 0.99, "static"],
  ["w4a16", 0.98, undefined],
  ["w4a16-asym", 0.98, undefined],
])("%s, written by llm-compressor, opens as a model whose weights have a cosine above %s with the source", async (name, least, timing) => {
  await writeArtifact(name);
  const model = await openModel(folder);
  const source = await openModel(TINY);
  const sites = sitesOf(model).filter(({ name: site }) => site !== "lm_head");
  expect(sites.length).toBe(7);
  for (const site of sites) {
    const actual = toFloat32(await model.tensors.get(`${site.name}.weight`)!.read());
    const expected = toFloat32(await source.tensors.get(`${site.name}.weight`)!.read());
    expect(cosine(actual, expected)).toBeGreaterThan(least);
    expect(cosine(actual, expected)).toBeLessThan(1);
    expect(model.activations.get(site.name)?.input?.scheme.timing).toBe(timing);
  }
});

function cosine(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array): number => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

test("a quantization that is not known is refused before its codes are taken for weights", async () => {
  await writeArtifact("w4a16");
  const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as Record<string, unknown>;
  writeFileSync(join(folder, "config.json"), JSON.stringify({ ...config, quantization_config: { quant_method: "aqlm" } }));
  await expect(openModel(folder)).rejects.toMatchObject({ code: "unsupported.format", message: expect.stringMatching(/aqlm/) });
});

test("the facts of a model come from its files", async () => {
  const { facts, inputs, outputs, directory } = await openModel(TINY);
  expect(facts).toEqual({
    family: "llama",
    className: "LlamaForCausalLM",
    vocabularySize: 2048,
    maxPositions: 1024,
    hiddenSize: 256,
    dtype: "BF16",
    tiedHead: true,
    output: "logits",
  });
  expect(inputs.map(({ name }) => name)).toEqual(["input_ids", "position_ids"]);
  expect(outputs).toEqual(["logits"]);
  expect(directory).toBe(TINY);
});

test("weights are read anew at each read, so a file replaced by a shorter one is an error and no stale data", async () => {
  await writeArtifact("w4a16");
  const model = await openModel(folder);
  writeFileSync(join(folder, "model.safetensors"), "");
  await expect(model.tensors.get("model.norm.weight")!.read()).rejects.toMatchObject({ code: "format.truncated" });
});
