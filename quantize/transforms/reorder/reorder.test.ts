import fc from "fast-check";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { observeKeys } from "../../../calibrate/keys.ts";
import { createRandom } from "../../../core/random.ts";
import { toFloat32 } from "../../../core/tensor.ts";
import type { Engine } from "../../../model/engines/engine.ts";
import { createEngine } from "../../../model/engines/index.ts";
import { logitsOf } from "../../../model/evaluate.ts";
import { tokenSample } from "../../../model/inputs.ts";
import type { Model } from "../../../model/model.ts";
import { buildModel, openModel } from "../../../model/sources/open.ts";
import type { TensorOrder } from "../../decisions.ts";
import { exportArtifact } from "../../export.ts";
import { quantize } from "../../quantize.ts";
import { reorderedModel } from "../../reordered.ts";
import { verifyArtifact } from "../../verify.ts";
import type { ReorderSettings } from "../../settings.ts";
import { decideOrders } from "./decide-orders.ts";
import { orderCost, searchOrder, sortedBy } from "./search.ts";

const MINIS = new URL("../../../fixtures/models/minis", import.meta.url).pathname;

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine("onnxruntime", { threads: 1 });
});
afterAll(async () => engine.close());

const isPermutation = (order: Int32Array): boolean => order.toSorted().every((c, i) => c === i);

test("an order is a permutation, never costs more than none, and is the same every time", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 31 }), fc.constantFrom(4, 6, 8), (seed, block) => {
      const random = createRandom(seed);
      const channels = 24;
      const scale = Array.from({ length: channels }, () => 2 ** (6 * random.uniform()));
      const values = Float32Array.from({ length: 40 * channels }, (_, i) => random.normal() * scale[i % channels]!);
      const weights = Float64Array.from({ length: channels }, () => random.uniform());
      const [sample, rule] = [
        { channels, values, weights },
        { block, mantissaBits: 4 },
      ];
      const order = searchOrder(sample, rule);
      expect(isPermutation(order)).toBe(true);
      expect(searchOrder(sample, rule)).toEqual(order);
      const none = Int32Array.from({ length: channels }, (_, c) => c);
      expect(orderCost(sample, rule, order)).toBeLessThanOrEqual(orderCost(sample, rule, none) * (1 + 1e-6));
    }),
    { numRuns: 20, seed: 5 },
  );
});

test("a few loud channels end in one block, with the channels whose errors weigh least", () => {
  const channels = 16;
  const random = createRandom(3);
  const loud = new Set([1, 6, 11, 14]);
  const cheap = new Set([0, 3, 8, 9]);
  const values = Float32Array.from({ length: 64 * channels }, (_, i) => random.normal() * (loud.has(i % channels) ? 64 : 1));
  const weights = Float64Array.from({ length: channels }, (_, c) => (cheap.has(c) ? 1e-4 : loud.has(c) ? 2 ** -14 : 1));
  const order = searchOrder({ channels, values, weights }, { block: 8, mantissaBits: 4 });
  const blockOf = (c: number): number => Math.floor(order.indexOf(c) / 8);
  expect(new Set([...loud, ...cheap].map(blockOf)).size).toBe(1);
});

test("a block as large as the head is left in its order", () => {
  const sample = { channels: 8, values: new Float32Array(80).fill(1), weights: new Float64Array(8).fill(1) };
  expect([...searchOrder(sample, { block: 8, mantissaBits: 4 })]).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
});

test("sorting keeps equal keys in place", () => {
  expect([...sortedBy([1, 3, 1, 3])]).toEqual([1, 3, 0, 2]);
});

/** A model with all the orders that its blocks take. */
async function ordered(model: Model, settings: ReorderSettings, block: number): Promise<{ model: Model; done: string[]; left: string[] }> {
  const ids = Array.from({ length: 32 }, (_, i) => (i * 5 + 1) % model.facts.vocabularySize);
  const statistics = await observeKeys(model, [tokenSample(model, ids)], { engine });
  const orders = new Map<string, TensorOrder>();
  const added: Parameters<typeof reorderedModel>[1]["added"] extends ReadonlyMap<string, infer T> ? Map<string, T> : never = new Map();
  const [done, left]: [string[], string[]] = [[], []];
  const random = createRandom(1);
  for (const one of model.blocks.filter(({ role }) => role === "block")) {
    const found = await decideOrders({
      block: one,
      settings,
      rule: { block, mantissaBits: 4 },
      keys: true,
      statistics: statistics.get(one.name),
      absmax: (site) => Float32Array.from({ length: site.cols }, () => random.uniform()),
    });
    for (const [name, order] of found.orders) orders.set(name, order);
    for (const [name, tensor] of found.added) added.set(name, tensor);
    done.push(...found.done);
    left.push(...found.left);
  }
  const moved = reorderedModel(model, { orders, added });
  return { model: buildModel({ config: model.config, tensors: moved.tensors }), done, left };
}

test.each([
  ["llama", "score", "free"],
  ["llama", "norm", "interleaved"],
  ["llama-linear-rope", "absmax", "free"],
  ["qwen2", "score", "interleaved"],
  ["qwen3", "score", "free"],
  ["gemma3", "score", "free"],
  ["phi3", "norm", "free"],
  ["mixtral", "absmax", "free"],
  ["opt", "score", "free"],
  ["gpt2", "norm", "free"],
] as const)("%s ordered by %s (%s) computes what it did", async (mini, order, rope) => {
  const model = await openModel(join(MINIS, mini));
  const moved = await ordered(model, { sites: "all", order, block: undefined, rope }, 4);
  expect(moved.done.length).toBeGreaterThan(0);
  const ids = [Array.from({ length: 20 }, (_, i) => (i * 11 + 2) % model.facts.vocabularySize)];
  const plain = toFloat32((await logitsOf(model, ids, { engine })).get("logits.0")!);
  const after = toFloat32((await logitsOf(moved.model, ids, { engine })).get("logits.0")!);
  for (let i = 0; i < plain.length; i++) expect(Math.abs(after[i]! - plain[i]!)).toBeLessThan(2e-4);
});

test("a site pattern orders the inputs of these sites, and keys where it names what makes them", async () => {
  const model = await openModel(join(MINIS, "llama"));
  const orderOf = async (sites: string): Promise<{ done: string[]; left: string[] }> =>
    ordered(model, { sites, order: "norm", block: undefined, rope: "free" }, 4);
  const down = await orderOf("down_proj");
  expect(down.done.every((one) => /^model\.layers\.\d\.mlp\.down_proj: input/.test(one))).toBe(true);
  expect(down.done.length).toBe(model.blocks.filter(({ role }) => role === "block").length);
  expect(down.left).toEqual([]);
  expect((await orderOf("layers.0.self_attn.k_proj")).done).toEqual(["model.layers.0: keys by norm, blocks of 4"]);
  expect((await orderOf("q_proj")).left[0]).toMatch(/^model\.layers\.0\.self_attn\.q_proj: what makes its input/);
});

test("what nothing absorbs is left and named", async () => {
  const model = await openModel(join(MINIS, "llama"));
  const { left } = await ordered(model, { sites: "all", order: "norm", block: undefined, rope: "free" }, 4);
  expect(left.some((reason) => reason.startsWith("model.layers.0.self_attn.q_proj"))).toBe(true);
});

test("an artifact with ordered keys verifies against its source, and is not written as a plain directory that would be read wrongly", async () => {
  const directory = await mkdtemp(join(tmpdir(), "reorder-"));
  try {
    const [source, out] = [join(MINIS, "llama"), join(directory, "out")];
    await quantize(source, { recipe: { method: ["reorder", "bfp"], scheme: { order: "norm", block: "4" } }, out, workers: 0 });
    expect((await verifyArtifact(out, { source })).ok).toBe(true);
    await expect(exportArtifact(out, { to: "float", out: join(directory, "float") })).rejects.toThrow(/rope_order/);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
