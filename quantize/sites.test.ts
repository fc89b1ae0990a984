import { join } from "node:path";
import { expect, test } from "vitest";
import { openModel } from "../model/sources/open.ts";
import { resolveSettings } from "./settings.ts";
import { chooseSites } from "./sites.ts";
import type { Recipe } from "./types.ts";

async function choose(mini: string, recipe: Partial<Recipe>): Promise<ReadonlyMap<string, ReturnType<typeof chooseSites>[number]["plan"]>> {
  const model = await openModel(join("fixtures/models/minis", mini));
  return new Map(chooseSites(model, resolveSettings({ method: ["rtn"], ...recipe })).map(({ plan }) => [plan.name, plan]));
}

test("linears of the blocks are quantized; head and routers stay float with the reason", async () => {
  const plans = [...(await choose("mixtral", {})).values()];
  const float = plans.filter(({ weight }) => weight === undefined).map(({ name, reason }) => [name.split(".").at(-1), reason]);
  expect(new Set(float.map(String))).toEqual(new Set(["lm_head,float: outside the blocks", "gate,float: router of a mixture of experts"]));
});

test("protecting one of q, k, v protects the three, which runtimes fuse", async () => {
  const plans = await choose("llama", { protect: ["layers.0.self_attn.k_proj"] });
  const part = (name: string): boolean => plans.get(`model.layers.0.self_attn.${name}`)!.input === undefined;
  expect(["q_proj", "k_proj", "v_proj", "o_proj"].map(part)).toEqual([true, true, true, false]);
});

test("the first override that matches wins", async () => {
  const overrides = [
    { match: "down_proj", bits: "w8a16" },
    { match: "mlp.*", bits: "w4a16", groupSize: "channel" as const },
  ];
  const plans = await choose("llama", { bits: "w4a16", groupSize: 16, overrides });
  const format = (name: string): unknown => [
    plans.get(`model.layers.0.${name}`)!.weight!.format,
    plans.get(`model.layers.0.${name}`)!.weight!.granularity,
  ];
  expect(format("mlp.down_proj")).toMatchObject([{ bits: 8 }, {}]);
  expect(format("mlp.up_proj")).toMatchObject([{ bits: 4 }, { kind: "channel" }]);
  expect(format("self_attn.q_proj")).toMatchObject([{ bits: 4 }, { kind: "group", size: 16 }]);
});

test("experts of a layer share one group size although their columns differ", async () => {
  const plans = [...(await choose("qwen3-moe", { bits: "w4a16" })).values()].filter(({ name }) => name.includes(".experts."));
  const sizes = new Set(plans.map(({ weight }) => JSON.stringify(weight!.granularity)));
  expect(sizes.size).toBe(1);
});
