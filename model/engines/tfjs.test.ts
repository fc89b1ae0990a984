import type { Scalar } from "@tensorflow/tfjs-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { tensorOf } from "../../core/tensor.ts";
import { GraphBuilder } from "../graph/builder.ts";
import type { Engine, Values } from "./engine.ts";
import { createEngine } from "./index.ts";
import { loadTfjs, type LoadedTfjs } from "./tfjs/load.ts";
import type { TfTensor } from "./tfjs/call.ts";
import { multiplyMatrices } from "./tfjs/multiply.ts";

let engine: Engine;
let backend: LoadedTfjs;
beforeAll(async () => {
  engine = await createEngine("tfjs");
  backend = await loadTfjs();
});
afterAll(async () => engine.close());

/** Two outputs, a value that dies early, one that is an input's alias, and a constant. */
function block() {
  const builder = new GraphBuilder("block");
  builder.input("x", "F32", ["n", 4]);
  builder.weight("w", [4, 4]);
  const product = builder.op("Gemm", ["x", "w"], { transB: 1 });
  const same = builder.op("Identity", ["x"]);
  const rows = builder.op("Reshape", [product, builder.int64([1, -1, 4])]);
  builder.op("Attention", [rows, rows, rows], { is_causal: 1, q_num_heads: 2, kv_num_heads: 2 }, "mixed");
  builder.op("Add", [same, product], {}, "sum");
  return builder.build(["mixed", "sum"]);
}

const FEEDS: Values = {
  x: { dtype: "F32", shape: [2, 4], data: Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8) },
  w: { dtype: "F32", shape: [4, 4], data: Float32Array.from({ length: 16 }, (_, i) => Number(i % 5 === 0)) },
};

describe("memory", () => {
  test("a run leaves no tensor behind, a release no constant", async () => {
    const before = backend.tf.memory().numTensors;
    const compiled = await engine.compile(block(), { outputs: ["mixed", "sum", "x"] });
    const constants = backend.tf.memory().numTensors;
    const values = await compiled.run(FEEDS);
    expect(values["sum"]!.data).toEqual(Float32Array.of(2, 4, 6, 8, 10, 12, 14, 16));
    expect(values["x"]).toEqual(FEEDS["x"]);
    expect(backend.tf.memory().numTensors).toBe(constants);
    await compiled.release();
    await compiled.release();
    expect(backend.tf.memory().numTensors).toBe(before);
  });

  test("a run that fails leaves no tensor behind", async () => {
    const builder = new GraphBuilder("look-up");
    builder.input("x", "F32", [2]);
    builder.input("i", "I64", [1]);
    builder.op("Gather", [builder.op("Neg", ["x"]), "i"], {}, "y");
    const compiled = await engine.compile(builder.build(["y"]));
    const before = backend.tf.memory().numTensors;
    const feeds: Values = {
      x: { dtype: "F32", shape: [2], data: new Float32Array(2) },
      i: { dtype: "I64", shape: [1], data: BigInt64Array.of(5n) },
    };
    await expect(compiled.run(feeds)).rejects.toMatchObject({ code: "input.value", details: { graph: "look-up", node: "Gather:y" } });
    expect(backend.tf.memory().numTensors).toBe(before);
  });

  test("nodes that no wanted output needs are not computed", async () => {
    const builder = new GraphBuilder("branches");
    builder.input("x", "F32", [2]);
    builder.op("Neg", ["x"], {}, "wanted");
    builder.op("Gather", ["x", builder.int64([9])], {}, "out of range");
    const compiled = await engine.compile(builder.build(["wanted", "out of range"]), { outputs: ["wanted"] });
    const values = await compiled.run({ x: { dtype: "F32", shape: [2], data: Float32Array.of(1, 2) } });
    expect(values["wanted"]!.data).toEqual(Float32Array.of(-1, -2));
  });
});

describe("what it cannot do is said", () => {
  test("operators it lacks, all of them at once", async () => {
    const builder = new GraphBuilder("vision");
    builder.input("x", "F32", [1, 1, 4, 4]);
    const y = builder.op("GridSample", [builder.op("LRN", ["x"]), "x"]);
    await expect(engine.compile(builder.build([y]))).rejects.toMatchObject({
      code: "unsupported.operator",
      details: { operators: ["GridSample", "LRN"] },
    });
  });

  test("opsets whose operators mean something else", async () => {
    const builder = new GraphBuilder("old", 12);
    builder.input("x", "F32", [2, 2]);
    await expect(engine.compile(builder.build([builder.op("Softmax", ["x"])]))).rejects.toMatchObject({
      code: "unsupported.operator",
      details: { opset: 12 },
    });
  });

  test("int64 values beyond 32 bits", async () => {
    const builder = new GraphBuilder("wide");
    builder.input("x", "I64", [1]);
    const compiled = await engine.compile(builder.build([builder.op("Neg", ["x"])]));
    await expect(compiled.run({ x: { dtype: "I64", shape: [1], data: BigInt64Array.of(2n ** 31n) } })).rejects.toMatchObject({
      code: "input.value",
      message: expect.stringContaining("2147483648") as unknown,
    });
  });

  test("dtypes it has no tensors for", async () => {
    const builder = new GraphBuilder("half");
    builder.input("x", "F32", [1]);
    const half = builder.constant(tensorOf(Uint16Array.of(0), [1]));
    const graph = builder.build([builder.op("Add", ["x", half])]);
    const constants = new Map([[half, { dtype: "F16" as const, shape: [1], bytes: new Uint8Array(2) }]]);
    await expect(engine.compile({ ...graph, constants })).rejects.toMatchObject({ code: "unsupported.dtype" });
  });
});

test("the matrix product's gradient is dA = dY Bᵀ, dB = Aᵀ dY", () => {
  const { tf } = backend;
  const [a, b] = [tf.tensor2d([1, 2, 3, 4, 5, 6], [2, 3]), tf.tensor2d([1, 0, 2, 1, 0, 3], [3, 2])];
  const weights = tf.tensor2d([1, -1, 2, 0.5], [2, 2]);
  const loss = (x: TfTensor, y: TfTensor) => tf.sum<Scalar>(tf.mul(multiplyMatrices(tf, x, y), weights));
  const [da, db] = tf.grads((...inputs) => loss(inputs[0]!, inputs[1]!))([a, b]) as [TfTensor, TfTensor];
  // By hand: rows of dA are rows of `weights` times Bᵀ, columns of dB are Aᵀ times columns of `weights`.
  expect([...da.dataSync()]).toEqual([1, 1, -3, 2, 4.5, 1.5]);
  expect([...db.dataSync()]).toEqual([9, 1, 12, 0.5, 15, 0]);
  tf.dispose([a, b, weights, da, db]);
});

test("listeners of the WASM loader on the process's errors are taken off", () => {
  const rethrows = (listener: unknown): boolean => String(listener).includes("throw") && !String(listener).includes("vitest");
  expect(process.listeners("unhandledRejection").filter(rethrows)).toEqual([]);
});
