import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { toFloat32 } from "../../core/tensor.ts";
import { openCheckpoint } from "../../formats/checkpoint.ts";
import type { Engine, HostTensor } from "../../model/engines/engine.ts";
import { createEngine, type EngineName } from "../../model/engines/index.ts";
import { tokenSample } from "../../model/inputs.ts";
import type { Model } from "../../model/model.ts";
import { buildModel } from "../../model/sources/open.ts";
import { farthest, readFloats } from "../support/tensors.ts";

/** Models made by python/make_minis.py; BITWRIGHT_MINIS_ENGINE runs them on another engine. */
const FOLDER = process.env["BITWRIGHT_MINIS_MORE"];
const ENGINE = (process.env["BITWRIGHT_MINIS_ENGINE"] ?? "onnxruntime") as EngineName;
const TOLERANCE = ENGINE === "onnxruntime" ? 2e-4 : 1e-3;

interface Prompt {
  readonly ids: readonly number[];
  readonly token_type_ids?: readonly number[];
  readonly attention_mask?: readonly number[];
}

async function run(model: Model, engine: Engine, prompt: Prompt): Promise<Record<string, HostTensor>> {
  const { ids, token_type_ids: tokenTypes, attention_mask: attentionMask } = prompt;
  const options = { ...(tokenTypes === undefined ? {} : { tokenTypes }), ...(attentionMask === undefined ? {} : { attentionMask }) };
  const carried: Record<string, HostTensor> = { ...tokenSample(model, ids, options).inputs };
  for (const block of model.blocks) {
    const feeds: Record<string, HostTensor> = {};
    for (const [input, value] of Object.entries(block.reads)) feeds[input] = carried[value]!;
    for (const [slot, tensor] of block.weights) feeds[slot] = { dtype: "F32", shape: tensor.shape, data: toFloat32(await tensor.read()) };
    const compiled = await engine.compile(block.graph, { outputs: block.graph.outputs });
    const values = await compiled.run(feeds);
    for (const [output, value] of Object.entries(block.writes)) carried[value] = values[output]!;
    await compiled.release();
  }
  return carried;
}

const reason = "set BITWRIGHT_MINIS_MORE to the --out folder of tests/interop/python/make_minis.py";

describe.skipIf(FOLDER === undefined)(`generated models equal transformers (${FOLDER ?? reason})`, () => {
  const variants = FOLDER === undefined ? ["none"] : readdirSync(FOLDER).filter((name) => existsSync(join(FOLDER, name, "golden.json")));
  let engine: Engine;
  beforeAll(async () => {
    engine = await createEngine(ENGINE, { threads: 1 });
  });
  afterAll(async () => engine.close());

  test("the folder holds models", () => expect(variants.length).toBeGreaterThan(0));

  describe.each(variants)("%s", (name) => {
    const directory = join(FOLDER ?? "", name);
    const spellings = ["config.json", "config.hub-v4.json"].filter((file) => FOLDER === undefined || existsSync(join(directory, file)));
    test.each(spellings)("in %s", async (spelling) => {
      const checkpoint = await openCheckpoint(directory);
      const config = JSON.parse(readFileSync(join(directory, spelling), "utf8")) as Record<string, unknown>;
      const model = buildModel({ config, tensors: checkpoint.tensors });
      const { prompts } = JSON.parse(readFileSync(join(directory, "golden.json"), "utf8")) as { prompts: Record<string, Prompt> };
      const goldens = await readFloats(join(directory, "golden.safetensors"));
      const differences: Record<string, number> = {};
      for (const [letter, prompt] of Object.entries(prompts)) {
        const outputs = await run(model, engine, prompt);
        for (const [key, expected] of goldens) {
          if (!key.startsWith(`${letter}.`)) continue;
          differences[key] = farthest(outputs[key.slice(2)], expected);
        }
      }
      expect(Object.keys(differences)).toHaveLength(goldens.size);
      expect(Object.entries(differences).filter(([, difference]) => !(difference <= TOLERANCE))).toEqual([]);
      await checkpoint.close();
    });
  });
});
