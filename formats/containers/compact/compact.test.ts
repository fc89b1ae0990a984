import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { encodeBf16 } from "../../../core/float.ts";
import { createRandom } from "../../../core/random.ts";
import { roundHalfEven } from "../../../core/round.ts";
import { lazyOf, tensorOf, type Tensor } from "../../../core/tensor.ts";
import { memorySource } from "../bytes.ts";
import { encodeSafetensors } from "../safetensors/write.ts";
import { openCompact, type CompactFile } from "./read.ts";
import { compactSource, compactSourceOf, encodeCompact, writeCompact } from "./write.ts";

const random = createRandom(3);
const bf16 = (shape: readonly number[], scale = 0.02): Tensor => {
  const count = shape.reduce((a, b) => a * b, 1);
  return {
    ...tensorOf(
      Uint16Array.from({ length: count }, () => encodeBf16(random.normal() * scale)),
      shape,
    ),
    dtype: "BF16",
  };
};
const embedding = bf16([700, 480]);
const TENSORS = new Map<string, Tensor>([
  ["embed.weight", embedding],
  ["head.weight", { ...embedding, bytes: embedding.bytes.slice() }],
  ["norm.weight", bf16([480], 1)],
  ["conv.weight", bf16([40, 3, 5, 5])],
  ["scalar", tensorOf(Float64Array.of(7), [])],
  ["empty", tensorOf(new Int8Array(0), [0, 5])],
  [
    "codes",
    tensorOf(
      Int8Array.from({ length: 90000 }, () => roundHalfEven(random.normal() * 12)),
      [300, 300],
    ),
  ],
  [
    "random",
    tensorOf(
      Uint8Array.from({ length: 300001 }, () => random.below(256)),
      [300001],
    ),
  ],
  ["odd", tensorOf(Uint8Array.of(1, 2, 3), [3])],
]);
const SAFETENSORS = encodeSafetensors(TENSORS, { format: "pt" });
const compress = async (level: "max" | "fast"): Promise<Uint8Array> =>
  await encodeCompact(await compactSourceOf(memorySource("s", SAFETENSORS)), { level });
const open = async (bytes: Uint8Array): Promise<CompactFile> => await openCompact(memorySource("c", bytes));

describe("a compact file", () => {
  for (const level of ["max", "fast"] as const) {
    test(`holds a safetensors file to the byte, smaller (${level})`, async () => {
      const bytes = await compress(level);
      const file = await open(bytes);
      const parts: Uint8Array[] = [file.header];
      for (const lazy of file.tensors.values()) {
        const { dtype, shape, bytes: found } = await lazy.read();
        expect([dtype, shape]).toEqual([TENSORS.get(lazy.name)!.dtype, TENSORS.get(lazy.name)!.shape]);
        expect(Buffer.compare(found, TENSORS.get(lazy.name)!.bytes), lazy.name).toBe(0);
        parts.push(found);
      }
      expect(Buffer.compare(Buffer.concat(parts), SAFETENSORS)).toBe(0);
      expect([file.fileBytes, file.metadata]).toEqual([SAFETENSORS.length, { format: "pt" }]);
      expect(bytes.length).toBeLessThan(0.62 * SAFETENSORS.length);
    });

    test(`gives any rows as the whole tensor has them, across block boundaries (${level})`, async () => {
      const file = await open(await compress(level));
      for (const [name, { shape, bytes }] of TENSORS) {
        if (shape.length === 0) continue;
        const rows = shape[0]!;
        const rowBytes = rows === 0 ? 0 : bytes.length / rows;
        for (const [from, count] of [
          [0, 0],
          [0, 1],
          [272, 2],
          [rows - 1, 1],
          [0, rows],
          [250, 300],
          [rows, 0],
        ] as const) {
          if (from < 0 || from + count > rows) continue;
          const part = await file.readRows(name, from, count);
          expect(part.shape).toEqual([count, ...shape.slice(1)]);
          expect(Buffer.compare(part.bytes, bytes.subarray(from * rowBytes, (from + count) * rowBytes)), `${name} ${from}`).toBe(0);
        }
      }
    });
  }

  test("stores tensors with the same bytes once", async () => {
    const file = await open(await compress("max"));
    const [first, second] = [await file.stored("embed.weight"), await file.stored("head.weight")];
    expect(second.offset).toBe(first.offset);
    expect([first.sameAs, second.sameAs]).toEqual([undefined, "embed.weight"]);
    const { bytes } = await file.tensors.get("head.weight")!.read();
    expect(Buffer.compare(bytes, embedding.bytes)).toBe(0);
  });

  test("is the same for every number of tensors ahead, and on disk", async () => {
    const source = await compactSourceOf(memorySource("s", SAFETENSORS));
    const one = await encodeCompact(source, { level: "fast" });
    expect(Buffer.compare(await encodeCompact(source, { level: "fast", ahead: 4 }), one)).toBe(0);
    const directory = mkdtempSync(join(tmpdir(), "compact-"));
    const path = join(directory, "model.compact");
    expect(await writeCompact(path, source, { level: "fast" })).toBe(one.length);
    expect(Buffer.compare(readFileSync(path), one)).toBe(0);
    rmSync(directory, { recursive: true });
  });

  test("can be made of tensors that are in no file, in the order of the safetensors writer", async () => {
    const source = compactSource(
      [...TENSORS].map(([name, tensor]) => lazyOf(name, tensor)),
      { format: "pt" },
    );
    expect(Buffer.compare(source.header, SAFETENSORS.subarray(0, source.header.length))).toBe(0);
    expect(Buffer.compare(await encodeCompact(source, { level: "max" }), await compress("max"))).toBe(0);
  });

  test("refuses rows and names it does not have", async () => {
    const file = await open(await compress("fast"));
    await expect(file.readRows("norm.weight", 470, 20)).rejects.toMatchObject({ code: "input.value" });
    await expect(file.readRows("__proto__", 0, 1)).rejects.toMatchObject({ code: "input.value" });
  });

  test("that is no compact file, cut short, or of another version says so", async () => {
    const bytes = await compress("fast");
    const changed = (at: number, value: number): Uint8Array => bytes.map((byte, i) => (i === at ? value : byte));
    await expect(open(SAFETENSORS)).rejects.toMatchObject({ code: "format.magic" });
    await expect(open(bytes.subarray(0, 20))).rejects.toMatchObject({ code: "format.truncated" });
    await expect(open(bytes.subarray(0, bytes.length - 1))).rejects.toMatchObject({ code: "format.truncated" });
    await expect(open(changed(bytes.length - 12, 2))).rejects.toMatchObject({ code: "format.field" });
    await expect(open(changed(bytes.length - 40, bytes.at(-40)! ^ 1))).rejects.toMatchObject({
      code: expect.stringMatching(/^format\.(checksum|field)$/),
    });
  });

  test("with one flipped bit anywhere in a tensor gives a typed error naming it", async () => {
    const bytes = await compress("max");
    const clean = await open(bytes);
    const { offset, bytes: length } = await clean.stored("embed.weight");
    const flips = createRandom(5);
    for (let i = 0; i < 40; i++) {
      const damaged = bytes.slice();
      damaged[offset + flips.below(length)]! ^= 1 << flips.below(8);
      const file = await open(damaged);
      const outcome = await file.tensors
        .get("embed.weight")!
        .read()
        .catch((error: unknown) => error);
      if (outcome instanceof Error) expect(outcome.message).toContain("embed.weight");
      // Padding belongs to no element.
      else expect(Buffer.compare((outcome as Tensor).bytes, embedding.bytes)).toBe(0);
    }
  });
});
