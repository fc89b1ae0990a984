import { join } from "node:path";
import { readFileSync } from "node:fs";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { describe, expect, test } from "vitest";
import { toFloat32, type Tensor as HouseTensor } from "../../core/tensor.ts";
import { makeOnnxTensor } from "../../formats/containers/onnx/tensor.ts";
import { encodeOnnxModel } from "../../formats/containers/onnx/write.ts";
import { openModel } from "../sources/open.ts";
import { DIALECT_NAMES, type DialectName } from "./dialects/index.ts";
import { stitchModel } from "./stitch.ts";
import { farthest, readTensors } from "../../tests/support/tensors.ts";

const TOWERS = new URL("../../fixtures/models/towers", import.meta.url).pathname;
const TOLERANCE = 2e-4;

async function start(mini: string, operators: DialectName): Promise<InferenceSession> {
  const model = stitchModel(await openModel(join(TOWERS, mini)), { operators });
  const read = [...model.graph.initializers].map(
    async ([name, tensor]) => [name, makeOnnxTensor(tensor.dtype, tensor.shape, tensor.bytes ?? (await tensor.read()))] as const,
  );
  const bytes = encodeOnnxModel({ ...model, graph: { ...model.graph, initializers: new Map(await Promise.all(read)) } });
  return InferenceSession.create(bytes, { intraOpNumThreads: 1, logSeverityLevel: 3 });
}

function errorOf(actual: Tensor, expected: HouseTensor): number {
  expect(actual.dims).toEqual(expected.shape);
  return farthest(actual.data as Float32Array, toFloat32(expected));
}

describe.each(DIALECT_NAMES)("%s", (operators) => {
  test.each([
    ["vit", ["logits"]],
    ["clip-vision", ["image_embeds", "last_hidden_state"]],
  ])("%s: a batch of two images gives the golden outputs", async (mini, outputs) => {
    const session = await start(mini, operators);
    expect(session.inputNames).toEqual(["pixel_values"]);
    const expected = await readTensors(join(TOWERS, mini, "golden.safetensors"));
    const pixels = expected.get("pixel_values")!;
    const results = await session.run({ pixel_values: new Tensor("float32", toFloat32(pixels), pixels.shape) });
    expect(Object.keys(results)).toEqual(outputs);
    for (const name of outputs) expect(errorOf(results[name]!, expected.get(name)!), name).toBeLessThanOrEqual(TOLERANCE);
    await session.release();
  });

  test("clip-text: texts give the golden embeddings, taken at the first end token", async () => {
    const session = await start("clip-text", operators);
    expect(session.inputNames).toEqual(["input_ids", "attention_mask"]);
    const expected = await readTensors(join(TOWERS, "clip-text/golden.safetensors"));
    const { prompts } = JSON.parse(readFileSync(join(TOWERS, "clip-text/golden.json"), "utf8")) as {
      prompts: Record<string, { ids: number[] }>;
    };
    for (const [letter, { ids }] of Object.entries(prompts)) {
      const int64 = (values: readonly number[]): Tensor => new Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
      const results = await session.run({ input_ids: int64(ids), attention_mask: int64(ids.map(() => 1)) });
      for (const name of ["text_embeds", "last_hidden_state"]) {
        expect(errorOf(results[name]!, expected.get(`${letter}.${name}`)!), `${letter}.${name}`).toBeLessThanOrEqual(TOLERANCE);
      }
    }
    await session.release();
  });
});
