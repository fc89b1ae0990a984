/**
 * Every fixture model through every engine: the same graphs, the same goldens.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { toFloat32 } from "../core/tensor.ts";
import { openFileSource } from "../formats/containers/bytes.ts";
import { openSafetensors } from "../formats/containers/safetensors/read.ts";
import type { Engine, HostTensor } from "../model/engines/engine.ts";
import { createEngine, ENGINE_NAMES, type EngineName } from "../model/engines/index.ts";
import { operatorsOf } from "../model/engines/operators.ts";
import { tokenSample } from "../model/inputs.ts";
import type { Model } from "../model/model.ts";
import { openModel } from "../model/sources/open.ts";

const FIXTURES = join(import.meta.dirname, "../fixtures/models");
const MINIS = readdirSync(join(FIXTURES, "minis")).toSorted();
/** Largest difference to the golden logits (PyTorch, f32). */
const TOLERANCE: Readonly<Record<EngineName, number>> = { onnxruntime: 2e-4, "onnxruntime-web": 2e-4, tfjs: 1e-3 };

interface Prompt {
  readonly ids: readonly number[];
  readonly token_type_ids?: readonly number[];
  readonly attention_mask?: readonly number[];
}

/** Run the blocks in order. @returns the model's first output. */
async function runModel(engine: Engine, model: Model, prompt: Prompt): Promise<HostTensor> {
  const { ids, token_type_ids: tokenTypes, attention_mask: attentionMask } = prompt;
  const options = { ...(tokenTypes === undefined ? {} : { tokenTypes }), ...(attentionMask === undefined ? {} : { attentionMask }) };
  const carried: Record<string, HostTensor> = { ...tokenSample(model, ids, options).inputs };
  for (const block of model.blocks) {
    const feeds: Record<string, HostTensor> = {};
    for (const [input, value] of Object.entries(block.reads)) feeds[input] = carried[value]!;
    for (const [slot, tensor] of block.weights) feeds[slot] = { dtype: "F32", shape: tensor.shape, data: toFloat32(await tensor.read()) };
    const compiled = await engine.compile(block.graph);
    const values = await compiled.run(feeds);
    await compiled.release();
    for (const [output, value] of Object.entries(block.writes)) carried[value] = values[output]!;
  }
  return carried[model.outputs[0]!]!;
}

/** Largest difference over the prompts of a mini model's golden. */
async function farthest(engine: Engine, mini: string, model: Model): Promise<number> {
  // The sharded copy of a model shares its golden.
  const directory = join(FIXTURES, "minis", mini.replace(/-sharded$/, ""));
  const { prompts } = JSON.parse(readFileSync(join(directory, "golden.json"), "utf8")) as { prompts: Record<string, Prompt> };
  const golden = await openSafetensors(await openFileSource(join(directory, "golden.safetensors")));
  let worst = 0;
  for (const [name, prompt] of Object.entries(prompts)) {
    const expected = toFloat32(await golden.tensors.get(`${name}.${model.outputs[0]}`)!.read());
    const { data } = await runModel(engine, model, prompt);
    expect(data.length).toBe(expected.length);
    for (const [i, value] of expected.entries()) {
      const difference = Math.abs(Number(data[i]) - value);
      worst = Math.max(worst, Number.isNaN(difference) ? Infinity : difference);
    }
  }
  await golden.close();
  return worst;
}

const engines = new Map<EngineName, Engine>();
beforeAll(async () => {
  for (const name of ENGINE_NAMES) engines.set(name, await createEngine(name, { threads: 1 }));
});
afterAll(async () => {
  for (const engine of engines.values()) await engine.close();
});

describe.each(ENGINE_NAMES)("%s equals the goldens", (name) => {
  test.for(MINIS)("of %s", async (mini, context) => {
    const engine = engines.get(name)!;
    const model = await openModel(join(FIXTURES, "minis", mini));
    const lacking = [...new Set(model.blocks.flatMap(({ graph }) => operatorsOf(graph)))].filter((op) => !engine.operators.has(op));
    context.skip(lacking.length > 0, `${name} lacks ${lacking.join(", ")}`);
    expect(await farthest(engine, mini, model)).toBeLessThanOrEqual(TOLERANCE[name]);
  });
});
