/** quantize → write → read → dequantize gives, bit for bit, what decoding the method's own codes gives. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createRandom } from "../core/random.ts";
import { fromFloat32, toFloat32 } from "../core/tensor.ts";
import { openCheckpoint } from "../formats/checkpoint.ts";
import { writeSafetensors } from "../formats/containers/safetensors/write.ts";
import { findLayout } from "../formats/layouts/index.ts";
import { dequantize } from "../quantize/dequantize.ts";
import { quantizeRtn } from "../quantize/methods/rtn/rtn.ts";
import { quantize } from "../quantize/quantize.ts";
import type { Recipe } from "../quantize/types.ts";

const SHAPES = [
  [3, 64],
  [5, 96],
  [33, 32],
  [1, 160],
] as const;
/** Columns that are no multiple of 8: packed rows end inside a word. */
const ODD = [
  [3, 13],
  [7, 50],
] as const;
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "round-trip-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const RECIPES: readonly (readonly [string, Omit<Recipe, "method">, readonly (readonly [number, number])[]])[] = [
  ["w8a8", { bits: "w8a8" }, [...SHAPES, ...ODD]],
  ["w8a16 channel", { bits: "w8a16" }, [...SHAPES, ...ODD]],
  ["w8a16 tensor", { bits: "w8a16", groupSize: "tensor" }, [...SHAPES, ...ODD]],
  ["w4a16 group 32", { bits: "w4a16", groupSize: 32 }, SHAPES],
  ["w4a16 channel", { bits: "w4a16", groupSize: "channel" }, [...SHAPES, ...ODD]],
  ["w4a16 awq", { bits: "w4a16", groupSize: 32, scheme: { preset: "awq" } }, SHAPES],
  ["w4a16 asymmetric", { bits: "w4a16", groupSize: 32, scheme: { symmetric: "false" } }, SHAPES],
  ["w3a16 channel", { bits: "w3a16", groupSize: "channel" }, [...SHAPES, ...ODD]],
  ["w4a16 bf16 arithmetic", { bits: "w4a16", groupSize: 32, scheme: { arithmetic: "bf16" } }, SHAPES],
  ["w4a8 sq-fake", { bits: "w4a8", scheme: { preset: "sq-fake" } }, SHAPES],
  ["fp8", { bits: "fp8" }, [...SHAPES, ...ODD]],
];

describe.each(["BF16", "F16", "F32"] as const)("from %s", (dtype) => {
  test.each(RECIPES)("%s", async (label, recipe, shapes) => {
    const random = createRandom(5);
    const weights = new Map(
      shapes.map(([rows, cols], i) => [
        `layer.${i}.weight`,
        fromFloat32(
          Float32Array.from({ length: rows * cols }, () => random.normal()),
          [rows, cols],
          dtype,
        ),
      ]),
    );
    const folder = join(directory, `${dtype} ${label}`);
    const source = `${folder}.safetensors`;
    await writeSafetensors(source, weights);
    const { plan } = await quantize(source, { recipe: { ...recipe, method: ["rtn"] }, out: folder, workers: 0 });
    const artifact = await openCheckpoint(folder);
    try {
      const { tensors } = await findLayout(artifact.config)!.read(artifact);
      for (const { name, weight } of plan.sites) {
        const tensor = weights.get(`${name}.weight`)!;
        const [rows, cols] = tensor.shape as [number, number];
        const codes = quantizeRtn({ rows, cols, data: toFloat32(tensor) }, weight!, plan.arithmetic, plan.scaleDType);
        expect(toFloat32(await tensors.get(`${name}.weight`)!.read())).toEqual(dequantize(codes));
      }
      expect(plan.sites).toHaveLength(shapes.length);
    } finally {
      await artifact.close();
    }
  });
});
