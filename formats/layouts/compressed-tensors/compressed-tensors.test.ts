import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import type { DType } from "../../../core/dtype.ts";
import { FormatError, InputError, UnsupportedError } from "../../../core/errors.ts";
import { createRandom } from "../../../core/random.ts";
import type { QuantizedTensor } from "../../../core/quantized.ts";
import { scaleShape, type QuantScheme } from "../../../core/scheme.ts";
import { tensorOf, toFloat32, type LazyTensor, type Tensor } from "../../../core/tensor.ts";
import { openCheckpoint, parseConfig, type Checkpoint } from "../../checkpoint.ts";
import { encodeSafetensors } from "../../containers/safetensors/write.ts";
import { openSafetensors } from "../../containers/safetensors/read.ts";
import { memorySource } from "../../containers/bytes.ts";
import { findLayout } from "../index.ts";
import { parseQuantizationConfig } from "./config.ts";
import { quantizationConfig, type ConfigSite } from "./groups.ts";
import { readModules, type StoredModule } from "./read.ts";
import { canHold, encodeModule, moduleTensors, type Site } from "./write.ts";

const FIXTURES = "fixtures/compressed-tensors";
const ARTIFACTS = ["w8a8-dynamic", "w8a8-static", "w4a16", "w4a16-asym", "fp8-dynamic", "fp8-static", "nvfp4", "mxfp4a16"];

const scratch = mkdtempSync(join(tmpdir(), "bitwright-ct-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Layer 0 of an artifact as a model directory, through links as in the hub's cache. */
async function openArtifact(name: string): Promise<Checkpoint> {
  const directory = mkdtempSync(join(scratch, `${name}-`));
  symlinkSync(join(process.cwd(), FIXTURES, name, "layer0.safetensors"), join(directory, "model.safetensors"));
  symlinkSync(join(process.cwd(), FIXTURES, name, "config.json"), join(directory, "config.json"));
  return openCheckpoint(directory);
}

async function modulesOf(checkpoint: Checkpoint): Promise<ReadonlyMap<string, StoredModule>> {
  return readModules(checkpoint.tensors, parseQuantizationConfig(checkpoint.config?.["quantization_config"]));
}

function siteOf({ weight, activations, rows, cols }: StoredModule): Site {
  const { input, output } = activations;
  return {
    weight,
    rows,
    cols,
    ...(input === undefined ? {} : { input: input.scheme }),
    ...(output === undefined ? {} : { output: output.scheme }),
    ...(input?.scale === undefined ? {} : { inputScale: input.scale }),
    ...(input?.zero === undefined ? {} : { inputZero: input.zero }),
    ...(input?.globalScale === undefined ? {} : { inputGlobalScale: input.globalScale }),
  };
}

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

describe("artifacts of llm-compressor", () => {
  test.each(ARTIFACTS)("%s: codes and scales read, written again, are the official bytes", async (name) => {
    const checkpoint = await openArtifact(name);
    const listed = JSON.parse(readFileSync(join(FIXTURES, name, "tensors.json"), "utf8")) as Record<
      string,
      { dtype: string; shape: number[]; sha256: string }
    >;
    const modules = await modulesOf(checkpoint);
    expect(modules.size).toBe(7);
    for (const [module, stored] of modules) {
      const site = siteOf(stored);
      const encoded = encodeModule(module, await stored.readQuantized(), site);
      expect([...encoded.keys()].toSorted()).toEqual([...stored.names].toSorted());
      for (const [tensor, { dtype, shape, bytes }] of encoded) {
        expect({ tensor, dtype, shape: [...shape], sha256: sha256(bytes) }).toEqual({ tensor, ...listed[tensor]! });
      }
      const specs = moduleTensors(module, site, "BF16").map(({ name: tensor, dtype, shape }) => [tensor, dtype, [...shape]]);
      expect(specs).toEqual([...encoded].map(([tensor, { dtype, shape }]) => [tensor, dtype, [...shape]]));
    }
    await checkpoint.close();
  });

  test.each(ARTIFACTS)("%s: our config says the same as the official one", async (name) => {
    const checkpoint = await openArtifact(name);
    const sites = [...(await modulesOf(checkpoint))].map(([module, stored]) => ({ module, ...siteOf(stored) }));
    const official = checkpoint.config!["quantization_config"] as Record<string, any>;
    const ours = quantizationConfig(sites, ["lm_head"]) as Record<string, any>;
    for (const key of ["quant_method", "format", "quantization_status", "global_compression_ratio", "kv_cache_scheme", "ignore"]) {
      expect({ [key]: ours[key] }).toEqual({ [key]: official[key] });
    }
    // Observers are history; dtypes of scales and zero points are left out for older readers.
    const comparable = (group: Record<string, any>): unknown => {
      const strip = (args: Record<string, unknown> | null): unknown => {
        if (args === null) return null;
        const { observer: _o, observer_kwargs: _k, scale_dtype: _s, zp_dtype: _z, ...rest } = args;
        return rest;
      };
      return {
        ...group,
        weights: strip(group["weights"]),
        input_activations: strip(group["input_activations"]),
        output_activations: strip(group["output_activations"]),
      };
    };
    expect(Object.keys(ours["config_groups"])).toEqual(["group_0"]);
    expect(comparable(ours["config_groups"]["group_0"])).toEqual(comparable(official["config_groups"]["group_0"]));
    expect(parseQuantizationConfig(ours).groups).toHaveLength(1);
    await checkpoint.close();
  });

  test("the layout gives float names, lazily dequantized weights and activation schemes", async () => {
    const checkpoint = await openArtifact("w8a8-static");
    const reading = await findLayout(checkpoint.config)!.read(checkpoint);
    expect(reading.format).toBe("int-quantized");
    expect([...reading.tensors.keys()].filter((name) => /scale|packed|zero_point|weight_shape/.test(name))).toEqual([]);
    const weight = reading.tensors.get("model.layers.0.self_attn.q_proj.weight")!;
    expect([weight.dtype, weight.shape, weight.byteLength]).toEqual(["F32", [256, 256], 256 * 256 * 4]);
    const codes = await checkpoint.tensors.get("model.layers.0.self_attn.q_proj.weight")!.read();
    const scale = toFloat32(await checkpoint.tensors.get("model.layers.0.self_attn.q_proj.weight_scale")!.read())[0]!;
    const expected = Float32Array.from(new Int8Array(codes.bytes.buffer), (code) => code * scale);
    expect(toFloat32(await weight.read())).toEqual(expected);
    const activation = reading.activations.get("model.layers.0.mlp.down_proj")!.input!;
    expect(activation.scheme).toMatchObject({
      format: { kind: "int", bits: 8, symmetric: true },
      granularity: { kind: "tensor" },
      timing: "static",
    });
    const stored = await checkpoint.tensors.get("model.layers.0.mlp.down_proj.input_scale")!.read();
    expect(activation.scale).toBe(toFloat32(stored)[0]);
    await checkpoint.close();
  });

  test.each([
    ["w8a8-dynamic", 0.5 / 127.5],
    ["w4a16", 0.5 / 7.5],
    ["w4a16-asym", 1 / 15],
    ["fp8-dynamic", 2 ** -4],
    ["fp8-static", 2 ** -4],
  ])("%s: weights lie within one step of the source model's", async (name, relative) => {
    const checkpoint = await openArtifact(name);
    const source = await openCheckpoint("fixtures/models/tiny-llama");
    const reading = await findLayout(checkpoint.config)!.read(checkpoint);
    for (const module of reading.weights.keys()) {
      const ours = toFloat32(await reading.tensors.get(`${module}.weight`)!.read());
      const theirs = toFloat32(await source.tensors.get(`${module}.weight`)!.read());
      const largest = theirs.reduce((most, w) => Math.max(most, Math.abs(w)), 0);
      const worst = ours.reduce((most, w, i) => Math.max(most, Math.abs(w - theirs[i]!)), 0);
      // One step of the largest scale there is, plus what bf16 arithmetic may add.
      expect(worst / largest).toBeLessThan(2 * relative * 1.01);
    }
    await Promise.all([checkpoint.close(), source.close()]);
  });
});

const MODULE = "model.layers.0.self_attn.o_proj";
const scheme = (part: Partial<QuantScheme> & Pick<QuantScheme, "format" | "granularity">): QuantScheme => ({
  timing: "static",
  scale: "f32",
  dialect: "compressed-tensors",
  ...part,
});
const int = (bits: number, symmetric = true): QuantScheme["format"] => ({ kind: "int", bits, symmetric });
const E4M3: QuantScheme["format"] = { kind: "float", format: "e4m3" };
const token = (format: QuantScheme["format"]): QuantScheme => scheme({ format, granularity: { kind: "token" }, timing: "dynamic" });

function randomQuantized(weight: QuantScheme, rows: number, cols: number, seed: number): QuantizedTensor {
  const random = createRandom(seed);
  const count = scaleShape(weight.granularity, rows, cols).reduce((a, b) => a * b, 1);
  const scales = Float32Array.from({ length: count }, () => 2 ** -(1 + random.below(8)));
  const { format } = weight;
  if (format.kind !== "int") {
    const data = Uint8Array.from({ length: rows * cols }, () => random.below(127) + 128 * random.below(2));
    return { shape: [rows, cols], channelAxis: 0, scheme: weight, codes: { kind: "u8", data }, scales };
  }
  const half = 2 ** (format.bits - 1);
  const code = (): number => random.below(2 * half) - half;
  const data = Int8Array.from({ length: rows * cols }, code);
  const zeros = format.symmetric ? {} : { zeros: Float32Array.from({ length: count }, code) };
  return { shape: [rows, cols], channelAxis: 0, scheme: weight, codes: { kind: "i8", data }, scales, ...zeros };
}

/** Write one module and its config, read both back. */
async function throughFile(site: Site, quantized: QuantizedTensor, scaleDType: DType = "F32"): Promise<StoredModule> {
  const bytes = encodeSafetensors(encodeModule(MODULE, quantized, site, scaleDType));
  const file = await openSafetensors(memorySource("module", bytes));
  const config = JSON.parse(JSON.stringify(quantizationConfig([{ module: MODULE, ...site }], [])));
  return (await readModules(file.tensors, parseQuantizationConfig(config))).get(MODULE)!;
}

describe("every scheme it can hold comes back as it was", () => {
  const [rows, cols] = [37, 96];
  const weights: QuantScheme[] = [
    ...[2, 3, 4, 5, 6, 7, 8].flatMap((bits) =>
      [true, false].flatMap((symmetric) => [
        scheme({ format: int(bits, symmetric), granularity: { kind: "group", size: 32 } }),
        scheme({ format: int(bits, symmetric), granularity: { kind: "channel" } }),
        scheme({ format: int(bits, symmetric), granularity: { kind: "tensor" } }),
      ]),
    ),
    scheme({ format: E4M3, granularity: { kind: "tensor" } }),
    scheme({ format: E4M3, granularity: { kind: "channel" } }),
    scheme({ format: E4M3, granularity: { kind: "block", rows: 16, cols: 64 } }),
  ];
  const cases = weights.flatMap((weight) =>
    [undefined, token(weight.format.kind === "int" ? int(8) : E4M3)].map((input) => ({
      weight,
      ...(input === undefined ? {} : { input }),
    })),
  );
  test.each(cases)("%j", async ({ weight, input }) => {
    const site: Site = { weight, rows, cols, ...(input === undefined ? {} : { input }) };
    const quantized = randomQuantized(weight, rows, cols, 7);
    const stored = await throughFile(site, quantized);
    const back = await stored.readQuantized();
    expect(back.codes).toEqual(quantized.codes);
    expect(back.scales).toEqual(quantized.scales);
    expect(back.zeros).toEqual(quantized.zeros);
    expect(stored.weight).toEqual(weight);
    expect(stored.activations.input?.scheme.granularity).toEqual(input?.granularity);
    const holding = canHold(site);
    expect(holding).toMatchObject({ ok: true, format: stored.format });
  });

  test("w = (code - zero) * scale, each by its own group", async () => {
    const weight = scheme({ format: int(4, false), granularity: { kind: "group", size: 32 } });
    const quantized = randomQuantized(weight, 3, 64, 3);
    const stored = await throughFile({ weight, rows: 3, cols: 64 }, quantized);
    const floats = await stored.readFloat();
    for (let r = 0; r < 3; r++) {
      for (let c = 0; c < 64; c++) {
        const g = 2 * r + (c < 32 ? 0 : 1);
        expect(floats[64 * r + c]).toBe((quantized.codes.data[64 * r + c]! - quantized.zeros![g]!) * quantized.scales[g]!);
      }
    }
  });

  test("unsigned codes and zero points move down together", async () => {
    const weight = scheme({ format: int(4, false), granularity: { kind: "channel" } });
    const signed = randomQuantized(weight, 4, 32, 5);
    const unsigned: QuantizedTensor = {
      ...signed,
      codes: { kind: "u8", data: Uint8Array.from(signed.codes.data, (code) => code + 8) },
      zeros: signed.zeros!.map((zero) => zero + 8),
    };
    const site: Site = { weight, rows: 4, cols: 32 };
    expect(encodeModule(MODULE, unsigned, site)).toEqual(encodeModule(MODULE, signed, site));
  });

  test("static asymmetric inputs keep scale and zero point", async () => {
    const weight = scheme({ format: int(8), granularity: { kind: "channel" } });
    const input = scheme({ format: int(8, false), granularity: { kind: "tensor" } });
    const site: Site = { weight, input, rows: 4, cols: 32, inputScale: 0.25, inputZero: -7 };
    const stored = await throughFile(site, randomQuantized(weight, 4, 32, 5));
    expect(stored.activations.input).toMatchObject({ scale: 0.25, zero: -7 });
    const quantized = randomQuantized(weight, 4, 32, 5);
    expect(() => encodeModule(MODULE, quantized, { ...site, inputZero: 3.5 })).toThrow(/zero point 3.5/);
    expect(() => encodeModule(MODULE, quantized, { ...site, inputZero: 128 })).toThrow(/zero point 128/);
    const { inputScale: _, ...unscaled } = site;
    expect(() => encodeModule(MODULE, quantized, unscaled)).toThrow(/need a scale/);
    expect(stored.names.toSorted()).toEqual(
      ["input_scale", "input_zero_point", "weight", "weight_scale"].map((suffix) => `${MODULE}.${suffix}`),
    );
  });

  test("columns in another order follow weight_g_idx", async () => {
    const weight = scheme({ format: int(4), granularity: { kind: "group", size: 32 } });
    const quantized = randomQuantized(weight, 2, 64, 9);
    const groups = Int32Array.from({ length: 64 }, (_, c) => c % 2);
    const tensors = new Map(encodeModule(MODULE, quantized, { weight, rows: 2, cols: 64 }));
    tensors.set(`${MODULE}.weight_g_idx`, tensorOf(groups, [64]));
    const file = await openSafetensors(memorySource("module", encodeSafetensors(tensors)));
    const config = parseQuantizationConfig(quantizationConfig([{ module: MODULE, weight }], []));
    const stored = (await readModules(file.tensors, config)).get(MODULE)!;
    const floats = await stored.readFloat();
    expect(floats[64 + 33]).toBe(quantized.codes.data[64 + 33]! * quantized.scales[2 + 1]!);
    expect(floats[64 + 32]).toBe(quantized.codes.data[64 + 32]! * quantized.scales[2]!);
    await expect(stored.readQuantized()).rejects.toThrow(UnsupportedError);
  });
});

describe("what cannot be held is refused with the nearest that can", () => {
  const base = { rows: 64, cols: 96 };
  test.each([
    ["groups that do not divide", { ...base, weight: scheme({ format: int(4), granularity: { kind: "group", size: 128 } }) }, "group 32"],
    ["Conv1D", { ...base, channelAxis: 1 as const, weight: scheme({ format: int(8), granularity: { kind: "channel" } }) }, /ignore/],
    ["wide integers", { ...base, weight: scheme({ format: int(12), granularity: { kind: "channel" } }) }, "int8"],
    ["other floats", { ...base, weight: scheme({ format: { kind: "float", format: "e5m2" }, granularity: { kind: "channel" } }) }, "e4m3"],
    [
      "block floating point",
      { ...base, weight: scheme({ format: { kind: "bfp", mantissaBits: 8 }, granularity: { kind: "channel" } }) },
      /bitwright/,
    ],
    [
      "float inputs of integer weights",
      { ...base, weight: scheme({ format: int(8), granularity: { kind: "channel" } }), input: token(E4M3) },
      /int/,
    ],
    [
      "static token scales",
      {
        ...base,
        weight: scheme({ format: int(8), granularity: { kind: "channel" } }),
        input: scheme({ format: int(8), granularity: { kind: "token" } }),
      },
      /tensor/,
    ],
  ])("%s", (_, site: Site, nearest) => {
    const holding = canHold(site);
    expect(holding.ok).toBe(false);
    expect(holding.ok ? "" : holding.nearest).toMatch(nearest);
    expect(() => moduleTensors(MODULE, site, "BF16")).toThrow(UnsupportedError);
  });

  test("scales that the stored dtype would change, codes and zero points out of range", () => {
    const weight = scheme({ format: int(4, false), granularity: { kind: "channel" }, scale: "bf16" });
    const site: Site = { weight, rows: 2, cols: 8 };
    const good = { ...randomQuantized(weight, 2, 8, 1), scales: Float32Array.of(0.5, 0.25) };
    expect(encodeModule(MODULE, good, site).size).toBe(4);
    expect(() => encodeModule(MODULE, { ...good, scales: Float32Array.of(0.1, 0.5) }, site)).toThrow(InputError);
    expect(() => encodeModule(MODULE, { ...good, zeros: Float32Array.of(0.5, 0) }, site)).toThrow(/zero point 0.5/);
    expect(() => encodeModule(MODULE, { ...good, zeros: Float32Array.of(8, 0) }, site)).toThrow(/zero point 8/);
    expect(() => encodeModule(MODULE, { ...good, codes: { kind: "i8", data: new Int8Array(16).fill(8) } }, site)).toThrow(/code 8/);
    expect(() => encodeModule(MODULE, { ...good, shape: [8, 2] }, site)).toThrow(/\[8,2\]/);
  });
});

describe("config groups", () => {
  const w8 = scheme({ format: int(8), granularity: { kind: "channel" } });
  const w4 = scheme({ format: int(4), granularity: { kind: "group", size: 32 } });
  const layer = (i: number): string[] =>
    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"].map(
      (name) => `model.layers.${i}.${name}`,
    );
  const w8a8 = (module: string): ConfigSite => ({ module, weight: w8, input: token(int(8)) });

  test("weight-only sites of a W8A8 artifact are a second group, pack-quantized", () => {
    const sites = [...layer(0), ...layer(1)].map((module) =>
      module === "model.layers.1.mlp.down_proj" ? { module, weight: w8 } : w8a8(module),
    );
    const config = quantizationConfig(sites, ["lm_head"]);
    expect(config["format"]).toBe("mixed-precision");
    expect(config["config_groups"]).toMatchObject({
      group_0: { targets: ["Linear"], format: "int-quantized", input_activations: { strategy: "token", dynamic: true } },
      group_1: { targets: ["model.layers.1.mlp.down_proj"], format: "pack-quantized", input_activations: null },
    });
  });

  test("shards of fused layers in the second group: every group lists its modules, since vLLM asks for the class first", () => {
    const sites = [...layer(0), ...layer(1)].map((module) =>
      /layers\.1\..*[qkv]_proj$/.test(module) ? { module, weight: w8 } : w8a8(module),
    );
    const { config_groups: groups } = quantizationConfig(sites, []) as { config_groups: Record<string, { targets: string[] }> };
    expect(groups["group_0"]!.targets).toHaveLength(11);
    expect(groups["group_1"]!.targets).toEqual(layer(1).slice(0, 3));
  });

  test.each([
    ["q and k", (module: string): ConfigSite => (module.endsWith("k_proj") ? { module, weight: w4 } : w8a8(module)), []],
    ["gate and up", (module: string): ConfigSite => (module.endsWith("up_proj") ? { module, weight: w8 } : w8a8(module)), []],
  ])("different schemes for %s are refused", (_, choose, ignore: string[]) => {
    expect(() => quantizationConfig(layer(0).map(choose), ignore)).toThrow(/must share a scheme/);
  });

  test("one shard left alone, experts that differ, a module twice or also ignored are refused", () => {
    const without = layer(0).filter((module) => !module.endsWith("v_proj"));
    expect(() => quantizationConfig(without.map(w8a8), ["re:.*v_proj$"])).toThrow(/left alone/);
    const experts = [0, 1].map((i) => `model.layers.0.mlp.experts.${i}.down_proj`);
    expect(() => quantizationConfig([w8a8(experts[0]!), { module: experts[1]!, weight: w8 }], [])).toThrow(/must share a scheme/);
    expect(() => quantizationConfig([w8a8("a"), w8a8("a")], [])).toThrow(/twice/);
    expect(() => quantizationConfig([w8a8("a.b")], ["re:a"])).toThrow(/also ignored/);
  });
});

describe("configs from outside", () => {
  const args = { num_bits: 8, type: "int", strategy: "channel" };
  const withGroup = (group: unknown): Record<string, unknown> => ({
    quant_method: "compressed-tensors",
    format: "int-quantized",
    config_groups: { group_0: group },
  });
  test.each([
    ["no groups", {}],
    ["groups as a list", { config_groups: [] }],
    ["an unknown key in a group", withGroup({ targets: ["Linear"], weights: args, extra: 1 })],
    ["an unknown key in arguments", withGroup({ targets: ["Linear"], weights: { ...args, bits: 8 } })],
    ["a group without targets", withGroup({ weights: args })],
    ["targets that are not text", withGroup({ targets: [1], weights: args })],
    ["negative bits", withGroup({ targets: ["Linear"], weights: { ...args, num_bits: -4 } })],
    ["a fractional group size", withGroup({ targets: ["Linear"], weights: { ...args, strategy: "group", group_size: 1.5 } })],
    ["an unknown strategy", withGroup({ targets: ["Linear"], weights: { ...args, strategy: "row" } })],
    ["a preset that does not exist", { config_groups: { W9A9: ["Linear"] } }],
    ["mixed-precision as a group's format", withGroup({ targets: ["Linear"], weights: args, format: "mixed-precision" })],
  ])("%s: format.config", (_, config) => {
    expect(() => parseQuantizationConfig(config)).toThrow(expect.objectContaining({ code: "format.config" }));
  });

  test("a quantized KV cache, sparsity and transforms are unsupported, by name", () => {
    expect(() => parseQuantizationConfig({ ...withGroup({ targets: [] }), kv_cache_scheme: { num_bits: 8 } })).toThrow(/kv_cache_scheme/);
    expect(() => parseQuantizationConfig({ ...withGroup({ targets: [] }), sparsity_config: { format: "sparse-24-bitmask" } })).toThrow(
      /sparsity/,
    );
  });

  test.each(["W8A8", "W4A16", "W8A16", "FP8", "FP8_DYNAMIC", "FP8_BLOCK", "w4a16_asym"])("preset %s is known", (name) => {
    const { groups } = parseQuantizationConfig({ config_groups: { [name]: ["Linear"] } });
    expect(groups).toHaveLength(1);
    expect(groups[0]!.targets).toEqual(["Linear"]);
    expect(groups[0]!.weights).toBeDefined();
  });

  test("keys of newer releases are known, upper case and omitted strategies are as in the library", () => {
    const { groups } = parseQuantizationConfig(
      withGroup({ targets: ["Linear"], weights: { num_bits: 4, type: "INT", group_size: 64, scale_dtype: null, zp_dtype: "torch.int8" } }),
    );
    expect(groups[0]!.weights).toMatchObject({ strategy: "group", type: "int", symmetric: true });
  });

  test("another quant_method is refused, none is a float model", () => {
    expect(findLayout({ model_type: "llama" })).toBeUndefined();
    expect(() => findLayout({ quantization_config: { quant_method: "gptq" } })).toThrow(/gptq/);
    expect(() => parseConfig(new TextEncoder().encode(`{"__proto__": {}}`))).toThrow(FormatError);
  });
});

describe("tensors that disagree with the config", () => {
  const weight = scheme({ format: int(4, false), granularity: { kind: "group", size: 32 } });
  const site: Site = { weight, rows: 8, cols: 64 };
  const config = parseQuantizationConfig(quantizationConfig([{ module: MODULE, weight }], ["lm_head"]));
  const good = encodeModule(MODULE, randomQuantized(weight, 8, 64, 2), site);
  const open = async (change: (tensors: Map<string, Tensor>) => unknown): Promise<ReadonlyMap<string, LazyTensor>> => {
    const tensors = new Map(good);
    change(tensors);
    return (await openSafetensors(memorySource("module", encodeSafetensors(tensors)))).tensors;
  };
  test.each([
    ["missing scales", "format.missing", (t: Map<string, Tensor>) => t.delete(`${MODULE}.weight_scale`)],
    ["missing zero points", "format.missing", (t: Map<string, Tensor>) => t.delete(`${MODULE}.weight_zero_point`)],
    [
      "scales of another shape",
      "format.field",
      (t: Map<string, Tensor>) => t.set(`${MODULE}.weight_scale`, tensorOf(new Float32Array(8), [8, 1])),
    ],
    [
      "codes of another dtype",
      "format.field",
      (t: Map<string, Tensor>) => t.set(`${MODULE}.weight_packed`, tensorOf(new Uint8Array(64), [8, 8])),
    ],
    [
      "a weight_shape that does not fit the words",
      "format.field",
      (t: Map<string, Tensor>) => t.set(`${MODULE}.weight_shape`, tensorOf(BigInt64Array.of(8n, 4_000_000_000_000n), [2])),
    ],
    [
      "integer scales",
      "unsupported.encoding",
      (t: Map<string, Tensor>) => t.set(`${MODULE}.weight_scale`, tensorOf(new Int32Array(16), [8, 2])),
    ],
    ["codes without scales", "format.missing", (t: Map<string, Tensor>) => t.set("other.weight", tensorOf(new Int8Array(4), [2, 2]))],
    [
      "an ignored module that is quantized",
      "format.config",
      (t: Map<string, Tensor>) => {
        t.set("lm_head.weight", tensorOf(new Int8Array(4), [2, 2]));
        t.set("lm_head.weight_scale", tensorOf(new Float32Array(2), [2, 1]));
      },
    ],
  ])("%s: %s", async (_, code, change) => {
    const tensors = await open(change);
    await expect(readModules(tensors, config)).rejects.toMatchObject({ code });
  });

  test("the packing of older releases is told apart and refused", async () => {
    const three = scheme({ format: int(3), granularity: { kind: "group", size: 32 } });
    const tensors = new Map<string, Tensor>([
      [`${MODULE}.weight_packed`, tensorOf(new Int32Array(2 * 7), [2, 7])],
      [`${MODULE}.weight_scale`, tensorOf(new Float32Array(4), [2, 2])],
      [`${MODULE}.weight_shape`, tensorOf(BigInt64Array.of(2n, 64n), [2])],
    ]);
    const file = await openSafetensors(memorySource("legacy", encodeSafetensors(tensors)));
    const legacy = parseQuantizationConfig(quantizationConfig([{ module: MODULE, weight: three }], []));
    await expect(readModules(file.tensors, legacy)).rejects.toThrow(/before dense packing/);
  });

  test("a narrow code outside its width is refused when it is read", async () => {
    const narrow = scheme({ format: int(6), granularity: { kind: "channel" } });
    const tensors = new Map<string, Tensor>([
      [`${MODULE}.weight`, tensorOf(Int8Array.of(1, 40), [1, 2])],
      [`${MODULE}.weight_scale`, tensorOf(Float32Array.of(1), [1, 1])],
    ]);
    const file = await openSafetensors(memorySource("narrow", encodeSafetensors(tensors)));
    const w6a6 = parseQuantizationConfig(quantizationConfig([{ module: MODULE, weight: narrow, input: token(int(6)) }], []));
    const stored = (await readModules(file.tensors, w6a6)).get(MODULE)!;
    await expect(stored.readFloat()).rejects.toThrow(/code 40/);
  });
});

test("an artifact written to disk is read through its config", async () => {
  const directory = mkdtempSync(join(scratch, "written-"));
  const weight = scheme({ format: int(8), granularity: { kind: "channel" } });
  const site: ConfigSite & Site = { module: MODULE, weight, input: token(int(8)), rows: 16, cols: 32 };
  writeFileSync(join(directory, "model.safetensors"), encodeSafetensors(encodeModule(MODULE, randomQuantized(weight, 16, 32, 4), site)));
  writeFileSync(join(directory, "config.json"), JSON.stringify({ quantization_config: quantizationConfig([site], []) }));
  const checkpoint = await openCheckpoint(directory);
  const reading = await findLayout(checkpoint.config)!.read(checkpoint);
  expect([...reading.tensors.keys()]).toEqual([`${MODULE}.weight`]);
  expect(reading.weights.get(MODULE)).toEqual(weight);
  await checkpoint.close();
});
