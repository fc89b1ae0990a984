import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { QuantScheme } from "../core/scheme.ts";
import { toFloat32, type Tensor } from "../core/tensor.ts";
import { compareModels } from "./compare.ts";
import { createEngine } from "./engines/index.ts";
import type { Engine } from "./engines/engine.ts";
import { evaluate, logitsOf } from "./evaluate.ts";
import { generate } from "./generate.ts";
import { tokenSample } from "./inputs.ts";
import type { Model } from "./model.ts";
import { openModel } from "./sources/open.ts";
import { loadTokenizer } from "./tokenizer.ts";
import { farthest, readFloats } from "../tests/support/tensors.ts";

const FIXTURES = new URL("../fixtures", import.meta.url).pathname;
const TINY = join(FIXTURES, "models/tiny-llama");
const parse = (path: string) => JSON.parse(readFileSync(join(FIXTURES, path), "utf8"));
const GOLDEN = parse("goldens/float.json") as Record<string, { ids: number[]; greedy_ids: number[] }>;

let engine: Engine;
let model: Model;
let ids: number[];
beforeAll(async () => {
  engine = await createEngine("onnxruntime", { threads: 1 });
  model = await openModel(TINY);
  ids = (await loadTokenizer(TINY)).encode(readFileSync(join(FIXTURES, "data/test.txt"), "utf8"));
});
afterAll(() => engine.close());

/** All linears of the layers with `bits`-bit inputs per token. */
function coarse(bits: number): Model {
  const scheme: QuantScheme = {
    format: { kind: "int", bits, symmetric: true },
    granularity: { kind: "token" },
    timing: "dynamic",
    scale: "f32",
    dialect: "sq-fake",
  };
  const sites = model.blocks.filter(({ role }) => role === "block").flatMap((block) => block.sites);
  return { ...model, activations: new Map(sites.map(({ name }) => [name, { input: { scheme } }])) };
}

/** log softmax of every row, f64. */
function logProbabilities(logits: Tensor): number[][] {
  const [rows, width] = logits.shape as [number, number];
  const values = toFloat32(logits);
  return Array.from({ length: rows }, (_, r) => {
    const row = Array.from(values.subarray(r * width, (r + 1) * width));
    const top = Math.max(...row);
    const total = Math.log(row.reduce((sum, x) => sum + Math.exp(x - top), 0)) + top;
    return row.map((x) => x - total);
  });
}

describe("perplexity", () => {
  test.each([
    [256, 32.6763, 22440, 88],
    [512, 32.2546, 22484, 44],
  ])("test.txt in windows of %i: %f over %i predictions", async (window, perplexity, tokens, windows) => {
    const found = await evaluate(model, ids, { engine, window });
    expect(Math.abs(found.perplexity / perplexity - 1)).toBeLessThan(1e-4);
    expect(found).toMatchObject({ tokens, window, windows, perplexity: Math.exp(found.crossEntropy) });
  });

  test("the score does not depend on how windows are batched", async () => {
    const options = { engine, window: 128, maxTokens: 1200 };
    const together = await evaluate(model, ids, options);
    const alone = await evaluate(model, ids, { ...options, batchTokens: 1 });
    expect(together.windows).toBe(9);
    expect(together.crossEntropy).toBeCloseTo(alone.crossEntropy, 5);
  });

  test("the window is 2048 or all the model's positions when not given", async () => {
    expect(await evaluate(model, ids, { engine, maxTokens: 1024 })).toMatchObject({ window: 1024, windows: 1, tokens: 1023 });
  });

  test("what cannot be scored is refused with both numbers", async () => {
    await expect(evaluate(model, ids.slice(0, 99), { engine, window: 100 })).rejects.toMatchObject({ code: "input.data" });
    await expect(evaluate(model, ids.slice(0, 99), { engine, window: 100 })).rejects.toThrow("99 ids, fewer than one window of 100");
    await expect(evaluate(model, ids, { engine, window: 1 })).rejects.toMatchObject({ code: "input.option" });
    await expect(evaluate(model, ids, { engine, window: 256, maxTokens: 255 })).rejects.toThrow("255, below one window of 256");
    await expect(evaluate(model, [0, 4096], { engine, window: 2 })).rejects.toThrow("4096");
    const bert = await openModel(join(FIXTURES, "models/minis/bert"));
    await expect(evaluate(bert, ids, { engine, window: 16 })).rejects.toMatchObject({ code: "unsupported.architecture" });
    const other = await openModel(join(FIXTURES, "models/minis/llama"));
    await expect(evaluate(model, ids, { engine, window: 16, reference: other })).rejects.toThrow("one vocabulary");
  });

  test("an aborted run ends with the typed error", async () => {
    const control = new AbortController();
    const run = evaluate(model, ids, { engine, window: 256, signal: control.signal, onProgress: () => control.abort() });
    await expect(run).rejects.toMatchObject({ code: "interrupted" });
  });
});

describe("against a reference", () => {
  test("KL, agreement and both perplexities equal what the logits of both models give", async () => {
    const [window, windows] = [40, 3];
    const rough = coarse(5);
    const options = { engine, window, maxTokens: window * windows, reference: model };
    const found = await evaluate(rough, ids, options);
    const sequences = Array.from({ length: windows }, (_, i) => ids.slice(i * window, (i + 1) * window));
    const [p, q] = [await logitsOf(model, sequences, { engine }), await logitsOf(rough, sequences, { engine })];
    let [kl, top1, loss, referenceLoss] = [0, 0, 0, 0];
    sequences.forEach((sequence, i) => {
      const [reference, mine] = [logProbabilities(p.get(`logits.${i}`)!), logProbabilities(q.get(`logits.${i}`)!)];
      for (let t = 0; t < window - 1; t++) {
        const [a, b] = [reference[t]!, mine[t]!];
        kl += a.reduce((sum, x, k) => sum + Math.exp(x) * (x - b[k]!), 0);
        top1 += a.indexOf(Math.max(...a)) === b.indexOf(Math.max(...b)) ? 1 : 0;
        loss -= b[sequence[t + 1]!]!;
        referenceLoss -= a[sequence[t + 1]!]!;
      }
    });
    const n = windows * (window - 1);
    expect(found.tokens).toBe(n);
    expect(found.kl).toBeGreaterThan(0.01);
    expect(found.kl! / (kl / n)).toBeCloseTo(1, 4);
    expect(found.top1).toBeCloseTo(top1 / n, 10);
    expect(found.top1).toBeLessThan(1);
    expect(found.perplexity / Math.exp(loss / n)).toBeCloseTo(1, 4);
    expect(found.referencePerplexity! / Math.exp(referenceLoss / n)).toBeCloseTo(1, 4);
  });

  test("a model agrees with itself: KL 0, top-1 1; hidden states may wait on disk", async () => {
    const found = await evaluate(model, ids, { engine, window: 64, maxTokens: 640, reference: model, maxMemory: 1 });
    expect(found).toMatchObject({ kl: 0, top1: 1, perplexity: found.referencePerplexity });
  });
});

describe("logits", () => {
  test("the small Llama's equal the goldens within 2e-4, several sequences at once", async () => {
    const expected = await readFloats(join(FIXTURES, "goldens/float.safetensors"));
    const prompts = ["genesis", "ruth", "saying"];
    const found = await logitsOf(
      model,
      prompts.map((name) => GOLDEN[name]!.ids),
      { engine },
    );
    expect([...found.keys()]).toEqual(["logits.0", "logits.1", "logits.2"]);
    prompts.forEach((name, i) => {
      const logits = found.get(`logits.${i}`)!;
      expect(logits.shape).toEqual([GOLDEN[name]!.ids.length, 2048]);
      expect(farthest(toFloat32(logits), expected.get(`${name}.logits`)!)).toBeLessThan(2e-4);
    });
  });

  test("an encoder gives its last hidden state and pooler output", async () => {
    const bert = await openModel(join(FIXTURES, "models/minis/bert"));
    const found = await logitsOf(
      bert,
      [
        [2, 5, 9, 3],
        [2, 7, 3],
      ],
      { engine },
    );
    expect(Object.fromEntries([...found].map(([name, { shape }]) => [name, shape]))).toEqual({
      "last_hidden_state.0": [4, bert.facts.hiddenSize],
      "pooler_output.0": [bert.facts.hiddenSize],
      "last_hidden_state.1": [3, bert.facts.hiddenSize],
      "pooler_output.1": [bert.facts.hiddenSize],
    });
  });
});

describe("greedy text", () => {
  test.each(["genesis", "ruth", "saying"])("%s: 48 tokens equal the golden text", async (name) => {
    const { ids: prompt, greedy_ids: expected } = GOLDEN[name]!;
    const seen: number[] = [];
    const found = await generate(model, prompt, { engine, maxTokens: 48, onToken: (id) => seen.push(id) });
    expect(found).toEqual(expected);
    expect(seen).toEqual(expected);
  });

  test("it stops behind an end token, and weights need not stay in memory", async () => {
    const { ids: prompt, greedy_ids: expected } = GOLDEN["saying"]!;
    const stop = expected[4]!;
    const found = await generate(model, prompt, { engine, maxTokens: 48, eosIds: [stop], maxMemory: 0 });
    expect(found).toEqual(expected.slice(0, expected.indexOf(stop) + 1));
  });

  test("encoders and aborted runs end with typed errors", async () => {
    const bert = await openModel(join(FIXTURES, "models/minis/bert"));
    await expect(generate(bert, [2], { engine, maxTokens: 1 })).rejects.toMatchObject({ code: "unsupported.architecture" });
    const signal = AbortSignal.abort();
    await expect(generate(model, [0], { engine, maxTokens: 1, signal })).rejects.toMatchObject({ code: "interrupted" });
  });
});

describe("comparison of two models", () => {
  test("cosine, SQNR and largest difference are those of the logits", async () => {
    const prompt = GOLDEN["ruth"]!.ids;
    const [result] = await compareModels(model, coarse(6), [tokenSample(model, prompt)], { engine });
    const [x, y] = await Promise.all(
      [model, coarse(6)].map(async (m) => toFloat32((await logitsOf(m, [prompt], { engine })).get("logits.0")!)),
    );
    let [dot, xx, yy, error] = [0, 0, 0, 0];
    x!.forEach((a, i) => {
      const b = y![i]!;
      dot += a * b;
      xx += a * a;
      yy += b * b;
      error += (a - b) ** 2;
    });
    expect(result).toMatchObject({ output: "logits", count: prompt.length * 2048, largestDifference: farthest(x, y!) });
    expect(result!.cosine).toBeCloseTo(dot / Math.sqrt(xx * yy), 10);
    expect(result!.cosine).toBeLessThan(0.9999);
    expect(result!.sqnr).toBeCloseTo(10 * Math.log10(xx / error), 8);
  });

  test("a model equals itself at every output of an encoder", async () => {
    const bert = await openModel(join(FIXTURES, "models/minis/bert"));
    const samples = [[2, 5, 9, 3], [2, 7, 8, 3], [4]].map((sequence) => tokenSample(bert, sequence));
    const results = await compareModels(bert, bert, samples, { engine });
    expect(results.map(({ output }) => output)).toEqual(["last_hidden_state", "pooler_output"]);
    for (const { cosine, sqnr, largestDifference: largest } of results) {
      expect(cosine).toBeCloseTo(1, 12);
      expect([sqnr, largest]).toEqual([Infinity, 0]);
    }
  });

  test("models with other outputs are refused", async () => {
    const bert = await openModel(join(FIXTURES, "models/minis/bert"));
    await expect(compareModels(model, bert, [tokenSample(model, [0])], { engine })).rejects.toMatchObject({ code: "input.option" });
  });
});
