import { describe, expect, test } from "vitest";
import { bfp, NVFP4, parseBlockFormat, type BlockFormat } from "../../core/blocks/format.ts";
import { blockCount, dequantizeBlocks, encodeScales, fakeQuantizeBlocks, quantizeBlocks } from "../../core/blocks/quantize.ts";
import { packElements } from "../../formats/encodings/blocks.ts";
import { packBits, packedLength } from "../../core/pack.ts";
import { createRandom } from "../../core/random.ts";
import { encodeBf16, roundBf16 } from "../../core/float.ts";
import { SCALE_RULES, type ScaleRule } from "../../core/scheme.ts";
import { placeValues, place, take } from "../../tests/support/kernels.ts";
import { createWorkspace } from "../load-wasm.ts";
import { INFINITY_BITS, type Stored } from "../runs.ts";
import {
  blockBits,
  codeWidth,
  decodeBlocksAt,
  encodeBlocksAt,
  fakeQuantizeBlocksAt,
  fakeQuantizeBlocksFast,
  packedRowBytes,
  sumErrorsAt,
  TABLE_BYTES,
  unpackBlocksAt,
  writeTable,
} from "./blocks.ts";

const FORMATS: readonly BlockFormat[] = [
  ...["mxint8", "mxfp8-e4m3", "mxfp8-e5m2", "mxfp6-e3m2", "mxfp6-e2m3", "mxfp4"].map((name) => parseBlockFormat(name)!),
  NVFP4,
  ...[2, 3, 4, 5, 6, 7, 8, 9, 11, 16].map((bits) => bfp(bits)),
  bfp(4, 16),
  bfp(8, 128),
  bfp(8, 7),
  bfp(16, 1),
];
const STORED: readonly Stored[] = ["bf16", "f32"];
const SHAPES = [
  [1, 1],
  [2, 33],
  [3, 64],
  [2, 7],
  [5, 50],
  [2, 128],
  [1, 160],
] as const;

/** The largest bf16. */
const MOST = 2 ** 128 - 2 ** 120;

/** Values of all kinds: ordinary, ties of small floats, powers of two and what is next to them, denormals, huge ones, zeros. */
function values(seed: number, length: number, stored: Stored): Float32Array {
  const random = createRandom(seed);
  let magnitude = 1;
  return Float32Array.from({ length }, (_, i) => {
    if (i % 16 === 0) magnitude = [1, 1, 1, 2 ** -20, 2 ** -127, 2 ** -140, 2 ** 120, 2 ** 126, 0][random.below(9)]!;
    const kind = random.below(8);
    const x =
      kind === 0
        ? [0, -0][random.below(2)]!
        : kind === 1
          ? (random.below(65) - 32) / 8
          : kind === 2
            ? 2 ** (random.below(12) - 8) * (1 + (random.below(3) - 1) * 2 ** -7)
            : kind === 3
              ? random.normal() * 2 ** -random.below(20)
              : random.normal();
    const scaled = Math.max(-MOST, Math.min(MOST, Math.fround(x * magnitude)));
    return stored === "bf16" ? roundBf16(scaled) : scaled;
  });
}

function fast(
  stored: Stored,
  x: Float32Array,
  rows: number,
  cols: number,
  format: BlockFormat,
  rule: ScaleRule,
  globalScale: number | undefined,
) {
  const workspace = createWorkspace();
  const coding = { format, rule, globalScale };
  const width = codeWidth(format);
  const at = placeValues(workspace, stored, x);
  const codes = workspace.take(rows * cols * width);
  const scales = workspace.take(blockCount(format, rows, cols));
  const shape = { rows, cols };
  const most = encodeBlocksAt(workspace, stored, shape, coding, { x: at, codes: codes.at, stride: cols * width, scales: scales.at });
  const stride = packedRowBytes(format, cols);
  const packed = workspace.take(rows * stride);
  const scratch = workspace.take(cols * width + 64);
  const again = workspace.take(blockCount(format, rows, cols));
  encodeBlocksAt(workspace, stored, shape, coding, { x: at, codes: packed.at, stride, scales: again.at, scratch: scratch.at });
  const unpacked = workspace.take(rows * cols * width);
  unpackBlocksAt(workspace, shape, coding, { x: packed.at, stride, out: unpacked.at });
  const table = workspace.take(TABLE_BYTES);
  writeTable(workspace, table, format);
  const out = workspace.take(rows * cols * 4);
  decodeBlocksAt(workspace, shape, coding, { codes: codes.at, scales: scales.at, table: table.at, out: out.at });
  return {
    most,
    codes: workspace.bytes(codes).slice(),
    scales: workspace.bytes(scales).slice(),
    packed: workspace.bytes(packed).slice(),
    unpacked: workspace.bytes(unpacked).slice(),
    values: workspace.f32(out).slice(),
  };
}

const bytesOf = (data: Int8Array | Int16Array | Uint8Array): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

describe.each(FORMATS)("the SIMD twin of $name, blocks of $block", (format) => {
  test.each(STORED)("gives codes, scales, bit streams and values of the definition from %s", (stored) => {
    for (const [rows, cols] of SHAPES) {
      for (const [i, rule] of SCALE_RULES.entries()) {
        const x = values(rows * 1000 + cols + i, rows * cols, stored);
        const globalScale = format === NVFP4 ? 2 ** (i - 1) * 1.3 : undefined;
        const expected = quantizeBlocks(x, rows, cols, format, { rule, ...(globalScale === undefined ? {} : { globalScale }) });
        const found = fast(stored, x, rows, cols, format, rule, globalScale === undefined ? undefined : Math.fround(globalScale));
        const codes = expected.codes.data;
        expect(found.scales).toEqual(encodeScales(format, expected.scales));
        expect(found.codes).toEqual(bytesOf(codes));
        expect(found.unpacked).toEqual(bytesOf(codes));
        expect(found.values).toEqual(dequantizeBlocks(expected));
        const bits = blockBits(format);
        const rowBytes = packedLength(cols, bits);
        const stream = new Uint8Array(rows * rowBytes);
        for (let r = 0; r < rows; r++) {
          const unsigned = Array.from(codes.subarray(r * cols, (r + 1) * cols), (code) => code & (2 ** bits - 1));
          packBits(unsigned, bits, stream.subarray(r * rowBytes, (r + 1) * rowBytes));
        }
        expect(found.packed).toEqual(stream);
      }
    }
  });

  test("fake-quantizes in place to the definition's values, NaN blocks included", () => {
    for (const [rows, cols] of SHAPES) {
      for (const rule of SCALE_RULES) {
        const x = values(rows + cols, rows * cols, "f32");
        if (cols > 40) x[cols - 2] = NaN;
        if (cols > 40) x[3] = -Infinity;
        const expected = x.slice();
        const options = { rule, ...(format === NVFP4 ? { globalScale: 0.75 } : {}) };
        fakeQuantizeBlocks(expected, cols, format, options);
        const workspace = createWorkspace();
        const at = place(workspace, x);
        fakeQuantizeBlocksAt(workspace, { rows, cols }, { format, ...options }, at);
        expect(take(workspace, at, x.length, Float32Array)).toEqual(expected);
        fakeQuantizeBlocksFast(x, cols, { format, ...options });
        expect(x).toEqual(expected);
      }
    }
  });

  test("says that a block is not finite, and makes that block NaN", () => {
    const x = values(1, 2 * 160, "bf16");
    x[5] = NaN;
    const expected = quantizeBlocks(x, 2, 160, format, { notFinite: "nan", ...(format === NVFP4 ? { globalScale: 1 } : {}) });
    for (const stored of STORED) {
      const found = fast(stored, x, 2, 160, format, format === NVFP4 ? "even" : "floor", format === NVFP4 ? 1 : undefined);
      expect(found.most).toBeGreaterThanOrEqual(INFINITY_BITS);
      expect(found.scales).toEqual(encodeScales(format, expected.scales));
      expect(found.values).toEqual(dequantizeBlocks(expected));
    }
  });
});

test("every finite bf16 pattern, as the whole of a block and beside a maximum, has the definition's code in every format", () => {
  const all = Float32Array.from({ length: 65536 }, (_, bits) => new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!).filter(
    Number.isFinite,
  );
  for (const format of FORMATS.filter(({ element, block }) => element.kind === "float" || block === 32)) {
    // Rows of one block: its largest value first, then values from far below it to itself.
    for (const top of [6, 1.5 * 2 ** -60, 2 ** -124, 1.984375 * 2 ** 100]) {
      const near = all.filter((x) => Math.abs(x) <= top && Math.abs(x) > top * 2 ** -9);
      const per = format.block - 1;
      const rows = Math.ceil(near.length / per);
      const x = new Float32Array(rows * format.block);
      for (let r = 0; r < rows; r++) {
        x[r * format.block] = top;
        x.set(near.subarray(r * per, (r + 1) * per), r * format.block + 1);
      }
      const globalScale = format === NVFP4 ? { globalScale: 1 } : {};
      const expected = quantizeBlocks(x, rows, format.block, format, globalScale);
      const found = fast("bf16", x, rows, format.block, format, format === NVFP4 ? "even" : "floor", format === NVFP4 ? 1 : undefined);
      expect(Buffer.from(found.codes).equals(bytesOf(expected.codes.data as Uint8Array))).toBe(true);
    }
  }
});

test("every finite bf16 pattern below a maximum has the definition's NVFP4 code under every scale code", () => {
  const magnitudes = Float32Array.from({ length: 0x7f80 }, (_, bits) => new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!);
  const random = createRandom(8);
  for (const globalScale of [1, 1.7, 2 ** -20 * 1.3]) {
    const maxima = Array.from({ length: 126 }, (_, i) => {
      const value = i + 1 < 8 ? (i + 1) * 2 ** -9 : 2 ** (((i + 1) >> 3) - 7) * (1 + ((i + 1) & 7) / 8);
      return roundBf16(Math.fround((6 * value) / globalScale));
    });
    // All that do not certainly round to nothing, under each scale; whole groups of four blocks.
    const blocks = maxima.flatMap((top) => {
      const near = magnitudes.filter((x) => x <= top && x > top / 64);
      return Array.from({ length: Math.ceil(near.length / 15) }, (_, b) => {
        const block = new Float32Array(16);
        block[0] = top;
        block.set(
          near.subarray(b * 15, (b + 1) * 15).map((x) => (random.below(2) === 0 ? x : -x)),
          1,
        );
        return block;
      });
    });
    while (blocks.length % 4 !== 0) blocks.push(new Float32Array(16));
    const x = new Float32Array(blocks.length * 16);
    for (const [i, block] of blocks.entries()) x.set(block, i * 16);
    const scale = Math.fround(globalScale);
    const expected = quantizeBlocks(x, 1, x.length, NVFP4, { globalScale: scale });
    const found = fast("bf16", x, 1, x.length, NVFP4, "even", scale);
    expect(Buffer.from(found.scales).equals(encodeScales(NVFP4, expected.scales))).toBe(true);
    expect(Buffer.from(found.codes).equals(bytesOf(expected.codes.data as Uint8Array))).toBe(true);
    expect(Buffer.from(found.packed).equals(packElements(expected.codes.data as Uint8Array, 1, x.length, 4))).toBe(true);
  }
});

test("error sums are f64 sums of the four columns modulo 4", () => {
  const [rows, cols] = [3, 37];
  const [x, read] = [values(1, rows * cols, "bf16"), values(2, rows * cols, "bf16")];
  for (let i = 0; i < x.length; i++) if (Math.abs(x[i]!) > 1e20) x[i] = read[i] = 1;
  const expected = [0, 0];
  for (let r = 0; r < rows; r++) {
    const [w, e] = [
      [0, 0, 0, 0],
      [0, 0, 0, 0],
    ];
    for (let c = 0; c < cols; c++) {
      const [value, error] = [x[r * cols + c]!, Math.fround(x[r * cols + c]! - read[r * cols + c]!)];
      w[c % 4]! += value * value;
      e[c % 4]! += error * error;
    }
    expected[0]! += w[0]! + w[2]! + (w[1]! + w[3]!);
    expected[1]! += e[0]! + e[2]! + (e[1]! + e[3]!);
  }
  for (const stored of STORED) {
    const workspace = createWorkspace();
    const at = stored === "bf16" ? place(workspace, Uint16Array.from(x, encodeBf16)) : place(workspace, x);
    const sums = place(workspace, new Float64Array(2));
    sumErrorsAt(workspace, stored, { rows, cols }, at, place(workspace, read), sums);
    expect([...take(workspace, sums, 2, Float64Array)]).toEqual(expected);
  }
});
