import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { InterruptedError } from "../core/errors.ts";
import { tensorOf, toFloat32, type Tensor } from "../core/tensor.ts";
import { openFileSource } from "../formats/containers/bytes.ts";
import type { TensorFile } from "../formats/containers/container.ts";
import { openSafetensors } from "../formats/containers/safetensors/read.ts";
import { writeSafetensors } from "../formats/containers/safetensors/write.ts";
import type { Engine } from "../model/engines/engine.ts";
import { createEngine } from "../model/engines/index.ts";
import { floatsOf } from "../model/host-tensor.ts";
import { tokenSample } from "../model/inputs.ts";
import type { Model } from "../model/model.ts";
import { openModel } from "../model/sources/open.ts";
import type { Sample } from "../model/walk-types.ts";
import { calibrate, type CalibrateProgress, type Calibration } from "./calibrate.ts";
import { CALIBRATION_KEY, readCalibration, writeCalibration } from "./file.ts";
import type { Statistic } from "./statistic.ts";
import { magnitudeQuantile } from "./statistics/histogram.ts";

type Facts = Readonly<Record<string, { readonly moment_trace: number; readonly moment_frobenius: number }>>;
const facts = JSON.parse(readFileSync("fixtures/goldens/statistics.json", "utf8")) as Facts;
const INPUTS = ["self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"];

let goldens: TensorFile;
let model: Model;
let engine: Engine;
let samples: Sample[];
let calibration: Calibration;
let folder = "";

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "calibration-"));
  goldens = await openSafetensors(await openFileSource("fixtures/goldens/statistics.safetensors"));
  model = await openModel("fixtures/models/tiny-llama");
  engine = await createEngine("onnxruntime", { threads: 2 });
  const ids = await golden("calibration_ids");
  samples = Array.from({ length: 32 }, (_, i) => tokenSample(model, Array.from(ids.slice(256 * i, 256 * (i + 1)))));
  calibration = await calibrate(model, samples, {
    engine,
    statistics: ["absmax", "minmax", "meanabs", "hessian", "histogram"],
    taps: [{ value: "self_attn.k_rope", channels: 128, name: "keys" }],
  });
});
afterAll(async () => {
  await engine.close();
  await goldens.close();
  rmSync(folder, { recursive: true });
});

async function golden(name: string): Promise<Float32Array> {
  return toFloat32(await goldens.tensors.get(name)!.read());
}

function measured(site: string, statistic: string): Float32Array {
  const tensor = calibration.get(site, statistic);
  if (tensor === undefined) throw new Error(`no ${statistic} of ${site}`);
  return toFloat32(tensor);
}

/** Largest difference relative to the expected value's size, or to the largest of all where that is tiny. */
function relativeDifference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(actual.length).toBe(expected.length);
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    worst = Math.max(worst, Math.abs(actual[i]! - expected[i]!) / Math.max(Math.abs(expected[i]!), 1e-3));
  }
  return worst;
}

/** fixtures/goldens: statistics agree to 1e-4 relative. */
const TOLERANCE = 1e-4;

describe("statistics of tiny-llama equal the reference's", () => {
  test.each([0, 1, 2, 3].flatMap((layer) => INPUTS.map((input) => [layer, input] as const)))("layer %i %s", async (layer, input) => {
    const reference = `layers.${layer}.${input}`;
    const site = `model.${reference}`;
    const range = measured(site, "minmax");
    const channels = range.length / 2;
    expect(calibration.get(site, "minmax")!.shape).toEqual([2, channels]);
    expect(relativeDifference(measured(site, "absmax"), await golden(`${reference}.absmax`))).toBeLessThan(TOLERANCE);
    expect(relativeDifference(range.slice(0, channels), await golden(`${reference}.min`))).toBeLessThan(TOLERANCE);
    expect(relativeDifference(range.slice(channels), await golden(`${reference}.max`))).toBeLessThan(TOLERANCE);
    expect(relativeDifference(measured(site, "meanabs"), await golden(`${reference}.meanabs`))).toBeLessThan(TOLERANCE);
    const moment = measured(site, "hessian");
    const diagonal = Float32Array.from({ length: channels }, (_, i) => moment[i * channels + i]!);
    expect(relativeDifference(diagonal, await golden(`${reference}.moment_diagonal`))).toBeLessThan(TOLERANCE);
    const trace = diagonal.reduce((sum, x) => sum + x, 0);
    const frobenius = Math.sqrt(moment.reduce((sum, x) => sum + x * x, 0));
    const { moment_trace, moment_frobenius } = facts[reference]!;
    expect(relativeDifference([trace, frobenius], [moment_trace, moment_frobenius])).toBeLessThan(TOLERANCE);
  });

  test("the whole second moment of one site", async () => {
    const expected = await golden("layers.0.self_attn.q_proj.moment");
    const actual = measured("model.layers.0.self_attn.q_proj", "hessian");
    const largest = expected.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    let worst = 0;
    for (let i = 0; i < expected.length; i++) worst = Math.max(worst, Math.abs(actual[i]! - expected[i]!));
    expect(actual).toHaveLength(256 * 256);
    expect(worst / largest).toBeLessThan(1e-5);
  });

  test.each([0, 1, 2, 3])("keys between RoPE and attention, layer %i", async (layer) => {
    const actual = measured(`model.layers.${layer}.keys`, "absmax");
    expect(relativeDifference(actual, await golden(`layers.${layer}.keys_after_rope.absmax`))).toBeLessThan(TOLERANCE);
  });

  test("histograms count every value and end at the largest magnitude", () => {
    const site = "model.layers.0.mlp.down_proj";
    const { bytes } = calibration.get(site, "histogram")!;
    const counts = new Float64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8);
    expect(counts.reduce((sum, n) => sum + n, 0)).toBe(32 * 256 * 512);
    const largest = Math.max(...measured(site, "absmax"));
    expect(Math.abs(magnitudeQuantile(counts, 1) / largest - 1)).toBeLessThan(1 / 32);
    expect(magnitudeQuantile(counts, 0.999)).toBeLessThan(largest / 2);
  });
});

describe("calibrate", () => {
  const few = (): Sample[] => samples.slice(0, 3);

  test("gives results under every module that reads the value, and counts tokens", () => {
    for (const name of ["k_proj", "v_proj"]) {
      expect(calibration.get(`model.layers.1.self_attn.${name}`, "absmax")).toBe(
        calibration.get("model.layers.1.self_attn.q_proj", "absmax"),
      );
    }
    expect([calibration.tokens, calibration.samples]).toEqual([8192, 32]);
    expect([...calibration.tensors.keys()].filter((name) => name.endsWith(".absmax"))).toHaveLength(4 * 7 + 4);
  });

  test("observes with one's own statistic, from the activations themselves", async () => {
    const loudest: Statistic<number> = {
      name: "loudest",
      summary: "largest magnitude of all",
      create: () => 0,
      update: (state, [values]) => floatsOf(values!, "activations").reduce((a, b) => Math.max(a, Math.abs(b)), state),
      merge: Math.max,
      finish: (state): Record<string, Tensor> => ({ value: tensorOf(Float32Array.of(state), [1]) }),
    };
    const result = await calibrate(model, few(), {
      engine,
      statistics: [loudest, "absmax"],
      sites: ({ localName }) => localName === "mlp.down_proj",
    });
    const names = [...result.tensors.keys()].filter((name) => name.endsWith(".value"));
    expect(names).toEqual([0, 1, 2, 3].map((i) => `model.layers.${i}.mlp.down_proj.loudest.value`));
    for (const name of names) {
      const absmax = toFloat32(result.tensors.get(name.replace("loudest.value", "absmax"))!);
      expect(toFloat32(result.tensors.get(name)!)[0]).toBe(Math.max(...absmax));
    }
  });

  test("does not run what lies behind the last observed value", async () => {
    const seen = new Set<string>();
    const events: CalibrateProgress[] = [];
    await calibrate(model, few(), {
      engine,
      statistics: ["absmax"],
      sites: ({ name }) => name === "model.layers.1.self_attn.q_proj",
      onProgress: (event) => {
        events.push(event);
        seen.add(event.blockName);
      },
    });
    expect(events.at(-1)).toMatchObject({ phase: "calibrate", done: 3 * 768, total: 3 * 768, unit: "tokens", detail: "model.layers.1" });
    expect([...seen]).toEqual(["embeddings", "model.layers.0", "model.layers.1"]);
  });

  test("is exact for extrema however samples are batched", async () => {
    const run = async (batchTokens: number): Promise<Calibration> =>
      calibrate(model, few(), { engine, statistics: ["absmax"], batchTokens, maxMemory: batchTokens === 1 ? 1000 : 2 ** 30 });
    const [one, all] = [await run(1), await run(1024)];
    for (const [name, tensor] of one.tensors) {
      expect(relativeDifference(toFloat32(tensor), toFloat32(all.tensors.get(name)!))).toBeLessThan(TOLERANCE);
    }
  });

  test("stops on abort", async () => {
    const controller = new AbortController();
    const running = calibrate(model, samples, {
      engine,
      statistics: ["absmax"],
      signal: controller.signal,
      onProgress: () => controller.abort(),
    });
    await expect(running).rejects.toThrow(InterruptedError);
  });

  test("refuses unknown statistics, none, and filters that match nothing", async () => {
    await expect(calibrate(model, few(), { engine, statistics: ["median"] })).rejects.toThrow(/"median".*absmax, minmax/);
    await expect(calibrate(model, few(), { engine, statistics: [] })).rejects.toMatchObject({ code: "input.option" });
    await expect(calibrate(model, few(), { engine, statistics: ["absmax"], sites: () => false })).rejects.toMatchObject({
      code: "input.value",
    });
  });
});

describe("the calibration file", () => {
  test("reads back what was written, with a readable record beside it", async () => {
    const path = join(folder, "all.safetensors");
    await writeCalibration(path, calibration);
    const read = await readCalibration(path, { model });
    expect([...read.tensors.keys()].toSorted()).toEqual([...calibration.tensors.keys()].toSorted());
    for (const [name, tensor] of read.tensors) expect(Buffer.compare(tensor.bytes, calibration.tensors.get(name)!.bytes)).toBe(0);
    expect({ ...read, tensors: undefined, get: undefined }).toEqual({ ...calibration, tensors: undefined, get: undefined });
    expect(JSON.parse(readFileSync(join(folder, "all.json"), "utf8"))).toMatchObject({ version: 1, tokens: 8192, samples: 32 });
    expect(existsSync(path)).toBe(true);
  });

  test("is refused for another model, unless forced; and where shapes do not fit even then", async () => {
    const path = join(folder, "other.safetensors");
    await writeCalibration(path, calibration);
    const other = { ...model, config: { ...model.config, rope_theta: 1 } };
    await expect(readCalibration(path, { model: other })).rejects.toThrow(/made for another model.*--force/);
    expect((await readCalibration(path, { model: other, force: true })).tokens).toBe(8192);
    const mini = await openModel("fixtures/models/minis/llama");
    await expect(readCalibration(path, { model: mini, force: true })).rejects.toMatchObject({ code: "input.shape" });
  });

  test.each([
    ["no record", {}],
    ["a record that is not JSON", { [CALIBRATION_KEY]: "{" }],
    ["a record of another version", { [CALIBRATION_KEY]: '{"version":2}' }],
    ["a record of wrong types", { [CALIBRATION_KEY]: '{"version":1,"statistics":"absmax","samples":-1,"tokens":1,"source":null}' }],
  ])("is refused with %s, naming the file", async (_case, metadata) => {
    const path = join(folder, "bad.safetensors");
    await writeSafetensors(path, new Map([["x.absmax", tensorOf(Float32Array.of(1), [1])]]), metadata);
    await expect(readCalibration(path)).rejects.toMatchObject({
      code: "format.field",
      message: expect.stringContaining("bad.safetensors") as string,
    });
  });
});
