import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { bfp, blockScheme, NVFP4, parseBlockFormat, type BlockFormat } from "../../core/blocks/format.ts";
import { blockCount, dequantizeBlocks, encodeScales, nvfp4GlobalScale, quantizeBlocks } from "../../core/blocks/quantize.ts";
import { roundBf16 } from "../../core/float.ts";
import { createRandom } from "../../core/random.ts";
import { fromFloat32 } from "../../core/tensor.ts";
import { packElements } from "../../formats/encodings/blocks.ts";
import { blockBits, packedRowBytes } from "../../kernels/blocks/blocks.ts";
import { runTasks } from "./run.ts";
import type { OutputRegion, OutputRole, QuantizeTask, RangeTask } from "./task.ts";

const folder = mkdtempSync(join(tmpdir(), "bitwright-blocks-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const path = join(folder, "out.bin");

const random = createRandom(4);
const [rows, cols] = [300, 1000];
const values = Float32Array.from({ length: rows * cols }, () => roundBf16(random.normal() * 0.02));
const bf16 = fromFloat32(values, [rows, cols], "BF16").bytes;

function taskOf(format: BlockFormat, more: Partial<QuantizeTask> = {}): QuantizeTask {
  let end = 0;
  const region = (role: OutputRole, byteLength: number): OutputRegion => {
    end += byteLength;
    return { role, path, offset: end - byteLength, byteLength };
  };
  const outputs = [
    region("codes", rows * packedRowBytes(format, cols)),
    region("scales", blockCount(format, rows, cols)),
    ...(format === NVFP4 ? [region("global-scale", 4)] : []),
  ];
  writeFileSync(path, "");
  truncateSync(path, end);
  return {
    kind: "quantize",
    name: "w",
    input: { source: { kind: "bytes", bytes: bf16 }, dtype: "BF16", shape: [rows, cols] },
    channelAxis: 0,
    scheme: blockScheme(format),
    arithmetic: "f32",
    scaleDType: "F32",
    codes: "packed",
    outputs,
    ...more,
  };
}

test.each([bfp(4), bfp(8, 64), bfp(12), bfp(16), ...["mxint8", "mxfp8", "mxfp6", "mxfp4"].map((name) => parseBlockFormat(name)!), NVFP4])(
  "$name: streamed bytes, hashes and error sums are those of the definition, for any workers and with factors",
  async (format) => {
    const factors = { columns: { values: Float32Array.from({ length: cols }, (_, c) => 2 ** ((c % 3) - 1)), divide: false } };
    for (const [workers, more] of [
      [0, {}],
      [2, {}],
      [0, { factors }],
    ] as const) {
      const task = taskOf(format, more);
      const [result] = await runTasks([task], { workers });
      const scaled = "factors" in more ? values.map((x, i) => x * factors.columns.values[i % cols]!) : values;
      const expected = quantizeBlocks(scaled, rows, cols, format);
      const bytes = [
        packElements(expected.codes.data, rows, cols, blockBits(format)),
        encodeScales(format, expected.scales),
        ...(format === NVFP4 ? [new Uint8Array(Float32Array.of(expected.globalScale!).buffer)] : []),
      ];
      const written = readFileSync(path);
      for (const [i, { offset, byteLength }] of task.outputs.entries()) {
        expect(written.subarray(offset, offset + byteLength).equals(bytes[i]!)).toBe(true);
        expect(result!.outputs[i]!.sha256).toBe(createHash("sha256").update(bytes[i]!).digest("hex"));
      }
      const read = dequantizeBlocks(expected);
      const total = scaled.reduce((sum, x) => sum + x * x, 0);
      const error = scaled.reduce((sum, x, i) => sum + (x - read[i]!) ** 2, 0);
      expect(result!.sumSquares / total).toBeCloseTo(1, 10);
      expect(result!.sumSquaredError / error).toBeCloseTo(1, 5);
      expect(result!.absMax).toBe(scaled.reduce((most, x) => Math.max(most, Math.abs(x)), 0));
    }
  },
);

test("a range task measures what NVFP4 layers share, and a given divisor is used and stored", async () => {
  const { input } = taskOf(NVFP4);
  const range: RangeTask = { kind: "range", name: "w", input, arithmetic: "bf16", outputs: [] };
  const [measured] = await runTasks([range], { workers: 0 });
  expect(measured!.absMax).toBe(values.reduce((most, x) => Math.max(most, Math.abs(x)), 0));
  const globalScale = nvfp4GlobalScale(2 * measured!.absMax!, "bf16");
  const task = taskOf(NVFP4, { globalScale, arithmetic: "bf16" });
  await runTasks([task], { workers: 0 });
  const expected = quantizeBlocks(values, rows, cols, NVFP4, { globalScale, arithmetic: "bf16" });
  const { offset } = task.outputs[2]!;
  expect(readFileSync(path).readFloatLE(offset)).toBe(globalScale);
  expect(
    readFileSync(path)
      .subarray(0, rows * (cols / 2))
      .equals(packElements(expected.codes.data, rows, cols, 4)),
  ).toBe(true);
});

test("weights stored [in, out] have blocks along their inputs, and rows of codes are output channels", async () => {
  const turned = new Float32Array(values.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) turned[c * rows + r] = values[r * cols + c]!;
  const bytes = fromFloat32(turned, [cols, rows], "BF16").bytes;
  const task = taskOf(bfp(4), { channelAxis: 1, input: { source: { kind: "bytes", bytes }, dtype: "BF16", shape: [cols, rows] } });
  await runTasks([task], { workers: 0 });
  const expected = quantizeBlocks(values, rows, cols, bfp(4));
  expect(
    readFileSync(path)
      .subarray(0, rows * (cols / 2))
      .equals(packElements(expected.codes.data, rows, cols, 4)),
  ).toBe(true);
});

test("a NaN is refused by name and index, a region of another size too", async () => {
  const bad = bf16.slice();
  bad[2 * 123_456 + 1] = 0x7f;
  bad[2 * 123_456] = 0xc0;
  const task = taskOf(bfp(8), { input: { source: { kind: "bytes", bytes: bad }, dtype: "BF16", shape: [rows, cols] } });
  await expect(runTasks([task], { workers: 0 })).rejects.toMatchObject({ code: "numeric.not-finite", details: { index: 123_456 } });
  const short = taskOf(bfp(8));
  const outputs = [{ ...short.outputs[0]!, byteLength: 5 }, short.outputs[1]!];
  await expect(runTasks([{ ...short, outputs }], { workers: 0 })).rejects.toMatchObject({ code: "input.shape" });
});
