import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { beforeAll, expect, test } from "vitest";
import { QuantError } from "../../core/errors.ts";
import { lazyOf, tensorOf, type LazyTensor } from "../../core/tensor.ts";
import { openCheckpoint } from "../../formats/checkpoint.ts";
import { findPairs } from "../graph/pairs.ts";
import type { Model } from "../model.ts";
import { buildModel, openModel } from "../sources/open.ts";
import { unusedTensors } from "../sources/unused.ts";

type Config = Record<string, unknown>;

const MINIS = new URL("../../fixtures/models/minis", import.meta.url).pathname;
const NAMES = ["llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3-moe", "gemma2", "gemma3", "phi3", "gpt2", "opt", "bert"];
const sources = new Map<string, { config: Config; tensors: ReadonlyMap<string, LazyTensor> }>();

beforeAll(async () => {
  for (const name of NAMES) {
    const checkpoint = await openCheckpoint(join(MINIS, name));
    sources.set(name, { config: { ...checkpoint.config }, tensors: checkpoint.tensors });
    await checkpoint.close();
  }
});

/** The model of a mini with some settings replaced. */
function build(name: string, changes: Config, tensors = sources.get(name)!.tensors): Model {
  return buildModel({ config: { ...sources.get(name)!.config, ...changes }, tensors });
}

/** Whatever JSON can hold, numbers at the edges above all. */
const nasty = fc.oneof(
  fc.constantFrom(0, -1, 1, 2, 3, 0.5, 1e9, 2 ** 31, 2 ** 53, 1e300, -0, null, true, false, "", "4", "silu", "__proto__", [], {}),
  fc.array(fc.constantFrom<unknown>(0, 1, -1, "full_attention", "sliding_attention", null, 1e308), { maxLength: 4 }),
  fc.dictionary(
    fc.constantFrom("rope_type", "type", "factor", "rope_theta", "full_attention", "__proto__"),
    fc.constantFrom<unknown>(0, 4, "yarn", "linear", "longrope", null),
  ),
  fc.jsonValue({ maxDepth: 2 }),
);

test("500 mutated configs give a model or a typed error, quickly", () => {
  const cases = fc.constantFrom(...NAMES).chain((name) => {
    const key = fc.constantFrom(
      ...Object.keys(sources.get(name)!.config),
      "rope_scaling",
      "rope_theta",
      "num_local_experts",
      "word_embed_proj_dim",
    );
    return fc.record({ name: fc.constant(name), changes: fc.dictionary(key, nasty, { minKeys: 1, maxKeys: 3 }) });
  });
  const started = performance.now();
  let models = 0;
  fc.assert(
    fc.property(cases, ({ name, changes }) => {
      try {
        const model = build(name, changes);
        models += model.blocks.flatMap(findPairs).length > 0 ? 1 : 0;
      } catch (error) {
        if (!(error instanceof QuantError)) throw error;
      }
    }),
    { numRuns: 500, seed: 7 },
  );
  expect(models).toBeGreaterThan(20);
  expect(performance.now() - started).toBeLessThan(10_000);
});

test.each([
  ["llama", { num_hidden_layers: 1e9 }, "format.missing", /model\.layers\.2\.input_layernorm\.weight/],
  ["llama", { hidden_size: 64 }, "format.config", /input_layernorm\.weight is \[48\].*\[64\]/],
  ["llama", { head_dim: 2 ** 30 }, "format.config", /q_proj\.weight/],
  ["llama", { num_key_value_heads: 3 }, "format.config", /num_key_value_heads is 3.*divisor.*4/],
  ["llama", { hidden_act: "gleu" }, "format.config", /hidden_act is "gleu".*gelu/],
  ["llama", { rms_norm_eps: "1e-5" }, "format.config", /rms_norm_eps is "1e-5"/],
  ["mixtral", { num_local_experts: 1e9 }, "format.config", /block_sparse_moe\.gate\.weight/],
  ["mixtral", { num_experts_per_tok: 5 }, "format.config", /num_experts_per_tok is 5.*4/],
  ["qwen2", { layer_types: ["full_attention"] }, "format.config", /layer_types/],
  ["qwen2", { layer_types: ["full_attention", "sliding_attention"] }, "format.config", /sliding_window is null.*layer 1/],
  ["gemma3", { rope_parameters: { rope_theta: 1 } }, "format.config", /full_attention/],
  ["gpt2", { n_head: 5 }, "format.config", /n_head is 5.*32/],
  ["bert", { position_embedding_type: "relative_key" }, "unsupported.architecture", /relative_key/],
  ["llama", { architectures: ["LlamaForSequenceClassification"] }, "unsupported.architecture", /closest: \w+/],
  ["llama", { architectures: ["Qwen3ForCausalML"] }, "unsupported.architecture", /known: .*BertModel.*closest: Qwen3ForCausalLM/],
  ["llama", { architectures: null, model_type: "lama" }, "unsupported.architecture", /closest: llama/],
  ["llama", { architectures: null, model_type: null }, "format.config", /neither architectures nor model_type/],
])("%s with %j is refused with %s", (name, changes, code, message) => {
  expect(() => build(name, changes)).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
});

test("absent and null keys take the defaults of transformers", () => {
  const { config, tensors } = sources.get("llama")!;
  const slim = Object.fromEntries(
    Object.entries(config).filter(([key]) => !["head_dim", "mlp_bias", "hidden_act", "tie_word_embeddings"].includes(key)),
  );
  const graphs = (model: Model): unknown => model.blocks.map(({ graph }) => graph.nodes);
  expect(graphs(buildModel({ config: slim, tensors }))).toEqual(graphs(build("llama", {})));
  expect(graphs(build("llama", { head_dim: null }))).toEqual(graphs(build("llama", {})));
  expect(() => build("llama", { rms_norm_eps: null })).not.toThrow();
});

test("equal layers share one graph object; layers of another kind do not", () => {
  const blocks = (name: string): readonly unknown[] =>
    build(name, {})
      .blocks.filter(({ role }) => role === "block")
      .map(({ graph }) => graph);
  const [first, second] = blocks("gemma2");
  expect(first).toBe(second);
  const [plain, experts] = blocks("qwen3-moe");
  expect(plain).not.toBe(experts);
});

test("a head stored beside a tied embedding is used; without one the embedding is", () => {
  const head = (model: Model): string => model.blocks.at(-1)!.weights.get("lm_head.weight")!.name;
  expect(head(build("qwen2", {}))).toBe("model.embed_tokens.weight");
  const stored = lazyOf("lm_head.weight", tensorOf(new Float32Array(96 * 48), [96, 48]));
  const model = build("qwen2", {}, new Map([...sources.get("qwen2")!.tensors, ["lm_head.weight", stored]]));
  expect(head(model)).toBe("lm_head.weight");
  expect(model.facts.tiedHead).toBe(false);
});

test("every tensor of a mini is used; others are listed, buffers told apart, and kept", () => {
  for (const name of NAMES) expect(unusedTensors(build(name, {}))).toEqual([]);
  const extra = ["model.layers.0.self_attn.rotary_emb.inv_freq", "extra.weight"].map((name) =>
    lazyOf(name, tensorOf(new Float32Array(1), [1])),
  );
  const model = build("llama", {}, new Map([...sources.get("llama")!.tensors, ...extra.map((tensor) => [tensor.name, tensor] as const)]));
  expect(unusedTensors(model)).toEqual([
    { name: "model.layers.0.self_attn.rotary_emb.inv_freq", buffer: true },
    { name: "extra.weight", buffer: false },
  ]);
  expect(model.tensors.has("extra.weight")).toBe(true);
});

test("a weight that is not float is refused by name", () => {
  const codes = lazyOf("model.norm.weight", tensorOf(new Int8Array(48), [48]));
  const tensors = new Map([...sources.get("llama")!.tensors, ["model.norm.weight", codes]]);
  expect(() => build("llama", {}, tensors)).toThrow(
    expect.objectContaining({ code: "unsupported.dtype", message: expect.stringMatching(/model\.norm\.weight is I8/) }),
  );
});

test("experts fused in one tensor are the same model, under the names of published checkpoints", async () => {
  const model = await openModel(join(MINIS, "qwen3-moe"));
  const tensors = new Map<string, LazyTensor>();
  const fused = new Map<string, Uint8Array[]>([
    ["gate_up_proj", []],
    ["down_proj", []],
  ]);
  const expert = (index: number, part: string): string => `model.layers.1.mlp.experts.${index}.${part}.weight`;
  for (const [name, tensor] of model.tensors) if (!name.includes(".experts.")) tensors.set(name, tensor);
  for (let index = 0; index < 6; index++) {
    for (const part of ["gate_proj", "up_proj", "down_proj"]) {
      const { bytes } = await model.tensors.get(expert(index, part))!.read();
      fused.get(part === "down_proj" ? part : "gate_up_proj")!.push(bytes);
    }
  }
  for (const [part, shape] of [
    ["gate_up_proj", [6, 80, 32]],
    ["down_proj", [6, 32, 40]],
  ] as const) {
    const name = `model.layers.1.mlp.experts.${part}`;
    tensors.set(name, lazyOf(name, { dtype: "BF16", shape, bytes: Buffer.concat(fused.get(part)!) }));
  }
  const config = JSON.parse(readFileSync(join(MINIS, "qwen3-moe/config.json"), "utf8")) as Config;
  const other = buildModel({ config, tensors });
  const slots = other.blocks[2]!.weights;
  expect([...slots.keys()]).toEqual([...model.blocks[2]!.weights.keys()]);
  for (const [slot, tensor] of model.blocks[2]!.weights) {
    expect(slots.get(slot)!.name).toBe(tensor.name);
    expect(Buffer.compare((await slots.get(slot)!.read()).bytes, (await tensor.read()).bytes)).toBe(0);
  }
});
