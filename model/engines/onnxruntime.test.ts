import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createRandom } from "../../core/random.ts";
import { GraphBuilder } from "../graph/builder.ts";
import type { Graph } from "../graph/graph.ts";
import type { Engine, HostTensor, Values } from "./engine.ts";
import { createEngine } from "./index.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine("onnxruntime", { threads: 1 });
});
afterAll(async () => engine.close());

function linear(name = "linear", op = "Relu"): Graph {
  const builder = new GraphBuilder(name);
  builder.input("x", "F32", ["n", 2]);
  builder.weight("w", [3, 2]);
  builder.op("Gemm", ["x", "w"], { transB: 1 }, "y");
  builder.op(op, ["y"], {}, "z");
  return builder.build(["z"]);
}

const FEEDS: Values = {
  x: { dtype: "F32", shape: [1, 2], data: Float32Array.of(1, 2) },
  w: { dtype: "F32", shape: [3, 2], data: Float32Array.of(1, 0, 0, 1, -1, -1) },
};

describe("a compiled graph", () => {
  test("takes weights as feeds and gives any value that is asked for", async () => {
    const compiled = await engine.compile(linear(), { outputs: ["z", "y"] });
    const result = await compiled.run({ ...FEEDS, unused: FEEDS["x"]! });
    expect(compiled.outputs).toEqual(["z", "y"]);
    expect(result["y"]).toEqual({ dtype: "F32", shape: [1, 3], data: Float32Array.of(1, 2, -3) });
    expect(result["z"]).toEqual({ dtype: "F32", shape: [1, 3], data: Float32Array.of(1, 2, 0) });
    await compiled.release();
  });

  test("gives inputs and constants back when they are tapped", async () => {
    const compiled = await engine.compile(linear(), { outputs: ["x", "z"] });
    expect((await compiled.run(FEEDS))["x"]).toEqual(FEEDS["x"]);
  });

  test("copies feeds that lie in shared memory, which the runtime refuses", async () => {
    const data = new Float32Array(new SharedArrayBuffer(24));
    data.set(FEEDS["w"]!.data as Float32Array);
    const compiled = await engine.compile(linear());
    expect((await compiled.run({ ...FEEDS, w: { ...FEEDS["w"]!, data } }))["z"]!.data).toEqual(Float32Array.of(1, 2, 0));
  });

  test("lets the event loop turn before each run", async () => {
    const compiled = await engine.compile(linear());
    let turned = false;
    setImmediate(() => (turned = true));
    await compiled.run(FEEDS);
    expect(turned).toBe(true);
  });

  test("does not run once it is released, and may be released twice", async () => {
    const compiled = await engine.compile(linear());
    await compiled.release();
    await compiled.release();
    await expect(compiled.run(FEEDS)).rejects.toMatchObject({ code: "input.value" });
  });
});

describe("feeds are refused before the runtime sees them", () => {
  const x = FEEDS["x"]!;
  const cases: [string, Values, string, RegExp][] = [
    ["a missing weight", { x }, "input.value", /"w"/],
    ["another dtype", { ...FEEDS, x: { dtype: "I32", shape: [1, 2], data: Int32Array.of(1, 2) } }, "input.dtype", /"x".*I32/],
    ["an array that does not hold the dtype", { ...FEEDS, x: { ...x, data: Float64Array.of(1, 2) } }, "input.dtype", /Float64Array/],
    ["another rank", { ...FEEDS, x: { ...x, shape: [2] } }, "input.shape", /1 dimensions where 2/],
    ["another size", { ...FEEDS, x: { ...x, shape: [2, 1] } }, "input.shape", /dimension 1 is 1, not 2/],
    ["too little data", { ...FEEDS, x: { ...x, shape: [2, 2] } }, "input.shape", /4 elements, its data has 2/],
  ];
  test.each(cases)("%s", async (_, feeds, code, message) => {
    const compiled = await engine.compile(linear());
    await expect(compiled.run(feeds)).rejects.toMatchObject({ code, message: expect.stringMatching(message) as unknown });
  });

  test("a symbolic dimension of two sizes", async () => {
    const builder = new GraphBuilder("sum");
    builder.input("a", "F32", ["n"]);
    builder.input("b", "F32", ["n"]);
    const compiled = await engine.compile(builder.build([builder.op("Add", ["a", "b"])]));
    const ones = (n: number): HostTensor => ({ dtype: "F32", shape: [n], data: new Float32Array(n) });
    await expect(compiled.run({ a: ones(2), b: ones(1) })).rejects.toMatchObject({
      code: "input.shape",
      message: expect.stringMatching(/"n" is 1/) as unknown,
    });
  });
});

describe("errors name graph and node", () => {
  test("unknown operators, all of them, before the runtime sees the graph", async () => {
    const builder = new GraphBuilder("odd");
    builder.input("x", "F32", [1]);
    builder.op("Frobnicate", ["x"], {}, "y");
    builder.multi("Twirl", ["y"], {}, ["z"], "com.example");
    await expect(engine.compile(builder.build(["z"]))).rejects.toMatchObject({
      code: "unsupported.operator",
      details: { operators: ["Frobnicate", "com.example::Twirl"] },
    });
  });

  test("values that the graph does not have", async () => {
    await expect(engine.compile(linear(), { outputs: ["q"] })).rejects.toMatchObject({ code: "input.value", details: { missing: ["q"] } });
  });

  test("what the runtime refuses at compile time", async () => {
    const builder = new GraphBuilder("bad");
    builder.input("x", "F32", [2, 3]);
    builder.op("MatMul", ["x", "x"], {}, "y");
    await expect(engine.compile(builder.build(["y"]))).rejects.toMatchObject({
      code: "input.value",
      details: { graph: "bad", node: "MatMul:y" },
    });
  });

  test("what the runtime refuses at run time", async () => {
    const builder = new GraphBuilder("look-up");
    builder.input("x", "F32", [2]);
    builder.input("i", "I64", [1]);
    builder.op("Gather", ["x", "i"], {}, "y");
    const compiled = await engine.compile(builder.build(["y"]));
    const feeds: Values = {
      x: { dtype: "F32", shape: [2], data: new Float32Array(2) },
      i: { dtype: "I64", shape: [1], data: BigInt64Array.of(5n) },
    };
    await expect(compiled.run(feeds)).rejects.toMatchObject({ code: "input.value", details: { graph: "look-up", node: "Gather:y" } });
  });
});

test("1 and 2 threads give the same bits", async () => {
  const random = createRandom(3);
  const normal = (...shape: number[]): HostTensor => ({
    dtype: "F32",
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => random.normal()),
  });
  const builder = new GraphBuilder("block");
  const feeds: Record<string, HostTensor> = { x: normal(96, 64), scale: normal(64), q: normal(64, 64), d: normal(64, 64) };
  for (const [name, { shape }] of Object.entries(feeds)) builder.input(name, "F32", shape);
  const normed = builder.op("RMSNormalization", ["x", "scale"]);
  const rows = builder.op("Unsqueeze", [builder.op("Gemm", [normed, "q"], { transB: 1 }), builder.int64([0])]);
  const mixed = builder.op("Attention", [rows, rows, rows], { is_causal: 1, q_num_heads: 4, kv_num_heads: 4 });
  const graph = builder.build([builder.op("Gemm", [builder.op("Squeeze", [mixed, builder.int64([0])]), "d"], { transB: 1 }, "y")]);
  const results: unknown[] = [];
  for (const threads of [1, 2]) {
    const own = await createEngine("onnxruntime", { threads });
    results.push((await (await own.compile(graph)).run(feeds))["y"]);
    await own.close();
  }
  expect(results[1]).toEqual(results[0]);
});

describe("createEngine", () => {
  test("refuses unknown names and impossible thread counts", async () => {
    await expect(createEngine("torch" as "auto")).rejects.toMatchObject({
      code: "input.option",
      message: expect.stringMatching(/onnxruntime-web/) as unknown,
    });
    await expect(createEngine("onnxruntime", { threads: 0 })).rejects.toMatchObject({ code: "input.option" });
  });

  test("says which runtime and how many threads", async () => {
    expect(engine.description).toMatch(/^onnxruntime-node \d+\.\d+\.\d+, 1 thread$/);
  });

  test("refuses a device the runtime lacks, in place of another", async () => {
    await expect(createEngine("auto", { device: "cuda" })).rejects.toMatchObject({
      code: "unsupported.backend",
      details: { device: "cuda" },
    });
  });
});
