import { describe, expect, test } from "vitest";
import { bfp, blockScheme, NVFP4, parseBlockFormat } from "../../../core/blocks/format.ts";
import { dequantizeBlocks, quantizeBlocks } from "../../../core/blocks/quantize.ts";
import { createRandom } from "../../../core/random.ts";
import type { LazyTensor, Tensor } from "../../../core/tensor.ts";
import { parseQuantizationConfig } from "./config.ts";
import { quantizationConfig } from "./groups.ts";
import { readModules } from "./read.ts";
import { canHold, encodeModule, moduleTensors, type Site } from "./write.ts";

const random = createRandom(2);
const [rows, cols] = [6, 64];
const values = Float32Array.from({ length: rows * cols }, () => random.normal());
const mxfp4 = parseBlockFormat("mxfp4")!;
const mxfp8 = parseBlockFormat("mxfp8")!;

const lazy = (name: string, tensor: Tensor): LazyTensor => ({
  name,
  dtype: tensor.dtype,
  shape: tensor.shape,
  byteLength: tensor.bytes.byteLength,
  read: () => Promise.resolve(tensor),
});

describe.each([mxfp4, mxfp8, NVFP4])("$name", (format) => {
  const quantized = quantizeBlocks(values, rows, cols, format);
  const input = blockScheme(format, "dynamic", format === NVFP4 ? undefined : "even");
  const site: Site = { weight: quantized.scheme, input, rows, cols, ...(format === NVFP4 ? { inputGlobalScale: 12.5 } : {}) };

  test("weights and activations written are read back: codes, scales, divisors, schemes", async () => {
    const encoded = encodeModule("a", quantized, site);
    expect([...encoded].map(([name, { dtype, shape }]) => [name, dtype, shape])).toEqual(
      moduleTensors("a", site, "BF16").map(({ name, dtype, shape }) => [name, dtype, shape]),
    );
    const config = parseQuantizationConfig(quantizationConfig([{ module: "a", weight: site.weight, input }], []));
    const modules = await readModules(new Map([...encoded].map(([name, tensor]) => [name, lazy(name, tensor)])), config);
    const read = await modules.get("a")!.readQuantized();
    expect(read).toEqual(quantized);
    expect(await modules.get("a")!.readFloat()).toEqual(dequantizeBlocks(quantized));
    expect(modules.get("a")!.activations.input).toEqual({ scheme: input, ...(format === NVFP4 ? { globalScale: 12.5 } : {}) });
  });

  test("columns that blocks do not divide, outputs, other activations and static ones are refused with what is nearest", () => {
    expect(canHold({ ...site, cols: 72 })).toMatchObject({ ok: false, reason: expect.stringContaining("do not divide 72") as string });
    expect(canHold({ ...site, output: input })).toMatchObject({ ok: false });
    expect(canHold({ ...site, input: blockScheme(bfp(8), "dynamic") })).toMatchObject({ ok: false });
    expect(canHold({ ...site, input: { ...input, timing: "static" } })).toMatchObject({ ok: false });
    expect(canHold(site)).toMatchObject({ ok: true });
  });

  test("damaged scales and shapes are refused by name", async () => {
    const encoded = encodeModule("a", quantized, site);
    const config = parseQuantizationConfig(quantizationConfig([{ module: "a", weight: site.weight, input }], []));
    for (const [name, tensor] of encoded) {
      const cut = { ...tensor, shape: tensor.shape.length === 1 ? [2] : [rows, tensor.shape[1]! - 1] };
      const tensors = new Map([...encoded].map(([other, kept]) => [other, lazy(other, other === name ? cut : kept)]));
      await expect(readModules(tensors, config)).rejects.toThrow(name);
      tensors.delete(name);
      if (/weight|packed/.test(name) && !/scale/.test(name)) continue;
      await expect(readModules(tensors, config)).rejects.toMatchObject({ code: "format.missing" });
    }
  });
});

test("formats without a spelling are refused, and a rule that loaders do not follow", () => {
  for (const format of [bfp(4), bfp(8), parseBlockFormat("mxint8")!, parseBlockFormat("mxfp6")!, parseBlockFormat("mxfp8-e5m2")!]) {
    expect(canHold({ weight: blockScheme(format), rows, cols })).toMatchObject({
      ok: false,
      nearest: expect.stringContaining("bitwright") as string,
    });
  }
  expect(canHold({ weight: blockScheme(mxfp4), input: blockScheme(mxfp4, "dynamic", "floor"), rows, cols })).toMatchObject({
    ok: false,
    nearest: "scale=even",
  });
});

test("a divisor that is not positive is refused on both ways", async () => {
  const quantized = quantizeBlocks(values, rows, cols, NVFP4);
  const site: Site = { weight: quantized.scheme, rows, cols };
  const { globalScale: _, ...without } = quantized;
  expect(() => encodeModule("a", without, site)).toThrow("global scale");
  const encoded = encodeModule("a", quantized, site);
  const config = parseQuantizationConfig(quantizationConfig([{ module: "a", weight: site.weight }], []));
  const zero = encoded.get("a.weight_global_scale")!;
  zero.bytes.fill(0);
  const modules = await readModules(new Map([...encoded].map(([name, tensor]) => [name, lazy(name, tensor)])), config);
  await expect(modules.get("a")!.readFloat()).rejects.toMatchObject({ code: "format.field" });
});
