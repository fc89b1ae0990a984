import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { tensorOf } from "../../core/tensor.ts";
import { writeSafetensors } from "../../formats/containers/safetensors/write.ts";
import { sitesOf } from "../model.ts";
import { openModel } from "./open.ts";
import { openTensorSource } from "./tensors.ts";

const MODELS = new URL("../../fixtures/models", import.meta.url).pathname;

test.each(["tiny-llama", "minis/llama", "minis/mixtral", "minis/qwen3-moe", "minis/gemma3", "minis/phi3", "minis/opt"])(
  "%s: by name alone the sites are the model's linears without head and routers",
  async (name) => {
    const linears = sitesOf(await openModel(join(MODELS, name))).filter(({ kind, name: site }) => kind === "linear" && site !== "lm_head");
    const { sites } = await openTensorSource(join(MODELS, name));
    const shape = (list: readonly { name: string; rows: number; cols: number }[]): readonly string[] =>
      list.map(({ name: site, rows, cols }) => `${site} ${rows}x${cols}`).toSorted();
    expect(shape(sites)).toEqual(shape(linears));
  },
);

test("gpt2's Conv1D matrices are no sites without its config, because their axes cannot be told", async () => {
  expect((await openTensorSource(join(MODELS, "minis/gpt2"))).sites).toEqual([]);
});

test("a bare file has sites but is no model: the error says what is missing and what to do", async () => {
  const folder = mkdtempSync(join(tmpdir(), "bitwright-tensors-"));
  try {
    const path = join(folder, "bare.safetensors");
    const matrix = tensorOf(new Float32Array(6), [2, 3]);
    await writeSafetensors(
      path,
      new Map([
        ["a.weight", matrix],
        ["norm.weight", tensorOf(new Float32Array(3), [3])],
        ["lm_head.weight", matrix],
      ]),
    );
    expect((await openTensorSource(path)).sites).toEqual([{ name: "a", weight: "a.weight", rows: 2, cols: 3, dtype: "F32" }]);
    await expect(openModel(path)).rejects.toMatchObject({
      code: "format.missing",
      message: expect.stringMatching(/config\.json.*directory/),
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
