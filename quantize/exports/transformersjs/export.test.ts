import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createEngine } from "../../../model/engines/index.ts";
import { generate } from "../../../model/generate.ts";
import { openModel } from "../../../model/sources/open.ts";
import { exportArtifact } from "../../export.ts";
import { planQuantization } from "../../plan.ts";
import { quantize } from "../../quantize.ts";
import { encodeNf4 } from "../../onnx/rewrites/bnb4.ts";
import { DTYPE_FILES, readDTypes, TRANSFORMERSJS_DTYPES } from "./dtypes.ts";

const FIXTURES = new URL("../../../fixtures", import.meta.url).pathname;
const MINI = join(FIXTURES, "models/minis/qwen3");
const LLAMA = join(FIXTURES, "models/minis/llama");
const TINY = join(FIXTURES, "models/tiny-llama");
const PROMPT = [5, 17, 80, 3, 44, 9, 61, 28];

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "bitwright-tjs-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Logits of a prompt from an empty cache. */
async function logitsOf(path: string, ids: readonly number[]): Promise<Float32Array> {
  const session = await InferenceSession.create(path, { intraOpNumThreads: 1, logSeverityLevel: 3 });
  const int64 = (values: readonly number[]): Tensor => new Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
  const feeds: Record<string, Tensor> = {
    input_ids: int64(ids),
    attention_mask: int64(ids.map(() => 1)),
    position_ids: int64(ids.map((_, i) => i)),
  };
  for (const entry of session.inputMetadata) {
    if (!entry.isTensor || !entry.name.startsWith("past_key_values.")) continue;
    const shape = entry.shape.map((size) => (typeof size === "number" ? size : size === "batch_size" ? 1 : 0));
    feeds[entry.name] = new Tensor("float32", new Float32Array(0), shape);
  }
  const logits = (await session.run(feeds))["logits"]!.data as Float32Array;
  await session.release();
  return logits;
}

function cosine(a: Float32Array, b: Float32Array): number {
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += a[i]! * b[i]!;
    aa += a[i]! ** 2;
    bb += b[i]! ** 2;
  }
  return ab / Math.sqrt(aa * bb);
}

describe("transformersjs", () => {
  test("every dtype is a file that runs close to float32", async () => {
    const out = join(folder, "all");
    const report = await exportArtifact(MINI, { to: "transformersjs", out });
    const reference = await logitsOf(join(out, "onnx/model.onnx"), PROMPT);
    const least: Readonly<Record<string, number>> = {
      fp32: 1,
      fp16: 0.99999,
      q8: 0.99,
      int8: 0.99,
      uint8: 0.99,
      q4: 0.9,
      q4f16: 0.9,
      bnb4: 0.9,
    };
    for (const dtype of TRANSFORMERSJS_DTYPES) {
      const logits = await logitsOf(join(out, `onnx/model${DTYPE_FILES[dtype].suffix}.onnx`), PROMPT);
      expect(cosine(logits, reference), dtype).toBeGreaterThanOrEqual(least[dtype]! - 1e-6);
    }
    expect(report.files!.map(({ name }) => name).filter((name) => name.startsWith("onnx/"))).toEqual(
      TRANSFORMERSJS_DTYPES.map((dtype) => `onnx/model${DTYPE_FILES[dtype].suffix}.onnx`),
    );
    await expect(exportArtifact(MINI, { to: "transformersjs", out })).rejects.toMatchObject({ code: "input.output-exists" });
    await exportArtifact(MINI, { to: "transformersjs", out, force: true, dtypes: ["fp32"] });
  });

  test("tokenizer and generation settings come along; q4 is 0.35 of float32 where the embedding stays float", async () => {
    const report = await exportArtifact(TINY, { to: "transformersjs", out: join(folder, "tiny"), dtypes: ["fp32", "q4"] });
    const size = new Map(report.files!.map(({ name, bytes }) => [name, bytes]));
    expect(size.get("onnx/model_q4.onnx")! / size.get("onnx/model.onnx")!).toBeLessThan(0.35);
    expect([...size.keys()]).toEqual(expect.arrayContaining(["generation_config.json", "tokenizer.json", "tokenizer_config.json"]));
  });

  test("an unknown dtype is refused with the list", () => {
    expect(() => readDTypes("q8,q5")).toThrow(
      expect.objectContaining({ code: "input.option", message: expect.stringContaining("uint8") as string }),
    );
    expect(readDTypes("q8, fp32,q8")).toEqual(["q8", "fp32"]);
  });
});

test.each([
  ["w4a16", "q4"],
  ["w8a16", "q8"],
])("an artifact of %s keeps its codes: the %s file gives the logits of the artifact", async (bits, dtype) => {
  const artifact = join(folder, bits);
  await quantize(LLAMA, { recipe: { method: ["rtn"], bits, ...(bits === "w4a16" ? { groupSize: 16 } : {}) }, out: artifact });
  const out = join(folder, `${bits}-onnx`);
  const report = await exportArtifact(artifact, { to: "onnx", out });
  const files = report.files!.map(({ name }) => name).filter((name) => name.startsWith("onnx/"));
  expect(files).toEqual([`onnx/model${DTYPE_FILES[dtype as "q4" | "q8"].suffix}.onnx`]);
  expect(JSON.parse(readFileSync(join(out, "config.json"), "utf8"))).not.toHaveProperty("quantization_config");
  const engine = await createEngine("onnxruntime", { threads: 1 });
  const [own] = await generate(await openModel(artifact), PROMPT, { engine, maxTokens: 1 });
  await engine.close();
  await exportArtifact(artifact, { to: "onnx", out: join(folder, `${bits}-float`), dtypes: ["fp32"] });
  const float = await logitsOf(join(folder, `${bits}-float/onnx/model.onnx`), PROMPT);
  const kept = await logitsOf(join(out, files[0]!), PROMPT);
  expect(kept.reduce((worst, value, i) => Math.max(worst, Math.abs(value - float[i]!)), 0)).toBeLessThan(2e-3);
  const last = kept.slice(-kept.length / PROMPT.length);
  expect(last.indexOf(Math.max(...last))).toBe(own);
});

test("quantize --to onnx: the recipe's codes in one file, and nothing else left behind", async () => {
  const out = join(folder, "w8a8");
  const report = await quantize(MINI, { recipe: { method: ["rtn"], bits: "w8a8" }, to: ["onnx"], out });
  expect(report.out[0]!.files.filter((name) => name.startsWith("onnx/"))).toEqual(["onnx/model_quantized.onnx"]);
  expect(readdirSync(out)).not.toContain(".artifact");
  expect(JSON.parse(readFileSync(join(out, "config.json"), "utf8"))).toMatchObject({ "transformers.js_config": { dtype: "q8" } });
  await exportArtifact(MINI, { to: "onnx", out: join(folder, "w8a8-float") });
  const float = await logitsOf(join(folder, "w8a8-float/onnx/model.onnx"), PROMPT);
  expect(cosine(await logitsOf(join(out, "onnx/model_quantized.onnx"), PROMPT), float)).toBeGreaterThan(0.99);
});

test("NF4: levels are their own codes, two a byte with the first above", () => {
  const { codes, scales } = encodeNf4(Float32Array.of(-2, 0, 2, 2 * 0.33791524171829224));
  expect([...codes]).toEqual([0x07, 0xfb]);
  expect(scales).toEqual(Float32Array.of(2));
});

test("quantize --bits fp16 --to onnx: the half-precision file, its plan made without writing", async () => {
  const out = join(folder, "fp16");
  const options = { recipe: { method: ["rtn"], bits: "fp16" }, to: ["onnx"], out };
  const plan = await planQuantization(MINI, options);
  expect(existsSync(out)).toBe(false);
  const report = await quantize(MINI, options);
  expect(report.plan).toEqual(plan);
  expect(report.out[0]!.files).toContain("onnx/model_fp16.onnx");
  expect(Math.abs(report.outputBytes / plan.estimate.outputBytes - 1)).toBeLessThan(0.5);
  const smoothed = { ...options, recipe: { method: ["smoothquant", "rtn"], bits: "fp16" }, out: join(folder, "fp16-smooth") };
  await expect(quantize(MINI, smoothed)).rejects.toMatchObject({ code: "input.option" });
});
