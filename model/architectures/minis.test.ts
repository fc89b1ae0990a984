import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { toFloat32, type LazyTensor } from "../../core/tensor.ts";
import { openCheckpoint } from "../../formats/checkpoint.ts";
import { createEngine } from "../engines/index.ts";
import type { Engine, HostTensor, Values } from "../engines/engine.ts";
import { tokenSample } from "../inputs.ts";
import type { Model } from "../model.ts";
import { loadTokenizer } from "../tokenizer.ts";
import { buildModel, openModel } from "../sources/open.ts";
import { DECODERS, MINI_NAMES, MINIS } from "../../tests/support/minis.ts";
import { farthest, readFloats } from "../../tests/support/tensors.ts";

const FIXTURES = new URL("../../fixtures", import.meta.url).pathname;
const TOLERANCE = 2e-4;

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine("onnxruntime", { threads: 1 });
});
afterAll(async () => engine.close());

interface Prompt {
  readonly ids: readonly number[];
  readonly token_type_ids?: readonly number[];
  readonly attention_mask?: readonly number[];
}

/** Run all blocks in order; block outputs and taps by "<block>:<value>". */
async function runModel(
  model: Model,
  prompt: Prompt,
  taps: Readonly<Record<string, readonly string[]>> = {},
): Promise<Map<string, HostTensor>> {
  const { ids, token_type_ids: tokenTypes, attention_mask: attentionMask } = prompt;
  const options = { ...(tokenTypes === undefined ? {} : { tokenTypes }), ...(attentionMask === undefined ? {} : { attentionMask }) };
  const carried: Record<string, HostTensor> = { ...tokenSample(model, ids, options).inputs };
  const seen = new Map<string, HostTensor>();
  for (const block of model.blocks) {
    const feeds: Record<string, HostTensor> = {};
    for (const [input, value] of Object.entries(block.reads)) feeds[input] = carried[value]!;
    for (const [slot, tensor] of block.weights) feeds[slot] = await host(tensor);
    const outputs = [...new Set([...block.graph.outputs, ...(taps[block.name] ?? [])])];
    const compiled = await engine.compile(block.graph, { outputs });
    const values: Values = await compiled.run(feeds);
    for (const [output, value] of Object.entries(block.writes)) carried[value] = values[output]!;
    for (const [name, value] of Object.entries(values)) seen.set(`${block.name}:${name}`, value);
    await compiled.release();
  }
  for (const name of model.outputs) seen.set(name, carried[name]!);
  return seen;
}

async function host(tensor: LazyTensor): Promise<HostTensor> {
  return { dtype: "F32", shape: tensor.shape, data: toFloat32(await tensor.read()) };
}

function readJson(path: string): unknown {
  return JSON.parse(readFileSync(join(FIXTURES, path), "utf8"));
}

describe.each(MINI_NAMES)("%s equals its golden", (mini) => {
  const directory = join(MINIS, mini);
  const spellings = ["config.json", "config.hub-v4.json"].filter((name) => existsSync(join(directory, name)));
  test.each(spellings)("in %s", async (spelling) => {
    const checkpoint = await openCheckpoint(directory);
    const config = JSON.parse(readFileSync(join(directory, spelling), "utf8")) as Record<string, unknown>;
    const model = buildModel({ config, tensors: checkpoint.tensors });
    const source = mini === "llama-sharded" ? "llama" : mini;
    const { prompts } = readJson(`models/minis/${source}/golden.json`) as { prompts: Record<string, Prompt> };
    const expected = await readFloats(join(MINIS, source, "golden.safetensors"));
    const routers = model.blocks.flatMap(({ name, sites }) =>
      sites.filter(({ kind }) => kind === "router").map(({ output }) => ({ name, output })),
    );
    const taps = Object.fromEntries(routers.map(({ name, output }) => [name, [output]]));
    const layers = model.blocks.filter(({ role }) => role === "block");
    const differences = new Map<string, number>();
    for (const [letter, prompt] of Object.entries(prompts)) {
      const seen = await runModel(model, prompt, taps);
      const actual = new Map<string, HostTensor | undefined>(model.outputs.map((name) => [name, seen.get(name)]));
      actual.set("layer_input", seen.get("embeddings:hidden"));
      layers.forEach(({ name, graph }, i) => actual.set(`layer.${i}`, seen.get(`${name}:${graph.outputs[0]}`)));
      layers.forEach(({ name }, i) => {
        const router = routers.find((entry) => entry.name === name);
        if (router !== undefined) actual.set(`router.${i}`, seen.get(`${name}:${router.output}`));
      });
      for (const [name, values] of expected) {
        if (!name.startsWith(`${letter}.`)) continue;
        differences.set(name, farthest(actual.get(name.slice(2)), values));
      }
    }
    expect([...differences].filter(([, difference]) => difference > TOLERANCE)).toEqual([]);
    expect(differences.size).toBe(expected.size);
    await checkpoint.close();
  });
});

test.each(DECODERS.filter((mini) => mini !== "llama-sharded"))(
  "%s: one token alone gives the first row of the golden logits, though most experts then serve no row",
  async (mini) => {
    const model = await openModel(join(MINIS, mini));
    const { prompts } = readJson(`models/minis/${mini}/golden.json`) as { prompts: Record<string, Prompt> };
    const expected = (await readFloats(join(MINIS, mini, "golden.safetensors"))).get("a.logits")!;
    const seen = await runModel(model, { ids: prompts["a"]!.ids.slice(0, 1) });
    expect(farthest(seen.get("logits"), expected.slice(0, model.facts.vocabularySize))).toBeLessThanOrEqual(TOLERANCE);
  },
);

test("tiny-llama equals its goldens, layer by layer and at position 700", async () => {
  const model = await openModel(join(FIXTURES, "models/tiny-llama"));
  const expected = await readFloats(join(FIXTURES, "goldens/float.safetensors"));
  const { genesis, ruth, saying } = readJson("goldens/float.json") as Record<string, Prompt>;
  const tokenizer = await loadTokenizer(join(FIXTURES, "models/tiny-llama"));
  const differences = new Map<string, number>();
  const long = { ids: tokenizer.encode(readFileSync(join(FIXTURES, "data/test.txt"), "utf8")).slice(0, 700) };
  for (const [name, prompt] of Object.entries({ genesis: genesis!, ruth: ruth!, saying: saying!, long })) {
    const seen = await runModel(model, prompt, { head: ["norm"] });
    const logits = seen.get("logits")!;
    const last = expected.get(`${name}.last_logits`);
    const shown = last === undefined ? logits : { ...logits, data: (logits.data as Float32Array).slice(-last.length) };
    differences.set(name, farthest(shown, last ?? expected.get(`${name}.logits`)!));
    if (!expected.has(`${name}.embeddings`)) continue;
    expect(farthest(seen.get("embeddings:hidden"), expected.get(`${name}.embeddings`)!)).toBe(0);
    differences.set(`${name}.norm`, farthest(seen.get("head:norm"), expected.get(`${name}.norm`)!));
    for (let layer = 0; layer < 4; layer++) {
      const output = seen.get(`model.layers.${layer}:hidden_out`);
      differences.set(`${name}.layer.${layer}`, farthest(output, expected.get(`${name}.layer.${layer}`)!));
    }
  }
  expect([...differences].filter(([, difference]) => difference > TOLERANCE)).toEqual([]);
  expect(differences.size).toBe(9);
});
