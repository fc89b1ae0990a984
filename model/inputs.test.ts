import { join } from "node:path";
import { expect, test } from "vitest";
import { tokenSample } from "./inputs.ts";
import { openModel } from "./sources/open.ts";

const MINIS = new URL("../fixtures/models/minis", import.meta.url).pathname;
const open = async (mini: string): ReturnType<typeof openModel> => openModel(join(MINIS, mini));

test("a decoder's sample is ids and positions from 0, I64 [1, n]", async () => {
  const { inputs } = tokenSample(await open("llama"), [5, 0, 95]);
  expect(inputs).toEqual({
    input_ids: { dtype: "I64", shape: [1, 3], data: BigInt64Array.of(5n, 0n, 95n) },
    position_ids: { dtype: "I64", shape: [1, 3], data: BigInt64Array.of(0n, 1n, 2n) },
  });
});

test("an encoder's sample has segments and a mask, by default one segment and no padding", async () => {
  const model = await open("bert");
  const plain = tokenSample(model, [1, 2]).inputs;
  expect(plain["token_type_ids"]!.data).toEqual(BigInt64Array.of(0n, 0n));
  expect(plain["attention_mask"]!.data).toEqual(BigInt64Array.of(1n, 1n));
  const given = tokenSample(model, [1, 2], { tokenTypes: [0, 1], attentionMask: [1, 0] }).inputs;
  expect(given["token_type_ids"]!.data).toEqual(BigInt64Array.of(0n, 1n));
  expect(given["attention_mask"]!.data).toEqual(BigInt64Array.of(1n, 0n));
});

test.each([
  ["llama", [96], {}, "input.value", /96.*vocabulary of 96/],
  ["llama", [0.5], {}, "input.value", /0\.5/],
  ["llama", [], {}, "input.value", /at least one/],
  ["llama", [1], { tokenTypes: [0] }, "input.option", /LlamaForCausalLM takes no tokenTypes/],
  ["bert", [1, 2], { attentionMask: [1] }, "input.shape", /attention_mask has 1 entries for 2 tokens/],
  ["gpt2", Array.from({ length: 65 }, () => 1), {}, "input.shape", /65 tokens.*64/],
  ["opt", Array.from({ length: 65 }, () => 1), {}, "input.shape", /65 tokens.*64/],
])("%s refuses %j with %j: %s", async (mini, ids, options, code, message) => {
  const model = await open(mini);
  expect(() => tokenSample(model, ids, options)).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
});

test("rotary positions have no end: a sequence longer than max_position_embeddings is a sample", async () => {
  const { inputs } = tokenSample(
    await open("llama"),
    Array.from({ length: 300 }, () => 1),
  );
  expect(inputs["position_ids"]!.data.at(-1)).toBe(299n);
});
