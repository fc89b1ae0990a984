import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { DType } from "../../core/dtype.ts";
import { FormatError } from "../../core/errors.ts";
import { encodeBf16, encodeFloat, F16 } from "../../core/float.ts";
import { createRandom } from "../../core/random.ts";
import { roundHalfEven } from "../../core/round.ts";
import { definition } from "../../formats/encodings/compact/coder.ts";
import { decodeBlocks, encodePayload } from "../../formats/encodings/compact/payload.ts";
import { parseTail, tailLength } from "../../formats/encodings/compact/tail.ts";
import { FLOAT_TABLES } from "../../formats/encodings/compact/symbols.ts";
import { memorySource } from "../../formats/containers/bytes.ts";
import { encodeWith } from "../../formats/containers/compact/encoder.ts";
import { openCompact } from "../../formats/containers/compact/read.ts";
import { compactSource, encodeCompact } from "../../formats/containers/compact/write.ts";
import { lazyOf } from "../../core/tensor.ts";
import { blocksPerRange, viewMatrix } from "../../formats/encodings/compact/view.ts";
import { createWorkspace } from "../load-wasm.ts";
import { createCompactCoder } from "./coder.ts";

const coder = createCompactCoder();
const LEVELS = ["max", "fast"] as const;

/** Weights with a scale for each row and column, as patterns of a dtype. */
function weights(dtype: DType, rows: number, cols: number, seed: number): Uint8Array {
  const random = createRandom(seed);
  const columns = Float64Array.from({ length: cols }, () => Math.exp(0.4 * random.normal()));
  const values: number[] = [];
  for (let r = 0; r < rows; r++) {
    const scale = 0.03 * Math.exp(0.4 * random.normal());
    for (let c = 0; c < cols; c++) values.push(random.normal() * scale * columns[c]!);
  }
  if (dtype === "BF16") return new Uint8Array(Uint16Array.from(values, encodeBf16).buffer);
  if (dtype === "F16") return new Uint8Array(Uint16Array.from(values, (x) => encodeFloat(F16, x)).buffer);
  return Uint8Array.from(values, (x) => Math.max(-127, Math.min(127, roundHalfEven(600 * x))) & 0xff);
}

/** Both coders give the same payload, and both decode it to the elements. @returns the payload. */
function agree(dtype: DType, shape: readonly number[], bytes: Uint8Array, level: "max" | "fast"): Buffer {
  const expected = Buffer.concat(encodePayload(dtype, shape, bytes, level, definition));
  const found = Buffer.concat(encodePayload(dtype, shape, bytes, level, coder));
  expect(found.equals(expected)).toBe(true);
  const tail = parseTail("w", dtype, shape, found.subarray(found.length - tailLength("w", found, found.length)), found.length);
  for (const each of [definition, coder]) {
    const decoded = new Uint8Array(bytes.length);
    decodeBlocks("w", tail, 0, tail.checksums.length, found, each, decoded);
    expect(Buffer.compare(decoded, bytes)).toBe(0);
  }
  return found;
}

describe("the WASM coder gives the bytes of the definition and decodes them", () => {
  for (const level of LEVELS) {
    test(`for every dtype it codes, at shapes around vectors, streams and blocks (${level})`, () => {
      expect.hasAssertions();
      let seed = 1;
      for (const dtype of ["BF16", "F16", "I8", "U8"] as const) {
        for (const shape of [[1, 384], [7], [1], [31, 40], [32, 16], [33, 129], [5, 4100], [2, 70000], [140, 1023], [64, 3, 5, 5]]) {
          const [rows, cols] = [shape[0]!, shape.slice(1).reduce((a, b) => a * b, 1)];
          agree(dtype, shape, weights(dtype, rows, cols, seed++), level);
        }
      }
    });

    test(`for all 65,536 patterns, in order and shuffled, as bf16 and f16 (${level})`, () => {
      expect.hasAssertions();
      const random = createRandom(9);
      const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
      const shuffled = all.slice();
      for (let i = 65535; i > 0; i--) {
        const j = random.below(i + 1);
        [shuffled[i], shuffled[j]] = [shuffled[j]!, shuffled[i]!];
      }
      for (const dtype of ["BF16", "F16"] as const) {
        for (const patterns of [all, shuffled]) {
          for (const shape of [[256, 256], [65536]]) agree(dtype, shape, new Uint8Array(patterns.buffer), level);
        }
        // Among ordinary weights they are escapes, not a whole block stored plain.
        const mixed = new Uint16Array(weights(dtype, 128, 1024, 3).slice().buffer);
        for (let i = 0; i < 16384; i++) mixed[8 * i + random.below(8)] = shuffled[i]!;
        agree(dtype, [128, 1024], new Uint8Array(mixed.buffer), level);
      }
    });

    test(`for constant tensors, zeros of both signs, infinities and NaN payloads (${level})`, () => {
      expect.hasAssertions();
      for (const pattern of [0, 0x8000, 0x7f80, 0xff80, 0x7fc1, 0xffff, 0x0001, 0x3f80, 0x7c00, 0x7bff]) {
        for (const dtype of ["BF16", "F16"] as const) {
          for (const shape of [[64, 64], [1], [100]]) {
            const patterns = new Uint16Array(shape.reduce((a, b) => a * b, 1)).fill(pattern);
            agree(dtype, shape, new Uint8Array(patterns.buffer), level);
          }
        }
      }
      for (const byte of [0, 1, 255]) agree("I8", [100, 700], new Uint8Array(70000).fill(byte), level);
    });

    test(`for random contents of every skew (${level})`, () => {
      expect.hasAssertions();
      fc.assert(
        fc.property(
          fc.integer(),
          fc.integer({ min: 1, max: 90 }),
          fc.integer({ min: 1, max: 200 }),
          fc.integer({ min: 0, max: 16 }),
          (seed, rows, cols, width) => {
            const random = createRandom(seed);
            const center = random.below(65536);
            const patterns = Uint16Array.from({ length: rows * cols }, () => center ^ random.below(2 ** width));
            agree("BF16", [rows, cols], new Uint8Array(patterns.buffer), level);
            agree("F16", [rows, cols], new Uint8Array(patterns.buffer), level);
            agree("I8", [rows, 2 * cols], new Uint8Array(patterns.buffer), level);
          },
        ),
        { seed: 7, numRuns: 40 },
      );
    });
  }
});

test("Gaussian weights with row and column scales take under 10.55 bits at max and 10.58 at fast, f16 under 13.6", () => {
  const bits = (dtype: DType, level: "max" | "fast"): number =>
    (8 * agree(dtype, [512, 512], weights(dtype, 512, 512, 5), level).length) / 512 ** 2;
  expect(bits("BF16", "max")).toBeLessThan(10.55);
  expect(bits("BF16", "fast")).toBeLessThan(10.58);
  expect(bits("F16", "max")).toBeLessThan(13.6);
});

test("in the workspace's own memory blocks are decoded in place, and no byte beside the elements is written, however damaged the block", () => {
  const workspace = createWorkspace(64);
  const view = viewMatrix("BF16", [260, 67])!;
  const bytes = weights("BF16", 260, 67, 8);
  const columns = definition.fitColumns(view, bytes);
  const model = { classes: { rows: definition.fitRows(view, columns, "fast", bytes), columns }, tables: FLOAT_TABLES };
  const random = createRandom(4);
  const guarded = workspace.bytes(workspace.take(bytes.length + 256));
  const at = workspace.take(bytes.length);
  const inPlace = createCompactCoder(workspace);
  for (const level of LEVELS) {
    const { block } = definition.encodeBlock(view, model, level, 0, bytes);
    let refused = 0;
    for (let i = 0; i < 300; i++) {
      const damaged = workspace.bytes(at).subarray(0, block.length);
      damaged.set(block);
      if (i > 0) for (let k = random.below(4); k >= 0; k--) damaged[random.below(damaged.length)] = random.below(256);
      guarded.fill(0xa5);
      const out = guarded.subarray(128, 128 + bytes.length);
      try {
        const sum = inPlace.decodeBlock("w", view, model, level, 0, damaged, out);
        expect(sum).toBe(definition.checksum(out));
        if (i === 0) expect(Buffer.compare(out, bytes)).toBe(0);
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
        refused++;
      }
      expect([...guarded.subarray(0, 128), ...guarded.subarray(128 + bytes.length)].every((byte) => byte === 0xa5)).toBe(true);
    }
    // Huffman streams mostly find their way again: that is what the checksum is for.
    expect(refused).toBeGreaterThan(level === "max" ? 100 : 10);
  }
});

test("a tensor of several ranges comes back whole, and by rows from both sides of where ranges meet", async () => {
  const [rows, cols] = [2200, 2051];
  const some = new Uint16Array(weights("BF16", 64, 512, 21).slice().buffer);
  const patterns = Uint16Array.from({ length: rows * cols }, (_, i) => some[(i * 7 + (i >> 9)) % some.length]!);
  const bytes = new Uint8Array(patterns.buffer);
  const view = viewMatrix("BF16", [rows, cols])!;
  const boundary = blocksPerRange(view) * view.rowsPerBlock;
  expect(view.blocks).toBeGreaterThan(blocksPerRange(view));
  for (const level of LEVELS) {
    const source = compactSource([lazyOf("w", { dtype: "BF16", shape: [rows, cols], bytes })]);
    const stored = await encodeCompact(source, { level, encoder: encodeWith(coder), ahead: 2 });
    const file = await openCompact(memorySource("w", stored), coder);
    const [whole, across] = [await file.tensors.get("w")!.read(), await file.readRows("w", boundary - 1, 2)];
    expect(Buffer.compare(whole.bytes, bytes)).toBe(0);
    expect(Buffer.compare(across.bytes, bytes.subarray(2 * cols * (boundary - 1), 2 * cols * (boundary + 1)))).toBe(0);
  }
});
