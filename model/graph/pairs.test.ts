import { join } from "node:path";
import { expect, test } from "vitest";
import type { Model } from "../model.ts";
import { openModel } from "../sources/open.ts";
import { findPairs } from "./pairs.ts";

const MINIS = new URL("../../fixtures/models/minis", import.meta.url).pathname;

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
