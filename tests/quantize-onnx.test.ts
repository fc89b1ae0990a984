import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { toFloat32, type Tensor } from "../core/tensor.ts";
import { writeNpz } from "../formats/containers/npz/npz.ts";
import { openOnnx } from "../formats/containers/onnx/read.ts";
import { openFileSource } from "../formats/containers/bytes.ts";
import { openSafetensors } from "../formats/containers/safetensors/read.ts";
import { createEngine } from "../model/engines/index.ts";
import type { Engine } from "../model/engines/engine.ts";
import { findOnnxSites, findQuantizedSites } from "../model/onnx/sites.ts";
import { runOnnx } from "../model/onnx/run.ts";
import { openOnnxModel } from "../model/sources/onnx.ts";
import { quantize } from "../quantize/quantize.ts";
import { planQuantization } from "../quantize/plan.ts";
import type { QuantizeOptions, QuantizeReport, Recipe } from "../quantize/types.ts";
import { verifyArtifact } from "../quantize/verify.ts";

const ZOO = "fixtures/onnx/zoo";
let folder = "";
let engine: Engine;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "bitwright-onnx-test-"));
  engine = await createEngine("onnxruntime", { threads: 1 });
});
afterAll(async () => {
  await engine.close();
  await rm(folder, { recursive: true, force: true });
});

interface Done {
  readonly report: QuantizeReport;
  readonly file: string;
  readonly cosine: number;
}

/** Quantize a model of the zoo, its golden inputs as data, and compare its outputs with the golden ones. */
async function run(name: string, recipe: Recipe, more: Partial<QuantizeOptions> = {}): Promise<Done> {
  const file = await openSafetensors(await openFileSource(`${ZOO}/${name}.golden.safetensors`));
  const golden = new Map(await Promise.all([...file.tensors].map(async ([key, tensor]) => [key, await tensor.read()] as const)));
  await file.close();
  const part = (prefix: string): Map<string, Tensor> =>
    new Map([...golden].flatMap(([key, tensor]) => (key.startsWith(prefix) ? [[key.slice(prefix.length), tensor] as const] : [])));
  const data = join(folder, `${name}.npz`);
  await writeNpz(data, part("in."));
  const out = join(
    folder,
    `${name}-${Object.values(recipe)
      .flat()
      .map((value) => JSON.stringify(value))
      .join("-")
      .replaceAll(/\W+/g, "_")}`,
  );
  const report = await quantize(`${ZOO}/${name}.onnx`, { recipe, out, engine, data: [data], ...more });
  const written = join(out, `${name}.onnx`);
  const found = await runOnnx(await openOnnxModel(written), part("in."), engine);
  const cosines = [...part("out.")].flatMap(([key, expected]) =>
    expected.dtype === "F32" ? [cosine(toFloat32(found.get(key)!), toFloat32(expected))] : [],
  );
  return { report, file: written, cosine: Math.min(...cosines) };
}

function cosine(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array): number => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

const RTN: Recipe = { method: ["rtn"] };

test.each(["encoder-torchscript-13", "encoder-dynamo-21", "decoder-17", "decoder-17-gqa", "modern-24", "external"])(
  "%s at w8a8, scales a token: no float weight of a product is left and the outputs stay",
  async (name) => {
    const { report, file, cosine: found } = await run(name, RTN);
    expect(found).toBeGreaterThan(0.999);
    const model = await openOnnx(file);
    await model.close();
    expect(findOnnxSites(model).filter(({ kind }) => kind === "linear")).toEqual([]);
    expect(findQuantizedSites(model).length).toBeGreaterThan(0);
    expect(report.verified.ok).toBe(true);
    expect(report.fidelity!.cosine).toBeGreaterThan(0.999);
  },
);

test.each(["cnn-11", "cnn-24", "old-8", "rnn-14", "styles-17", "encoder-torchscript-17"])(
  "%s runs in every form",
  async (name) => {
    const forms: readonly [Recipe, number][] = [
      [RTN, 0.998],
      [{ method: ["rtn"], bits: "w8a16" }, 0.998],
      [{ method: ["rtn"], bits: "w4a16" }, 0.97],
      [{ method: ["rtn"], bits: "fp16" }, 0.9999],
      [{ method: ["rtn"], bits: "bnb4" }, 0.97],
      [{ method: ["rtn"], scheme: { act: "static", outputs: "all" } }, 0.99],
      [{ method: ["rtn"], bits: "w8a16", scheme: { act: "static", weights: "int8" } }, 0.998],
      [{ method: ["smoothquant"], scheme: { shift: "true" } }, 0.998],
    ];
    for (const [recipe, least] of forms) expect((await run(name, recipe)).cosine, JSON.stringify(recipe)).toBeGreaterThan(least);
  },
  30_000,
);

test("blocked DequantizeLinear: int4 where the opset has it, an error that names the opset where not", async () => {
  const { file, cosine: found } = await run("encoder-dynamo-21", { method: ["rtn"], bits: "w4a16", scheme: { form: "dq" } });
  expect(found).toBeGreaterThan(0.99);
  const model = await openOnnx(file);
  await model.close();
  const blocked = model.graph.nodes.filter(({ op, attributes }) => op === "DequantizeLinear" && attributes.has("block_size"));
  expect(blocked).toHaveLength(12);
  expect(model.graph.initializers.get(blocked[0]!.inputs[0]!)!.dtype).toBe("U4");
  await expect(run("encoder-torchscript-17", { method: ["rtn"], bits: "w4a16", scheme: { form: "dq" } })).rejects.toMatchObject({
    code: "input.option",
    details: { opset: 17, needed: 21 },
  });
});

test("weights alone in 8 bits are scaled by what runtimes fold when they load, or by DequantizeLinear when it is asked for; both are known again", async () => {
  const forms = [
    { method: ["rtn"], bits: "w8a16" },
    { method: ["rtn"], bits: "w8a16", scheme: { form: "dq" } },
  ] as const;
  const ops = await Promise.all(
    forms.map(async (recipe) => {
      const { file, cosine: found } = await run("rnn-14", recipe, { force: true });
      expect(found).toBeGreaterThan(0.999);
      const model = await openOnnx(file);
      await model.close();
      expect(findOnnxSites(model)).toEqual([]);
      expect(findQuantizedSites(model).map(({ op }) => op)).toEqual(expect.arrayContaining(["LSTM", "GRU", "RNN"]));
      return model.graph.nodes.map(({ op }) => op);
    }),
  );
  expect(ops[0]).not.toContain("DequantizeLinear");
  expect(ops[1]).not.toContain("Mul");
});

test("weights inside branches and functions are quantized where they are", async () => {
  const out = join(folder, "flow");
  await quantize(`${ZOO}/flow-17.onnx`, { recipe: RTN, out, engine });
  const model = await openOnnx(join(out, "flow-17.onnx"));
  await model.close();
  expect(findOnnxSites(model)).toEqual([]);
  expect(findQuantizedSites(model)).toHaveLength(2);
});

test("equal runs give equal bytes; a tensor that two sites read is stored once", async () => {
  const files = await Promise.all(
    ["a", "b"].map(async (part) => {
      const out = join(folder, `same-${part}`);
      await quantize(`${ZOO}/styles-17.onnx`, { recipe: RTN, out, engine });
      return readFile(join(out, "styles-17.onnx"));
    }),
  );
  expect(files[0]!.equals(files[1]!)).toBe(true);
});

test("operators that no engine knows pass through", async () => {
  const out = join(folder, "unknown");
  const report = await quantize(`${ZOO}/unknown-17.onnx`, { recipe: { method: ["rtn"], bits: "w8a16" }, out, engine });
  expect(report.verified.ok).toBe(true);
  const model = await openOnnx(join(out, "unknown-17.onnx"));
  await model.close();
  expect(model.graph.nodes.map(({ op }) => op)).toEqual(expect.arrayContaining(["Mystery", "Enigma"]));
});

test("external data stays external, and verify sees a changed byte of it", async () => {
  const out = join(folder, "external-out");
  const report = await quantize(`${ZOO}/external.onnx`, { recipe: RTN, out, engine });
  expect(report.out[0]!.files).toEqual(["external.onnx", "external.onnx_data", "bitwright.json"]);
  expect((await verifyArtifact(out)).ok).toBe(true);
  const data = join(out, "external.onnx_data");
  const bytes = await readFile(data);
  bytes[0]! ^= 1;
  await writeFile(data, bytes);
  const verdict = await verifyArtifact(out);
  expect(verdict.problems).toEqual([{ tensor: "external.onnx_data", problem: "file has changed (sha256)" }]);
});

test("smoothed without quantizing to integers the model says the same: factors cancel", async () => {
  const { cosine: found, report } = await run("encoder-torchscript-13", {
    method: ["smoothquant"],
    bits: "w8a16",
    groupSize: 16,
    scheme: { shift: "true" },
  });
  expect(found).toBeGreaterThan(0.9999);
  expect(report.warnings.join()).toMatch(/SQ-b: 8 values smoothed, \d folded/);
});

test("--protect auto gives the most sensitive sites a finer form and says why", async () => {
  const { report } = await run("encoder-dynamo-18", { method: ["rtn"], protect: "auto" });
  const spared = report.sites.filter(({ note }) => note !== undefined);
  expect(spared).toHaveLength(1);
  expect(spared[0]!.note).toMatch(/^weight-only: quantizing its input alone moves the outputs by [\d.]+ %, [\d.]+ times the median site$/);
});

test("patterns leave sites alone; the plan says so and writes nothing", async () => {
  const out = join(folder, "planned");
  const plan = await planQuantization(`${ZOO}/encoder-dynamo-18.onnx`, { recipe: { ...RTN, ignore: ["re:.*words.*"] }, out });
  expect(plan.sites.filter(({ reason }) => reason === "float: --ignore")).toHaveLength(1);
  expect(await stat(out).catch(() => undefined)).toBeUndefined();
});

test.each<[string, Recipe, string]>([
  ["nothing to do", { method: ["rtn"] }, "nbits4-17"],
  ["a key of other artifacts", { method: ["rtn"], scheme: { preset: "awq" } }, "cnn-17"],
  ["a width that ONNX lacks", { method: ["rtn"], bits: "w6a6" }, "cnn-17"],
  ["a block no operator takes", { method: ["rtn"], bits: "w4a16", groupSize: 48 }, "cnn-17"],
  ["a pattern that matches nothing", { method: ["rtn"], ignore: ["no-such-site"] }, "cnn-17"],
])("refused before anything is written: %s", async (_why, recipe, name) => {
  const out = join(folder, "refused");
  await expect(quantize(`${ZOO}/${name}.onnx`, { recipe, out, engine })).rejects.toMatchObject({ code: "input.option" });
  expect(await stat(out).catch(() => undefined)).toBeUndefined();
});

test("static scales without data are refused with the way out", async () => {
  const options = { recipe: { method: ["rtn"], scheme: { act: "static" } }, out: join(folder, "no-data"), engine };
  await expect(quantize(`${ZOO}/cnn-17.onnx`, options)).rejects.toMatchObject({ code: "input.no-data" });
});

test("an artifact is replaced only with force, and a gate that is missed is an error with the report", async () => {
  const { file } = await run("modern-23", RTN);
  await expect(run("modern-23", RTN)).rejects.toMatchObject({ code: "input.output-exists" });
  const before = await readFile(file);
  await expect(run("modern-23", RTN, { force: true, gate: { cosine: 0.99999999 } })).rejects.toMatchObject({ code: "verify.gate" });
  expect((await readFile(file)).equals(before)).toBe(true);
});

test("stopped by a signal, the same call finishes with the same bytes", async () => {
  const out = join(folder, "stopped");
  const controller = new AbortController();
  const onProgress = (): void => controller.abort();
  const options = { recipe: RTN, out, engine };
  await expect(quantize(`${ZOO}/encoder-dynamo-18.onnx`, { ...options, signal: controller.signal, onProgress })).rejects.toMatchObject({
    code: "interrupted",
  });
  const report = await quantize(`${ZOO}/encoder-dynamo-18.onnx`, options);
  expect(report.resumed).toBe(true);
  const other = join(folder, "not-stopped");
  await quantize(`${ZOO}/encoder-dynamo-18.onnx`, { recipe: RTN, out: other, engine });
  const [a, b] = await Promise.all([out, other].map((directory) => readFile(join(directory, "encoder-dynamo-18.onnx"))));
  expect(a!.equals(b!)).toBe(true);
});
