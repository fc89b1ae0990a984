import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { intRule, type Arithmetic } from "../../core/dialect.ts";
import type { DType } from "../../core/dtype.ts";
import type { ErrorSums } from "../../kernels/error-sums.ts";
import { packedLength } from "../../core/pack.ts";
import { createRandom } from "../../core/random.ts";
import type { DialectName, QuantScheme } from "../../core/scheme.ts";
import { fromFloat32, toFloat32 } from "../../core/tensor.ts";
import { minMax } from "../../kernels/min-max/min-max.ts";
import { packRows } from "../../kernels/pack-rows/pack-rows.ts";
import { rtnInt } from "../../kernels/rtn-int/rtn-int.ts";
import { runCount } from "../../kernels/runs.ts";
import { scaleMatrix, type MatrixFactors } from "../../kernels/scale-matrix/scale-matrix.ts";
import { scalesOf } from "../../kernels/scales/scales.ts";
import { runTasks } from "./run.ts";
import type { OutputRegion, OutputRole, QuantizeTask, TaskResult, TensorTask } from "./task.ts";

let folder: string;
let out: string;
let end = 0;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "bitwright-streaming-"));
  out = join(folder, "out.bin");
});
beforeEach(() => {
  end = 0;
  writeFileSync(out, "");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A region behind those made before in the same test. */
function region(role: OutputRole, byteLength: number): OutputRegion {
  end += byteLength;
  truncateSync(out, end);
  return { role, path: out, offset: end - byteLength, byteLength };
}
const written = ({ offset, byteLength }: OutputRegion): Uint8Array =>
  Uint8Array.from(readFileSync(out).subarray(offset, offset + byteLength));

function gaussian(seed: number, length: number): Float32Array {
  const random = createRandom(seed);
  return Float32Array.from({ length }, () => random.normal() * 0.02);
}

const made = new Map<string, { readonly bytes: Uint8Array; readonly values: Float32Array }>();

/** Stored bytes of Gaussian weights, with their values as stored; made once. */
function weights(seed: number, shape: readonly number[], dtype: DType): { bytes: Uint8Array; values: Float32Array } {
  const key = `${seed} ${shape.join("x")} ${dtype}`;
  const length = shape.reduce((a, b) => a * b, 1);
  const tensor = made.get(key) ?? fromFloat32(gaussian(seed, length), shape, dtype);
  const values = "values" in tensor ? tensor.values : toFloat32(tensor).slice();
  made.set(key, { bytes: tensor.bytes, values });
  return { bytes: tensor.bytes, values: values.slice() };
}

interface Setting {
  readonly dialect?: DialectName;
  readonly bits: number;
  readonly symmetric?: boolean;
  readonly granularity: QuantScheme["granularity"];
}

const schemeOf = ({ dialect = "compressed-tensors", bits, symmetric = true, granularity }: Setting): QuantScheme => ({
  format: { kind: "int", bits, symmetric },
  granularity,
  timing: "static",
  scale: "bf16",
  dialect,
});

function quantizeTask(
  name: string,
  bytes: Uint8Array,
  dtype: DType,
  [rows, cols]: readonly [number, number],
  setting: Setting,
  rest: { factors?: MatrixFactors; arithmetic?: Arithmetic; packed?: boolean } = {},
): QuantizeTask {
  const { granularity, bits } = setting;
  const groups = granularity.kind === "group" ? Math.ceil(cols / granularity.size) : 1;
  const scales = granularity.kind === "tensor" ? 1 : rows * groups;
  const packed = rest.packed ?? bits < 8;
  return {
    kind: "quantize",
    name,
    input: { source: { kind: "bytes", bytes }, dtype, shape: [rows, cols] },
    channelAxis: 0,
    scheme: schemeOf(setting),
    arithmetic: rest.arithmetic ?? "f32",
    scaleDType: "F32",
    ...(rest.factors && { factors: rest.factors }),
    codes: packed ? "packed" : "bytes",
    zeros: "f32",
    outputs: [
      region("codes", packed ? rows * packedLength(cols, bits) : rows * cols),
      region("scales", 4 * scales),
      ...(setting.symmetric === false ? [region("zeros", 4 * scales)] : []),
    ],
  };
}

/** The same by the definitions, on the whole matrix at once. */
function expected(
  values: Float32Array,
  [rows, cols]: readonly [number, number],
  setting: Setting,
): { codes: Uint8Array; scales: Float32Array; sums: ErrorSums } {
  const { dialect = "compressed-tensors", bits, symmetric = true, granularity } = setting;
  const rule = intRule(dialect, bits, symmetric);
  const shape = { rows, cols, group: granularity.kind === "group" ? granularity.size : cols };
  const ranges = granularity.kind === "tensor" ? { rows: 1, cols: rows * cols, group: rows * cols } : shape;
  const runs = runCount(ranges);
  const [low, high, scales, zeros] = [new Float32Array(runs), new Float32Array(runs), new Float32Array(runs), new Float32Array(runs)];
  minMax(values, ranges, low, high);
  scalesOf(rule, low, high, {}, scales, zeros);
  const spread = (v: Float32Array): Float32Array => (granularity.kind === "tensor" ? new Float32Array(rows).fill(v[0]!) : v);
  const codes = new Int8Array(rows * cols);
  const sums = { weights: 0, errors: 0 };
  rtnInt(values, shape, spread(scales), symmetric ? undefined : spread(zeros), { rule, bits, arithmetic: "f32" }, codes, sums);
  if (bits === 8) return { codes: new Uint8Array(codes.buffer), scales, sums };
  const packed = new Uint8Array(rows * packedLength(cols, bits));
  packRows(codes, rows, cols, bits, packed, packedLength(cols, bits));
  return { codes: packed, scales, sums };
}

describe("quantize tasks write what the definitions give", () => {
  const SETTINGS: readonly (readonly [string, Setting])[] = [
    ["int8 channel", { bits: 8, granularity: { kind: "channel" } }],
    ["int8 tensor", { bits: 8, granularity: { kind: "tensor" } }],
    ["int8 asymmetric tensor", { bits: 8, symmetric: false, dialect: "awq", granularity: { kind: "tensor" } }],
    ["int4 group 32", { bits: 4, granularity: { kind: "group", size: 32 } }],
    ["int4 awq group 64, last one short", { bits: 4, dialect: "awq", symmetric: false, granularity: { kind: "group", size: 64 } }],
    ["int3 gptq group 48", { bits: 3, dialect: "gptq", granularity: { kind: "group", size: 48 } }],
    ["int2 quarot channel", { bits: 2, dialect: "quarot", granularity: { kind: "channel" } }],
  ];
  test.each(SETTINGS)("%s, from bf16, f16 and f32", async (_, setting) => {
    for (const dtype of ["BF16", "F16", "F32"] as const) {
      const shape = [130, 1200] as const;
      const { bytes, values } = weights(1, shape, dtype);
      const task = quantizeTask("w", bytes, dtype, shape, setting);
      const [result] = await runTasks([task], { workers: 0 });
      const { codes, scales, sums } = expected(values, shape, setting);
      expect(Buffer.from(written(task.outputs[0]!)).equals(codes)).toBe(true);
      expect(Buffer.from(written(task.outputs[1]!)).equals(new Uint8Array(scales.buffer))).toBe(true);
      expect(result!.sumSquares).toBe(sums.weights);
      expect(result!.sumSquaredError).toBe(sums.errors);
      expect(result!.absMax).toBe(values.reduce((most, v) => Math.max(most, Math.abs(v)), 0));
      expect(result!.outputs.map(({ sha256 }) => sha256)).toEqual(
        task.outputs.map((output) => createHash("sha256").update(written(output)).digest("hex")),
      );
    }
  });

  test("row and column factors are applied first, in f32", async () => {
    const shape = [40, 96] as const;
    const { bytes, values } = weights(2, shape, "BF16");
    const factors: MatrixFactors = {
      columns: { values: gaussian(3, 96).map((v) => 1 + v), divide: false },
      rows: { values: gaussian(4, 40).map((v) => 2 + v), divide: true },
    };
    const setting: Setting = { bits: 8, granularity: { kind: "channel" } };
    const task = quantizeTask("w", bytes, "BF16", shape, setting, { factors });
    await runTasks([task], { workers: 0 });
    scaleMatrix(values, ...shape, factors);
    expect(written(task.outputs[0]!)).toEqual(expected(values, shape, setting).codes);
  });

  test("a weight stored [in, out] gets a scale per column, and codes in its own order", async () => {
    const { bytes, values } = weights(5, [48, 20], "F32");
    const setting: Setting = { bits: 8, granularity: { kind: "channel" } };
    const turned = Float32Array.from(values, (__, i) => values[(i % 48) * 20 + Math.floor(i / 48)]!);
    const { codes, scales } = expected(turned, [20, 48], setting);
    const task: QuantizeTask = {
      ...quantizeTask("c_fc", bytes, "F32", [48, 20], setting),
      channelAxis: 1,
      outputs: [region("codes", 960), region("scales", 80)],
    };
    await runTasks([task], { workers: 0 });
    expect([...written(task.outputs[0]!)]).toEqual(Array.from(codes, (__, i) => codes[(i % 20) * 48 + Math.floor(i / 20)]));
    expect(new Float32Array(written(task.outputs[1]!).buffer)).toEqual(scales);
  });
});

describe("copy and rescale", () => {
  test("copy repeats the bytes of a file region", async () => {
    const path = join(folder, "source.bin");
    // More than one piece of 1 MiB, and not a multiple of it.
    const bytes = new Uint8Array(2_500_003).map((_, i) => i % 251);
    writeFileSync(path, bytes);
    const input = { source: { kind: "file", path, offset: 3 }, dtype: "U8", shape: [2_500_000] } as const;
    const task: TensorTask = { kind: "copy", name: "bias", input, outputs: [region("tensor", 2_500_000)] };
    await runTasks([task], { workers: 0 });
    expect(Buffer.from(written(task.outputs[0]!)).equals(bytes.subarray(3))).toBe(true);
  });
  test("a norm stored less one is divided by smoothing factors and rounded to its dtype", async () => {
    const { bytes, values } = weights(6, [257], "BF16");
    const factors: MatrixFactors = { columns: { values: gaussian(7, 257).map((v) => 3 + v), divide: true }, offset: 1 };
    const input = { source: { kind: "bytes", bytes }, dtype: "BF16", shape: [257] } as const;
    const task: TensorTask = { kind: "rescale", name: "norm", input, factors, dtype: "BF16", outputs: [region("tensor", 514)] };
    await runTasks([task], { workers: 0 });
    scaleMatrix(values, 1, 257, factors);
    expect([...written(task.outputs[0]!)]).toEqual([...fromFloat32(values, [257], "BF16").bytes]);
  });
});

describe("any number of workers writes the same bytes", () => {
  test("0, 1 and 2 workers, results in task order", async () => {
    const shape = [64, 512] as const;
    const runs: { bytes: Buffer; results: readonly TaskResult[] }[] = [];
    for (const workers of [0, 1, 2]) {
      end = 0;
      writeFileSync(out, "");
      const tasks = Array.from({ length: 9 }, (_, i) =>
        quantizeTask(`layer.${i}`, weights(i, [shape[0] + i, shape[1]], "BF16").bytes, "BF16", [shape[0] + i, shape[1]], {
          bits: 4,
          granularity: { kind: "group", size: 128 },
        }),
      );
      let progress = 0;
      const done: string[] = [];
      const results = await runTasks(tasks, {
        workers,
        onDone: ({ name }) => done.push(name),
        onProgress: (bytes, total) => {
          progress = bytes / total;
        },
      });
      expect(results.map(({ name }) => name)).toEqual(tasks.map(({ name }) => name));
      expect(done.toSorted()).toEqual(tasks.map(({ name }) => name).toSorted());
      expect(progress).toBe(1);
      runs.push({ bytes: readFileSync(out), results: results.map((result) => ({ ...result, seconds: 0 })) });
    }
    expect(runs[1]).toEqual(runs[0]);
    expect(runs[2]).toEqual(runs[0]);
  });
});

describe.each([0, 1])("failures with %i workers", (workers) => {
  const setting: Setting = { bits: 8, granularity: { kind: "channel" } };
  test("a NaN weight is named with its index", async () => {
    const { values } = weights(8, [600, 1000], "F32");
    values[543_210] = NaN;
    const { bytes } = fromFloat32(values, [600, 1000], "BF16");
    const task = quantizeTask("model.layers.3.mlp.up_proj.weight", bytes, "BF16", [600, 1000], setting);
    await expect(runTasks([task], { workers })).rejects.toMatchObject({
      code: "numeric.not-finite",
      message: "model.layers.3.mlp.up_proj.weight: element 543210 is NaN; weights must be finite",
      details: { index: 543_210 },
    });
  });
  test("a source that ends early is a format error", async () => {
    const path = join(folder, "short.bin");
    writeFileSync(path, new Uint8Array(100));
    const input = { source: { kind: "file", path, offset: 50 }, dtype: "U8", shape: [51] } as const;
    const task: TensorTask = { kind: "copy", name: "w", input, outputs: [region("tensor", 51)] };
    await expect(runTasks([task], { workers })).rejects.toMatchObject({ code: "format.truncated", details: { end: 100 } });
  });
  test("a missing file keeps the system's code", async () => {
    const input = { source: { kind: "file", path: join(folder, "none"), offset: 0 }, dtype: "U8", shape: [1] } as const;
    const task: TensorTask = { kind: "copy", name: "w", input, outputs: [region("tensor", 1)] };
    await expect(runTasks([task], { workers })).rejects.toMatchObject({ code: "ENOENT" });
  });
  test("a region of another size is refused", async () => {
    const { bytes } = weights(9, [4, 8], "F32");
    const task = { ...quantizeTask("w", bytes, "F32", [4, 8], setting), outputs: [region("codes", 31), region("scales", 16)] };
    await expect(runTasks([task], { workers })).rejects.toMatchObject({ code: "input.shape" });
  });
  test("an abort stops the rest and throws InterruptedError", async () => {
    const tasks = Array.from({ length: 20 }, (_, i) =>
      quantizeTask(`w${i}`, weights(i, [64, 64], "BF16").bytes, "BF16", [64, 64], setting),
    );
    const stop = new AbortController();
    let done = 0;
    const running = runTasks(tasks, {
      workers,
      signal: stop.signal,
      onDone: () => {
        if (++done === 3) stop.abort();
      },
    });
    await expect(running).rejects.toMatchObject({ code: "interrupted" });
    expect(done).toBeLessThan(20);
  });
});

test("a scheme that round to nearest does not write is refused by name", async () => {
  const { bytes } = weights(10, [4, 64], "F32");
  const task = quantizeTask("w", bytes, "F32", [4, 64], { bits: 8, granularity: { kind: "block", rows: 2, cols: 2 } });
  await expect(runTasks([task], { workers: 0 })).rejects.toMatchObject({
    code: "unsupported.scheme",
    message: expect.stringContaining("int8 block 2x2") as string,
  });
});
