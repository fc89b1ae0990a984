import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { TensorSpec } from "../../containers/container.ts";
import { openCheckpoint } from "../../checkpoint.ts";
import { findUnits } from "./units.ts";

const FIXTURES = join(import.meta.dirname, "../../../fixtures/lossless/df11");

const spec = (name: string, ...shape: number[]): TensorSpec => ({ name, dtype: "BF16", shape });

async function specsOf(path: string): Promise<TensorSpec[]> {
  const checkpoint = await openCheckpoint(join(FIXTURES, path));
  await checkpoint.close();
  return [...checkpoint.tensors.values()];
}

describe.each(["llama-slice", "bert-slice"])("%s", (slice) => {
  test("units and patterns found by name are those of the official artifact", async () => {
    const units = findUnits(await specsOf(`${slice}/source`));
    const config = JSON.parse(readFileSync(join(FIXTURES, slice, "artifact/config.json"), "utf8")) as {
      dfloat11_config: { pattern_dict: Record<string, string[]> };
    };
    expect(Object.fromEntries(units.map(({ pattern, attributes }) => [pattern, attributes]))).toEqual(config.dfloat11_config.pattern_dict);
  });
  test("the official patterns, given by hand, choose the same units", async () => {
    const specs = await specsOf(`${slice}/source`);
    const own = findUnits(specs);
    const byHand = findUnits(
      specs,
      [...new Set(own.map(({ pattern }) => pattern))].map((pattern) => ({ pattern })),
    );
    expect(byHand.map(({ name, tensors }) => [name, tensors])).toEqual(own.map(({ name, tensors }) => [name, tensors]));
  });
});

test("blocks of one prefix with different members get patterns that tell them apart", () => {
  const units = findUnits([
    spec("model.layers.0.mlp.up_proj.weight", 8, 4),
    spec("model.layers.1.mlp.experts.0.w1.weight", 8, 4),
    spec("model.layers.2.mlp.up_proj.weight", 8, 4),
  ]);
  expect(units.map(({ name, pattern, attributes }) => ({ name, pattern, attributes }))).toEqual([
    { name: "model.layers.0", pattern: "model\\.layers\\.(0|2)", attributes: ["mlp.up_proj"] },
    { name: "model.layers.1", pattern: "model\\.layers\\.(1)", attributes: ["mlp.experts.0.w1"] },
    { name: "model.layers.2", pattern: "model\\.layers\\.(0|2)", attributes: ["mlp.up_proj"] },
  ]);
});

test("small top-level matrices, vectors and other dtypes stay out", () => {
  const units = findUnits([
    spec("embeddings.position_embeddings.weight", 64, 64),
    spec("norm.weight", 64),
    { name: "lm_head.weight", dtype: "F32", shape: [10, 10] },
    spec("lm_head.bias", 10, 10),
  ]);
  expect(units).toEqual([]);
});

test("patterns that match nothing, or name what is not there, are refused by name", () => {
  const specs = [spec("model.layers.0.mlp.up_proj.weight", 8, 4)];
  expect(() => findUnits(specs, [{ pattern: "model\\.blocks\\.\\d+" }])).toThrowError(/matches no module.*model\.layers\.0\.mlp\.up_proj/);
  expect(() => findUnits(specs, [{ pattern: "model\\.layers\\.\\d+", attributes: ["mlp.up"] }])).toThrowError(
    /has no 2-D bf16 mlp\.up\.weight/,
  );
});
