import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openOnnx } from "../../../formats/containers/onnx/read.ts";
import { readFloat32 } from "../../../formats/containers/onnx/tensor.ts";
import { quantize } from "../../quantize.ts";

test("signed weights: no pair of products with codes of tokens leaves 16 signed bits", async () => {
  const out = await mkdtemp(join(tmpdir(), "bitwright-tokens-"));
  try {
    const recipe = { method: ["rtn"], scheme: { weights: "int8" } };
    await quantize("fixtures/onnx/zoo/encoder-torchscript-17.onnx", { recipe, out: join(out, "a") });
    const model = await openOnnx(join(out, "a", "encoder-torchscript-17.onnx"));
    const { nodes, initializers } = model.graph;
    const weights = nodes.filter(({ op }) => op === "MatMulIntegerToFloat").map(({ inputs }) => initializers.get(inputs[1]!)!);
    let most = 0;
    for (const tensor of weights) {
      expect(tensor.dtype).toBe("I8");
      const bytes = await tensor.read();
      const codes = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const [rows, cols] = tensor.shape as [number, number];
      for (let k = 0; k + 1 < rows; k += 2)
        for (let n = 0; n < cols; n++) most = Math.max(most, Math.abs(codes[k * cols + n]! + codes[(k + 1) * cols + n]!));
    }
    const steps = [...initializers].filter(([name]) => name.startsWith("token_share"));
    const tops = await Promise.all(steps.map(async ([, tensor]) => 1 / (await readFloat32(tensor))[0]!));
    await model.close();
    expect(weights.length).toBeGreaterThan(0);
    expect(tops.length).toBeGreaterThan(0);
    expect(most * Math.max(...tops)).toBeLessThanOrEqual(32767.01);
  } finally {
    await rm(out, { recursive: true, force: true });
  }
});
