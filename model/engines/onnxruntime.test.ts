import { expect, test } from "vitest";
import { GraphBuilder } from "../graph/builder.ts";
import { createEngine } from "./index.ts";

test("weights are fed as inputs, and any value can be tapped", async () => {
  const engine = await createEngine("onnxruntime");
  const builder = new GraphBuilder("linear");
  builder.input("x", "F32", ["n", 2]);
  builder.weight("w", [3, 2]);
  builder.op("Gemm", ["x", "w"], { transB: 1 }, "y");
  builder.op("Relu", ["y"], {}, "z");
  const compiled = await engine.compile(builder.build(["z"]), { outputs: ["z", "y"] });
  const result = await compiled.run({
    x: { dtype: "F32", shape: [1, 2], data: Float32Array.of(1, 2) },
    w: { dtype: "F32", shape: [3, 2], data: Float32Array.of(1, 0, 0, 1, -1, -1) },
  });
  expect(result["y"]).toEqual({ dtype: "F32", shape: [1, 3], data: Float32Array.of(1, 2, -3) });
  expect(result["z"]).toEqual({ dtype: "F32", shape: [1, 3], data: Float32Array.of(1, 2, 0) });
  await engine.close();
});
