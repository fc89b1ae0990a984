import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, copyFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { openOnnx } from "../formats/containers/onnx/read.ts";
import { encodeOnnxModel } from "../formats/containers/onnx/write.ts";
import { createEngine } from "../model/engines/index.ts";
import { openModel } from "../model/sources/open.ts";
import { runInputs } from "../model/run-inputs.ts";
import { tensorOf, toFloat32 } from "../core/tensor.ts";

const FOLDER = "fixtures/onnx/hostile";
type Level = "protobuf" | "graph" | "tensor" | "external data" | "resources";
const CASES = JSON.parse(readFileSync(join(FOLDER, "cases.json"), "utf8")) as Record<string, { level: Level; what: string }>;

/** Codes that fit a level: what is said to be wrong is what is wrong. */
const CODES: Readonly<Record<Level, RegExp>> = {
  protobuf: /^format\.(truncated|field|missing)$/,
  graph: /^(format\.(field|missing|duplicate)|unsupported\.format)$/,
  tensor: /^(format\.(field|truncated|limit)|unsupported\.encoding)$/,
  "external data": /^format\.(path|field|missing|truncated)$/,
  resources: /^format\.limit$/,
};
/** Legal names and keys, text that is no UTF-8 (proto2 says nothing of it), and nodes that only need sorting. */
const ACCEPTED = new Set(["name-proto", "name-constructor", "external-proto-key", "unsorted", "utf8-bad"]);

const scratch = mkdtempSync(join(tmpdir(), "bitwright-hostile-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe("hostile ONNX files", () => {
  test("all 78 are there", () => {
    expect(Object.keys(CASES)).toHaveLength(78);
  });

  test.each(Object.entries(CASES).filter(([name]) => !ACCEPTED.has(name)))(
    "%s is refused for what is wrong with it",
    async (name, { level }) => {
      const error: unknown = await openOnnx(join(FOLDER, `${name}.onnx`)).then(
        () => "accepted",
        (cause: unknown) => cause,
      );
      expect(error).toMatchObject({ code: expect.stringMatching(CODES[level]), message: expect.stringContaining(name) });
    },
  );

  test.each([...ACCEPTED])("%s reads and is written back", async (name) => {
    const model = await openOnnx(join(FOLDER, `${name}.onnx`));
    const tensors = await Promise.all([...model.graph.initializers.values()].map((tensor) => tensor.read()));
    await model.close();
    expect(tensors.map((bytes) => bytes.byteLength)).toEqual([64]);
    expect(model.graph.nodes.map(({ op }) => op)).toEqual(["MatMul", "Relu"]);
  });

  test("text that is no UTF-8 is written back byte for byte", async () => {
    const bytes = readFileSync(join(FOLDER, "utf8-bad.onnx"));
    const model = await openOnnx(join(FOLDER, "utf8-bad.onnx"));
    const node = model.graph.nodes.find(({ name }) => /\p{Surrogate}/u.test(name));
    await model.close();
    const escaped = Array.from({ length: node!.name.length }, (_, i) => node!.name.charCodeAt(i)).filter(
      (code) => code >= 0xdc80 && code <= 0xdcff,
    );
    expect(escaped.length).toBeGreaterThan(0);
    const written = Buffer.from(encodeOnnxModel(model));
    expect(written.includes(Buffer.from(escaped.map((code) => code - 0xdc00)))).toBe(true);
    expect(bytes.includes(Buffer.from(escaped.map((code) => code - 0xdc00)))).toBe(true);
  });

  test("a weight named __proto__ runs, and nodes out of order run", async () => {
    const engine = await createEngine("onnxruntime");
    try {
      for (const name of ["name-proto", "unsorted"]) {
        const model = await openModel(join(FOLDER, `${name}.onnx`));
        const x = Float32Array.of(1, -2, 3, -4);
        const outputs = await runInputs(model, new Map([["x", tensorOf(x, [1, 4])]]), { engine });
        const weight = toFloat32(await [...model.tensors.values()][0]!.read());
        const expected = Array.from({ length: 4 }, (_, col) =>
          Math.max(
            0,
            x.reduce((sum, value, row) => sum + value * weight[4 * row + col]!, 0),
          ),
        );
        const got = toFloat32([...outputs.values()][0]!);
        for (const [i, value] of expected.entries()) expect(got[i]).toBeCloseTo(value, 4);
      }
    } finally {
      await engine.close();
    }
  });

  test("a link out of the model's folder is not followed, one into the folder of the real model file is", async () => {
    const [outside, cache, blobs] = ["outside", "cache", "blobs"].map((name) => join(scratch, name));
    for (const folder of [outside!, cache!, blobs!]) mkdirSync(folder);
    copyFileSync(join(FOLDER, "external-proto-key.onnx"), join(blobs!, "model"));
    copyFileSync(join(FOLDER, "ok.bin"), join(blobs!, "data"));
    // As download caches lay files out: both are links into one store.
    symlinkSync(join(blobs!, "model"), join(cache!, "model.onnx"));
    symlinkSync(join(blobs!, "data"), join(cache!, "ok.bin"));
    const model = await openOnnx(join(cache!, "model.onnx"));
    await model.close();
    copyFileSync(join(FOLDER, "external-proto-key.onnx"), join(outside!, "model.onnx"));
    symlinkSync(join(blobs!, "data"), join(outside!, "ok.bin"));
    await expect(openOnnx(join(outside!, "model.onnx"))).rejects.toMatchObject({ code: "format.path" });
  });
});
