import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { tensorOf, toFloat32, type Tensor } from "../../core/tensor.ts";
import { openFileSource } from "../../formats/containers/bytes.ts";
import { npyBytes } from "../../formats/containers/npz/npy.ts";
import { writeNpz } from "../../formats/containers/npz/npz.ts";
import { openSafetensors } from "../../formats/containers/safetensors/read.ts";
import type { Engine } from "../../model/engines/engine.ts";
import { createEngine } from "../../model/engines/index.ts";
import type { ValueType } from "../../model/graph/graph.ts";
import type { Model } from "../../model/model.ts";
import { runOnnx } from "../../model/onnx/run.ts";
import { eachSample, type Samples } from "../../model/sample-list.ts";
import { openModel } from "../../model/sources/open.ts";
import { calibrate } from "../calibrate.ts";
import { openSamples, readInputs } from "./open.ts";

const VIT = new URL("../../fixtures/models/tiny-vit", import.meta.url).pathname;
const TOWERS = new URL("../../fixtures/models/towers", import.meta.url).pathname;
const directory = mkdtempSync(join(tmpdir(), "bitwright-inputs-"));
const vitPath = join(directory, "vit/onnx/model.onnx");
const golden = new Map<string, Tensor>();
let vit: Model;
let engine: Engine;

beforeAll(async () => {
  mkdirSync(join(directory, "vit/onnx"), { recursive: true });
  writeFileSync(vitPath, gunzipSync(readFileSync(join(VIT, "onnx/model.onnx.gz"))));
  writeFileSync(join(directory, "vit/preprocessor_config.json"), readFileSync(join(VIT, "preprocessor_config.json")));
  const source = await openFileSource(join(VIT, "golden.safetensors"));
  for (const [name, tensor] of (await openSafetensors(source)).tensors) golden.set(name, await tensor.read());
  await source.close();
  vit = await openModel(vitPath);
  engine = await createEngine("auto", { threads: 1 });
});
afterAll(async () => {
  await engine.close();
  rmSync(directory, { recursive: true, force: true });
});

/** A model of which only the inputs are looked at. */
const modelOf = (...inputs: ValueType[]): Model => ({ ...vit, inputs });
const place = (name: string): string => join(directory, name);
const valuesOf = async (samples: Samples, name: string): Promise<number[][]> => {
  const all: number[][] = [];
  for await (const { inputs } of eachSample(samples)) all.push(Array.from(inputs[name]!.data, Number));
  return all;
};
const floats = (...values: number[]): Float32Array => Float32Array.from(values);

describe("tiny-vit", () => {
  test("an image folder is what transformers feeds, and the model says of all 20 images what transformers says", async () => {
    const inputs = await readInputs(vit, [join(VIT, "images")]);
    const pixels = inputs.get("pixel_values")!;
    expect(pixels.shape).toEqual([20, 3, 28, 28]);
    const expected = toFloat32(golden.get("pixel_values.0")!);
    const first = toFloat32(pixels).subarray(0, expected.length);
    expect(expected.reduce((worst, value, i) => Math.max(worst, Math.abs(value - first[i]!)), 0)).toBeLessThanOrEqual(1e-6);
    const logits = toFloat32((await runOnnx(vit, inputs, engine)).get("logits")!);
    const wanted = toFloat32(golden.get("logits")!).subarray(0, 200);
    expect(wanted.reduce((worst, value, i) => Math.max(worst, Math.abs(value - logits[i]!)), 0)).toBeLessThan(1e-4);
    const { labels } = JSON.parse(readFileSync(join(VIT, "test.json"), "utf8")) as { labels: number[] };
    const classes = Array.from({ length: 20 }, (_, row) => {
      const own = logits.subarray(10 * row, 10 * row + 10);
      return own.indexOf(Math.max(...own));
    });
    expect(classes).toEqual(labels.slice(0, 20));
  });

  test("the Hugging Face directory takes the same images, and calibrates on them as on their array", async () => {
    const model = await openModel(VIT);
    const options = { statistics: ["absmax"], engine };
    const images = await openSamples(model, [join(VIT, "images")], { samples: 8 });
    const ofImages = await calibrate(model, images, options);
    const archive = place("pixels.npz");
    const all = await readInputs(model, [join(VIT, "images")]);
    await writeNpz(archive, all);
    const ofArray = await calibrate(model, await openSamples(model, [archive], { samples: 8 }), options);
    expect(ofImages.samples).toBe(8);
    expect(ofImages.tensors.size).toBeGreaterThan(20);
    expect([...ofArray.tensors].map(([name, { bytes }]) => [name, Buffer.from(bytes).toString("hex")])).toEqual(
      [...ofImages.tensors].map(([name, { bytes }]) => [name, Buffer.from(bytes).toString("hex")]),
    );
  });

  test("the ONNX file calibrates on them, with the statistics of the directory's same layers", async () => {
    const options = { statistics: ["absmax", "meanabs"], engine };
    const images = [join(VIT, "images")];
    const ofFile = await calibrate(vit, await openSamples(vit, images), options);
    const model = await openModel(VIT);
    const ofDirectory = await calibrate(model, await openSamples(model, images), options);
    const site = vit.blocks[0]!.sites.find(({ rows, cols }) => rows === 128 && cols === 256)!;
    for (const statistic of ["absmax", "meanabs"]) {
      const own = toFloat32(ofFile.get(site.name, statistic)!);
      const wanted = toFloat32(ofDirectory.get("vit.encoder.layer.0.output.dense", statistic)!);
      expect(own.reduce((worst, value, i) => Math.max(worst, Math.abs(value - wanted[i]!)), 0)).toBeLessThan(1e-4);
    }
  });

  test("a folder is read one image at a time, in an order that --seed decides", async () => {
    const open = (options: object): Promise<Samples> => openSamples(vit, [join(VIT, "images")], options);
    const [plain, drawn, again, other] = [
      await open({}),
      await open({ shuffle: true, seed: 3 }),
      await open({ shuffle: true, seed: 3 }),
      await open({ shuffle: true, seed: 4 }),
    ];
    expect([plain.length, "read" in plain]).toEqual([20, true]);
    const sums = async (samples: Samples): Promise<number[]> =>
      (await valuesOf(samples, "pixel_values")).map((values) => values.reduce((a, b) => a + b, 0));
    const order = await sums(plain);
    expect(await sums(again)).toEqual(await sums(drawn));
    expect(await sums(drawn)).not.toEqual(order);
    expect(await sums(other)).not.toEqual(await sums(drawn));
    expect((await sums(drawn)).toSorted((a, b) => a - b)).toEqual(order.toSorted((a, b) => a - b));
    await expect(open({ samples: 21 })).rejects.toMatchObject({
      code: "input.data",
      message: expect.stringMatching(/20 samples are there, 21/),
    });
  });

  test("opening a folder decodes nothing; a broken image is named when its turn comes", async () => {
    const folder = place("broken");
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "a.png"), readFileSync(join(VIT, "images/00-ankle-boot.png")));
    writeFileSync(join(folder, "b.png"), readFileSync(join(VIT, "images/00-ankle-boot.png")).subarray(0, 200));
    const samples = await openSamples(vit, [folder]);
    expect(samples.length).toBe(2);
    await expect(valuesOf(samples, "pixel_values")).rejects.toMatchObject({
      message: expect.stringMatching(/b\.png/),
      code: "format.field",
    });
  });

  test("without preprocessor_config.json the error shows one", async () => {
    const { directory: _, ...rest } = vit;
    await expect(readInputs({ ...rest, directory: "/nowhere/onnx" }, [join(VIT, "images")])).rejects.toMatchObject({
      code: "input.path",
      message: expect.stringMatching(/preprocessor_config\.json.*\/nowhere\/onnx, \/nowhere.*"image_mean"/s),
    });
  });
});

describe("arrays", () => {
  const pair = modelOf({ name: "a", dtype: "F32", shape: ["batch", 2] }, { name: "b", dtype: "I64", shape: ["batch"] });

  test("rows of an archive are samples where all inputs share a batch axis", async () => {
    const path = place("rows.npz");
    await writeNpz(
      path,
      new Map([
        ["a", tensorOf(floats(1, 2, 3, 4, 5, 6), [3, 2])],
        ["b", tensorOf(Int32Array.of(7, 8, 9), [3])],
      ]),
    );
    const samples = await openSamples(pair, [path]);
    expect(await valuesOf(samples, "a")).toEqual([
      [1, 2],
      [3, 4],
      [5, 6],
    ]);
    expect(await valuesOf(samples, "b")).toEqual([[7], [8], [9]]);
    const joined = await readInputs(pair, [path]);
    expect(joined.get("b")).toMatchObject({ dtype: "I64", shape: [3] });
  });

  test("an axis that counts tokens is no batch: the archive is one sample", async () => {
    const path = place("sequence.npz");
    await writeNpz(path, new Map([["x", tensorOf(floats(1, 2, 3, 4), [2, 2])]]));
    const model = modelOf({ name: "x", dtype: "F32", shape: ["sequence", 2] });
    expect((await openSamples(model, [path])).length).toBe(1);
    const fixed = modelOf({ name: "x", dtype: "F32", shape: [1, 2] });
    expect((await openSamples(fixed, [path])).length).toBe(2);
  });

  test(".npy is the only input's, or that of the name before it; a missing batch axis is added", async () => {
    const [a, b] = [place("a.npy"), place("b.npy")];
    writeFileSync(a, npyBytes(tensorOf(floats(1, 2), [2]), "a"));
    writeFileSync(b, npyBytes(tensorOf(BigInt64Array.of(3n), [1]), "b"));
    const single = modelOf({ name: "x", dtype: "F32", shape: ["batch", 2] });
    expect(await valuesOf(await openSamples(single, [a]), "x")).toEqual([[1, 2]]);
    expect(await valuesOf(await openSamples(pair, [`a=${a}`, `b=${b}`]), "b")).toEqual([[3]]);
    await expect(openSamples(pair, [a])).rejects.toMatchObject({
      code: "input.option",
      message: expect.stringMatching(/a, b.*name=path\.npy/),
    });
  });

  test("JSON and JSON lines are nested lists of the inputs' dtypes", async () => {
    const [json, lines] = [place("x.json"), place("x.jsonl")];
    writeFileSync(
      json,
      JSON.stringify([
        { a: [1.5, 2], b: [3] },
        { a: [[4, 5]], b: [6] },
      ]),
    );
    writeFileSync(lines, '{"a": [[1, 2]], "b": [3]}\n\n{"a": [4, 5.5], "b": [6]}');
    expect(await valuesOf(await openSamples(pair, [json]), "a")).toEqual([
      [1.5, 2],
      [4, 5],
    ]);
    expect(await valuesOf(await openSamples(pair, [lines]), "a")).toEqual([
      [1, 2],
      [4, 5.5],
    ]);
    const bool = modelOf({ name: "m", dtype: "BOOL", shape: ["batch", 3] });
    writeFileSync(json, "[[true, false, 1]]");
    expect(await valuesOf(await openSamples(bool, [json]), "m")).toEqual([[1, 0, 1]]);
  });

  test.each([
    ['{"a": [[1, 2], [3]], "b": [1]}', "input.shape", /a\[1\] is a list of 1.*2 entries/],
    ['{"a": [[1, null]], "b": [1]}', "input.value", /a\[0\]\[1\] is null/],
    ['{"a": [1, 2], "b": [1.5]}', "input.value", /entry 0 is 1.5; b takes I64/],
    ['{"a": [1, 2], "c": [1]}', "input.option", /no input "c"; it takes a, b/],
    ['{"a": [1, 2], "__proto__": [1]}', "input.option", /no input "__proto__"/],
    ['{"a": [1, 2]}', "input.option", /input b I64 \[batch\] is missing/],
    [`{"a": ${"[".repeat(40)}1${"]".repeat(40)}, "b": [1]}`, "input.shape", /deeper than 16/],
    ["[]", "input.data", /empty list/],
    ["{", "input.data", /not JSON/],
  ])("%s is refused with %s", async (text, code, message) => {
    const path = place("bad.json");
    writeFileSync(path, text);
    const read = openSamples(pair, [path]).then((samples) => valuesOf(samples, "a"));
    await expect(read).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  test("rows of unequal number, other endings, and files that are not there are refused", async () => {
    const path = place("unequal.npz");
    await writeNpz(
      path,
      new Map([
        ["a", tensorOf(floats(1, 2, 3, 4), [2, 2])],
        ["b", tensorOf(BigInt64Array.of(1n), [1])],
      ]),
    );
    await expect(openSamples(pair, [path])).rejects.toMatchObject({
      code: "input.shape",
      message: expect.stringMatching(/a \[2, 2\], b \[1\]/),
    });
    writeFileSync(place("x.csv"), "1,2");
    await expect(openSamples(pair, [place("x.csv")])).rejects.toMatchObject({ code: "input.data" });
    await expect(openSamples(pair, [place("none.npz")])).rejects.toMatchObject({ code: "input.path" });
    await expect(openSamples(pair, [])).rejects.toMatchObject({ code: "input.no-data" });
    mkdirSync(place("empty"), { recursive: true });
    await expect(openSamples(pair, [place("empty")])).rejects.toMatchObject({ code: "input.data" });
  });
});

describe("text", () => {
  const LLAMA = new URL("../../fixtures/models/tiny-llama", import.meta.url).pathname;
  const text = new URL("../../fixtures/data/calib.txt", import.meta.url).pathname;
  const ids: ValueType = { name: "input_ids", dtype: "I64", shape: ["batch", "sequence"] };

  test("a graph with token ids takes text: its tokenizer lies beside it or above it, and what follows from the ids is filled in", async () => {
    const cache: ValueType = { name: "past_key_values.0.key", dtype: "F32", shape: ["batch", 2, "past", 8] };
    const mask: ValueType = { name: "attention_mask", dtype: "I64", shape: ["batch", "total"] };
    const positions: ValueType = { name: "position_ids", dtype: "I64", shape: ["batch", "sequence"] };
    const model = { ...modelOf(ids, mask, positions, cache), directory: join(LLAMA, "onnx") };
    const samples = await openSamples(model, [text], { samples: 2, sequenceLength: 16 });
    const reference = await openSamples(await openModel(LLAMA), [text], { samples: 2, sequenceLength: 16 });
    expect(await valuesOf(samples, "input_ids")).toEqual(await valuesOf(reference, "input_ids"));
    for await (const { inputs } of eachSample(samples)) {
      expect(inputs["attention_mask"]).toMatchObject({ shape: [1, 16], data: new BigInt64Array(16).fill(1n) });
      expect(inputs["position_ids"]!.data[15]).toBe(15n);
      expect(inputs["past_key_values.0.key"]).toMatchObject({ dtype: "F32", shape: [1, 2, 0, 8] });
    }
  });

  test("arrays by name go to the same graph; text and arrays cannot be mixed", async () => {
    const types: ValueType = { name: "token_type_ids", dtype: "I64", shape: ["batch", "sequence"] };
    const model = modelOf(ids, types);
    const path = place("ids.jsonl");
    writeFileSync(path, '{"input_ids": [[1, 2, 3]], "token_type_ids": [[0, 1, 1]]}\n{"input_ids": [[4, 5]]}\n');
    const samples = await openSamples(model, [path]);
    expect(await valuesOf(samples, "token_type_ids")).toEqual([
      [0, 1, 1],
      [0, 0],
    ]);
    await expect(openSamples(model, [path, text])).rejects.toMatchObject({
      code: "input.data",
      message: expect.stringMatching(/either text/),
    });
  });

  test("images for a text tower are refused with what it takes", async () => {
    const model = await openModel(join(TOWERS, "clip-text"));
    await expect(openSamples(model, [join(VIT, "images")])).rejects.toMatchObject({
      code: "input.option",
      message: expect.stringMatching(/no input for images.*input_ids I64/),
    });
  });
});
