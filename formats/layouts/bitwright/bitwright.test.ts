import { describe, expect, test } from "vitest";
import { bfp, blockScheme, NVFP4, parseBlockFormat } from "../../../core/blocks/format.ts";
import { dequantizeBlocks, quantizeBlocks } from "../../../core/blocks/quantize.ts";
import type { QuantizedTensor } from "../../../core/quantized.ts";
import { createRandom } from "../../../core/random.ts";
import { scaleShape, type QuantScheme } from "../../../core/scheme.ts";
import type { LazyTensor, Tensor } from "../../../core/tensor.ts";
import { bitwrightConfig, bitwrightTensors, encodeBitwright, readBitwrightModules, type BitwrightModule } from "./bitwright.ts";
import { parseBitwrightConfig } from "./config.ts";

const random = createRandom(9);
const [rows, cols] = [5, 50];
const values = Float32Array.from({ length: rows * cols }, () => random.normal());

const lazy = (tensors: ReadonlyMap<string, Tensor>): Map<string, LazyTensor> =>
  new Map(
    [...tensors].map(([name, tensor]) => [
      name,
      { name, dtype: tensor.dtype, shape: tensor.shape, byteLength: tensor.bytes.byteLength, read: () => Promise.resolve(tensor) },
    ]),
  );
const moduleOf = (weight: QuantScheme, more: Partial<BitwrightModule> = {}): BitwrightModule => ({
  name: "model.layers.0.q_proj",
  shape: [rows, cols],
  channelAxis: 0,
  weight,
  activations: {},
  ...more,
});
const through = (json: unknown): unknown => JSON.parse(JSON.stringify(json));

/** Random codes of a plain scheme, and what they mean by the house's formula. */
function plain(scheme: QuantScheme): { quantized: QuantizedTensor; expected: Float32Array } {
  const bits = scheme.format.kind === "int" ? scheme.format.bits : 8;
  const shape = scaleShape(scheme.granularity, rows, cols);
  const count = shape.reduce((product, n) => product * n, 1);
  const scales = Float32Array.from({ length: count }, () => 2 ** (random.below(8) - 8));
  const isAsymmetric = scheme.format.kind === "int" && !scheme.format.symmetric;
  const zeros = isAsymmetric ? Float32Array.from({ length: count }, () => random.below(2 ** bits) - 2 ** (bits - 1)) : undefined;
  const draw = () => random.below(2 ** bits) - 2 ** (bits - 1);
  const data = bits <= 8 ? Int8Array.from(values, draw) : Int16Array.from(values, draw);
  const perRow = shape[1] ?? 1;
  const group = scheme.granularity.kind === "group" ? scheme.granularity.size : cols;
  const at = (i: number): number => (count === 1 ? 0 : Math.floor(i / cols) * perRow + Math.floor((i % cols) / group));
  return {
    quantized: {
      shape: [rows, cols],
      channelAxis: 0,
      scheme,
      codes: data instanceof Int8Array ? { kind: "i8", data } : { kind: "i16", data },
      scales,
      ...(zeros === undefined ? {} : { zeros }),
    },
    expected: Float32Array.from(data, (code, i) => (code - (zeros?.[at(i)] ?? 0)) * scales[at(i)]!),
  };
}
const int = (bits: number, symmetric: boolean, granularity: QuantScheme["granularity"]): QuantScheme => ({
  format: { kind: "int", bits, symmetric },
  granularity,
  timing: "static",
  scale: "bf16",
  dialect: "awq",
});

describe("what is written is read back", () => {
  const blocks = [
    bfp(2),
    bfp(4),
    bfp(4, 7),
    bfp(8, 64),
    bfp(11),
    bfp(16),
    ...["mxint8", "mxfp8", "mxfp8-e5m2", "mxfp6", "mxfp6-e3m2", "mxfp4"].map((name) => parseBlockFormat(name)!),
    NVFP4,
  ];
  test.each(blocks)("$name, blocks of $block", async (format) => {
    const quantized = quantizeBlocks(values, rows, cols, format);
    for (const channelAxis of [0, 1] as const) {
      const module = moduleOf(quantized.scheme, { channelAxis, shape: channelAxis === 0 ? [rows, cols] : [cols, rows] });
      const encoded = encodeBitwright(module, quantized);
      expect([...encoded].map(([name, { dtype, shape }]) => [name, dtype, shape])).toEqual(
        bitwrightTensors(module).map(({ name, dtype, shape }) => [name, dtype, shape]),
      );
      const [read] = readBitwrightModules(lazy(encoded), through(bitwrightConfig([module])));
      expect(await read!.readQuantized()).toEqual(quantized);
      const expected = dequantizeBlocks(quantized);
      const found = await read!.readFloat();
      if (channelAxis === 0) expect(found).toEqual(expected);
      else for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) expect(found[c * rows + r]).toBe(expected[r * cols + c]);
    }
  });

  test.each([2, 3, 4, 5, 7, 8, 9, 12, 16])("int%i per channel, in groups and per tensor, with and without zero points", async (bits) => {
    for (const symmetric of [true, false]) {
      for (const granularity of [{ kind: "channel" }, { kind: "tensor" }, { kind: "group", size: 16 }] as const) {
        const { quantized, expected } = plain(int(bits, symmetric, granularity));
        const module = moduleOf(quantized.scheme);
        const [read] = readBitwrightModules(lazy(encodeBitwright(module, quantized)), through(bitwrightConfig([module])));
        expect(await read!.readQuantized()).toEqual(quantized);
        expect(await read!.readFloat()).toEqual(expected);
      }
    }
  });

  test("codes counted from 0 come back as signed ones that mean the same", async () => {
    const { quantized, expected } = plain(int(4, false, { kind: "group", size: 16 }));
    const unsigned: QuantizedTensor = {
      ...quantized,
      codes: { kind: "u8", data: Uint8Array.from(quantized.codes.data, (code) => code + 8) },
      zeros: quantized.zeros!.map((zero) => zero + 8),
    };
    const module = moduleOf(quantized.scheme);
    const [read] = readBitwrightModules(lazy(encodeBitwright(module, unsigned)), through(bitwrightConfig([module])));
    expect(await read!.readQuantized()).toEqual(quantized);
    expect(await read!.readFloat()).toEqual(expected);
  });

  test("schemes of activations, their numbers, and names that objects reserve", () => {
    const weight = blockScheme(bfp(4));
    const modules = [
      moduleOf(weight, { name: "__proto__", activations: { input: { scheme: blockScheme(NVFP4, "dynamic"), globalScale: 12.5 } } }),
      moduleOf(weight, {
        name: "constructor",
        activations: { output: { scheme: int(8, true, { kind: "tensor" }), scale: 0.25, zero: 3 } },
      }),
      moduleOf(blockScheme(bfp(4), "static", "mse"), { name: "a" }),
    ];
    expect(parseBitwrightConfig(through(bitwrightConfig(modules, { note: 1 })))).toEqual(modules);
  });
});

test("known bytes: BFP12 two mantissas a byte, first in the low nibble, exponent bytes 127 + floor(log2 max)", () => {
  const quantized = quantizeBlocks(Float32Array.of(1, -1, 0.5, 1.75, -1.75, 0.25), 1, 6, bfp(4, 4));
  const encoded = encodeBitwright(moduleOf(quantized.scheme, { shape: [1, 6] }), quantized);
  // 4, −4, 2, 7 in steps of 1/4; −7, 1.
  expect([...encoded.get("model.layers.0.q_proj.weight.codes")!.bytes]).toEqual([0xc4, 0x72, 0x19]);
  expect([...encoded.get("model.layers.0.q_proj.weight.scales")!.bytes]).toEqual([127, 127]);
});

describe("refused", () => {
  const quantized = quantizeBlocks(values, rows, cols, bfp(4));
  const module = moduleOf(quantized.scheme);
  const config = bitwrightConfig([module]) as { modules: Record<string, unknown>[]; schemes: Record<string, unknown>[] };
  const encoded = encodeBitwright(module, quantized);
  test("missing tensors and tensors of another shape or dtype, by name", () => {
    for (const name of encoded.keys()) {
      const without = lazy(encoded);
      without.delete(name);
      expect(() => readBitwrightModules(without, config)).toThrow(expect.objectContaining({ code: "format.missing" }));
      const other = lazy(encoded);
      other.set(name, { ...other.get(name)!, shape: [rows, 1] });
      expect(() => readBitwrightModules(other, config)).toThrow(expect.objectContaining({ code: "format.field" }));
    }
  });
  test.each([
    ["a later version", { ...config, version: 2 }, "unsupported.format"],
    ["no modules", { quant_method: "bitwright", version: 1 }, "format.config"],
    ["a scheme that is not there", { ...config, schemes: [] }, "format.config"],
    [
      "mantissas of 17 bits",
      { ...config, schemes: [{ ...config.schemes[0], format: { kind: "bfp", mantissaBits: 17 } }] },
      "format.config",
    ],
    ["dynamic weights", { ...config, schemes: [{ ...config.schemes[0], timing: "dynamic" }] }, "format.config"],
    ["BFP with float scales", { ...config, schemes: [{ ...config.schemes[0], scale: "f32" }] }, "format.config"],
    ["a module twice", { ...config, modules: [config.modules[0], config.modules[0]] }, "format.duplicate"],
    ["a shape beyond any memory", { ...config, modules: [{ ...config.modules[0], shape: [1e9, 1e9] }] }, "format.config"],
    ["keys nobody knows", { ...config, modules: [{ ...config.modules[0], more: 1 }] }, "format.config"],
  ])("%s", (_, wrong, code) => {
    expect(() => readBitwrightModules(lazy(encoded), wrong)).toThrow(expect.objectContaining({ code }));
  });
  test("schemes and scales that cannot be written", () => {
    expect(() => bitwrightTensors(moduleOf({ ...int(4, true, { kind: "channel" }), scale: "model" }))).toThrow(
      expect.objectContaining({ code: "unsupported.scheme" }),
    );
    expect(() => encodeBitwright(module, { ...quantized, scales: quantized.scales.map((scale) => scale * 1.5) })).toThrow(
      expect.objectContaining({ code: "input.value" }),
    );
    const nv = quantizeBlocks(values, rows, cols, NVFP4);
    const { globalScale: _, ...without } = nv;
    expect(() => encodeBitwright(moduleOf(nv.scheme), without)).toThrow(expect.objectContaining({ code: "input.no-data" }));
  });
});
