/** Artifacts against those of llm-compressor, tensor by tensor. */
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openFileSource } from "../formats/containers/bytes.ts";
import { openSafetensors } from "../formats/containers/safetensors/read.ts";
import { toFloat32 } from "../core/tensor.ts";
import { readManifest } from "./manifest.ts";
import { quantize } from "./quantize.ts";

const MODEL = "fixtures/models/tiny-llama";
const OFFICIAL = "fixtures/compressed-tensors";
let directory: string;
let sequences: number[][];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "official-"));
  const file = await openSafetensors(await openFileSource("fixtures/goldens/statistics.safetensors"));
  const ids = toFloat32(await file.tensors.get("calibration_ids")!.read());
  sequences = Array.from({ length: 32 }, (_, i) => [...ids.subarray(256 * i, 256 * (i + 1))]);
  await file.close();
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const CASES: readonly { name: string; bits: string; scheme: Record<string, string>; isCalibrated?: boolean }[] = [
  { name: "w8a8-dynamic", bits: "w8a8", scheme: {} },
  { name: "w8a8-static", bits: "w8a8", scheme: { level: "O3" }, isCalibrated: true },
  { name: "w4a16", bits: "w4a16", scheme: {} },
  { name: "w4a16-asym", bits: "w4a16", scheme: { symmetric: "false" } },
  { name: "fp8-dynamic", bits: "fp8", scheme: {} },
  { name: "fp8-static", bits: "fp8", scheme: { act: "static" }, isCalibrated: true },
  { name: "mxfp4a16", bits: "mxfp4a16", scheme: {} },
  { name: "nvfp4a16", bits: "nvfp4a16", scheme: {} },
  { name: "nvfp4", bits: "nvfp4", scheme: {}, isCalibrated: true },
];

/**
 * Static input scales come from the inputs of a forward pass: ours runs in f32, the library's in bf16, so a scale may land on
 * the next bf16 number. Weights, their scales and everything copied must be equal.
 */
const isMeasured = (tensor: string): boolean => tensor.endsWith(".input_scale") || tensor.endsWith(".input_global_scale");

test.each(CASES)(
  "$name with bf16 arithmetic has the official library's bytes in every tensor that no forward pass decides",
  async ({ name, bits, scheme, isCalibrated }) => {
    const out = join(directory, name);
    await quantize(MODEL, {
      recipe: { method: ["rtn"], bits, scheme: { ...scheme, arithmetic: "bf16" } },
      out,
      workers: 0,
      ...(isCalibrated === true && { sequences }),
    });
    const { tensors } = await readManifest(out);
    const official = JSON.parse(readFileSync(join(OFFICIAL, name, "tensors.json"), "utf8")) as Record<
      string,
      { sha256: string; dtype: string; shape: number[] }
    >;
    const facts = (table: Readonly<Record<string, { sha256: string; dtype: string; shape: readonly number[] }>>): unknown[] =>
      Object.entries(table).map(([tensor, { sha256, dtype, shape }]) => [tensor, dtype, shape, isMeasured(tensor) ? "" : sha256]);
    expect(facts(tensors)).toEqual(facts(official));
    if (isCalibrated === true) await expectMeasuredScales(out, join(OFFICIAL, name, "layer0.safetensors"));
  },
);

/** Within two steps of bf16. */
async function expectMeasuredScales(out: string, reference: string): Promise<void> {
  const [ours, theirs] = [
    await openSafetensors(await openFileSource(join(out, "model.safetensors"))),
    await openSafetensors(await openFileSource(reference)),
  ];
  for (const [tensor, lazy] of theirs.tensors) {
    if (!isMeasured(tensor)) continue;
    const [found, expected] = [toFloat32(await ours.tensors.get(tensor)!.read())[0]!, toFloat32(await lazy.read())[0]!];
    expect(Math.abs(found / expected - 1)).toBeLessThan(2 ** -7);
  }
  await ours.close();
  await theirs.close();
}
