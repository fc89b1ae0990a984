import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createRandom } from "../../core/random.ts";
import { toFloat32 } from "../../core/tensor.ts";
import type { Engine, HostTensor } from "../engines/engine.ts";
import { createEngine } from "../engines/index.ts";
import type { Block, LinearSite, Model } from "../model.ts";
import { openModel } from "../sources/open.ts";
import { MINI_NAMES, MINIS } from "../../tests/support/minis.ts";
import { findPairs, type FoldPair } from "./pairs.ts";

/** "kind producer -> consumers" of the last layer, lm_head pairs left out. */
async function pairsOf(mini: string): Promise<readonly string[]> {
  const model = await openModel(join(MINIS, mini));
  const layer = model.blocks.findLast(({ role }) => role === "block")!;
  return findPairs(layer).map(({ kind, name, consumers }) => `${kind} ${name} -> ${consumers.map(({ localName }) => localName).join(" ")}`);
}

const ROTARY = [
  "norm input_layernorm -> self_attn.q_proj self_attn.k_proj self_attn.v_proj",
  "value-output self_attn.v_proj -> self_attn.o_proj",
];
const GATED = ["norm post_attention_layernorm -> mlp.gate_proj mlp.up_proj", "up-down mlp.up_proj -> mlp.down_proj"];

test.each(["llama", "llama-linear-rope", "mistral", "qwen2", "qwen3"])(
  "%s: norms fold into q, k, v and gate, up; v into o; up into down",
  async (mini) => {
    expect(await pairsOf(mini)).toEqual([...ROTARY, ...GATED]);
  },
);

test.each(["gemma2", "gemma3"])("%s: only the norms in front of linears fold, with weights stored minus one", async (mini) => {
  const model = await openModel(join(MINIS, mini));
  for (const block of model.blocks.filter(({ role }) => role === "block")) {
    const pairs = findPairs(block);
    expect(pairs.map(({ name }) => name)).toEqual(["input_layernorm", "self_attn.v_proj", "pre_feedforward_layernorm", "mlp.up_proj"]);
    expect(pairs.map(({ producer }) => producer.offset)).toEqual([1, 0, 1, 0]);
  }
});

test("mixtral: the second norm folds into the router and w1, w3 of all experts jointly; w3 into w2 per expert", async () => {
  const experts = [0, 1, 2, 3].map((expert) => `block_sparse_moe.experts.${expert}`);
  expect(await pairsOf("mixtral")).toEqual([
    ...ROTARY,
    `norm post_attention_layernorm -> block_sparse_moe.gate ${experts.map((expert) => `${expert}.w1 ${expert}.w3`).join(" ")}`,
    ...experts.map((expert) => `up-down ${expert}.w3 -> ${expert}.w2`),
  ]);
});

test("opt before its norms: both norms fold, fc1 into fc2 through ReLU, v into out_proj, with biases", async () => {
  expect(await pairsOf("opt")).toEqual([
    "norm self_attn_layer_norm -> self_attn.q_proj self_attn.k_proj self_attn.v_proj",
    "value-output self_attn.v_proj -> self_attn.out_proj",
    "norm final_layer_norm -> fc1",
    "up-down fc1 -> fc2",
  ]);
  const model = await openModel(join(MINIS, "opt"));
  expect(findPairs(model.blocks[1]!).map(({ producer }) => producer.bias)).toEqual([
    "self_attn_layer_norm.bias",
    "self_attn.v_proj.bias",
    "final_layer_norm.bias",
    "fc1.bias",
  ]);
});

test.each(["opt-post-norm", "bert"])("%s: a norm behind the residual sum is no pair, because the residual reads it too", async (mini) => {
  const pairs = await pairsOf(mini);
  expect(pairs.filter((pair) => pair.startsWith("norm"))).toEqual([]);
  expect(pairs.length).toBeGreaterThan(0);
});

test("gpt2: norms fold into the rows of Conv1D matrices; nothing folds through GELU or out of a fused c_attn", async () => {
  expect(await pairsOf("gpt2")).toEqual(["norm ln_1 -> attn.c_attn", "norm ln_2 -> mlp.c_fc"]);
});

test("phi3: norms fold into fused projections", async () => {
  expect(await pairsOf("phi3")).toEqual([
    "norm input_layernorm -> self_attn.qkv_proj",
    "norm post_attention_layernorm -> mlp.gate_up_proj",
  ]);
});

test("a tied head is no consumer of the last norm; a head of its own is", async () => {
  const last = (model: Model): readonly string[] => findPairs(model.blocks.at(-1)!).map(({ name }) => name);
  expect(last(await openModel(join(MINIS, "qwen2")))).toEqual([]);
  expect(last(await openModel(join(MINIS, "llama")))).toEqual(["norm"]);
});

test.each([
  ["llama", 2, 12],
  ["gemma2", 2, 16],
  ["llama-linear-rope", 1, 16],
])("%s: v reaches o in groups of %i query heads of %i channels", async (mini, group, headSize) => {
  const model = await openModel(join(MINIS, mini));
  const pair = findPairs(model.blocks[1]!).find(({ kind }) => kind === "value-output")!;
  expect(pair.repeat).toEqual({ group, headSize });
  expect(pair.channels * group).toBe(pair.consumers[0]!.cols);
});

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine("onnxruntime", { threads: 1 });
});
afterAll(async () => engine.close());

/** Divide the producer's channels by s and multiply the consumers' columns, as `FoldPair` documents. */
function fold(weights: Map<string, HostTensor>, pair: FoldPair, scales: readonly number[]): void {
  const change = (slot: string, factor: (index: number) => number): void => {
    const tensor = weights.get(slot)!;
    weights.set(slot, { ...tensor, data: (tensor.data as Float32Array).map((value, index) => value * factor(index)) });
  };
  const { weight, bias, offset, axis } = pair.producer;
  const stored = weights.get(weight)!;
  const width = stored.shape[1] ?? 1;
  const channel = (index: number): number => (axis === 0 ? Math.floor(index / width) : index % width);
  if (offset === 1) {
    const data = (stored.data as Float32Array).map((value, index) => (value + 1) / scales[index]! - 1);
    weights.set(weight, { ...stored, data });
  } else change(weight, (index) => 1 / scales[channel(index)]!);
  if (bias !== undefined) change(bias, (index) => 1 / scales[index]!);
  const { group = 1, headSize = pair.channels } = pair.repeat ?? {};
  const source = (column: number): number => Math.floor(column / (headSize * group)) * headSize + (column % headSize);
  const column = ({ channelAxis, rows, cols }: LinearSite, index: number): number =>
    channelAxis === 0 ? index % cols : Math.floor(index / rows);
  for (const site of pair.consumers) change(site.weight, (index) => scales[source(column(site, index))]!);
}

async function runBlock(block: Block, weights: ReadonlyMap<string, HostTensor>): Promise<Float32Array> {
  const random = createRandom(3);
  const sizes = new Map<string, number>([
    ["batch", 2],
    ["sequence", 9],
  ]);
  const feeds: Record<string, HostTensor> = Object.fromEntries(weights);
  for (const { name, dtype, shape } of block.graph.inputs) {
    const dims = shape.map((size) => (typeof size === "number" ? size : sizes.get(size)!));
    const count = dims.reduce((product, size) => product * size, 1);
    const data =
      dtype === "BOOL"
        ? Uint8Array.from({ length: count }, (_, i) => (i % 9 <= Math.floor(i / 9) % 9 ? 1 : 0))
        : Float32Array.from({ length: count }, () => random.normal());
    feeds[name] = { dtype, shape: dims, data };
  }
  const compiled = await engine.compile(block.graph);
  const values = await compiled.run(feeds);
  await compiled.release();
  return values[block.graph.outputs[0]!]!.data as Float32Array;
}

test.each(MINI_NAMES.filter((mini) => mini !== "llama-sharded"))(
  "%s: folding any scales into any pair leaves the block's output unchanged",
  async (mini) => {
    const model = await openModel(join(MINIS, mini));
    const block = model.blocks.findLast(({ role }) => role === "block")!;
    const weights = new Map<string, HostTensor>();
    for (const [slot, tensor] of block.weights)
      weights.set(slot, { dtype: "F32", shape: tensor.shape, data: toFloat32(await tensor.read()) });
    const expected = await runBlock(block, weights);
    const size = expected.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
    const random = createRandom(11);
    for (const pair of findPairs(block)) {
      const folded = new Map(weights);
      fold(
        folded,
        pair,
        Array.from({ length: pair.channels }, () => 2 ** (4 * random.uniform() - 2)),
      );
      const actual = await runBlock(block, folded);
      const worst = expected.reduce((largest, value, i) => Math.max(largest, Math.abs(value - actual[i]!)), 0);
      expect({ pair: pair.name, exact: worst / size < 1e-5 }).toEqual({ pair: pair.name, exact: true });
    }
  },
);
