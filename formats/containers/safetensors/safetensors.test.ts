import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { DTYPES, type DType } from "../../../core/dtype.ts";
import { createTensor, tensorOf, type Tensor } from "../../../core/tensor.ts";
import { memorySource, openFileSource, readSmallFile } from "../bytes.ts";
import { openSafetensors } from "./read.ts";
import { encodeSafetensors, layoutSafetensors, writeSafetensors } from "./write.ts";

const scratch = mkdtempSync(join(tmpdir(), "bitwright-st-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Files written by the reference writer (safetensors 0.8 through transformers 5.17). */
const REFERENCE = [
  "fixtures/models/tiny-llama/model.safetensors",
  ...readdirSync("fixtures/models/minis").flatMap((name) =>
    readdirSync(join("fixtures/models/minis", name))
      .filter((file) => file.startsWith("model") && file.endsWith(".safetensors"))
      .map((file) => join("fixtures/models/minis", name, file)),
  ),
];

async function readAll(path: string): Promise<{ tensors: Map<string, Tensor>; metadata: Readonly<Record<string, string>> }> {
  const file = await openSafetensors(await openFileSource(path));
  const tensors = new Map<string, Tensor>();
  for (const [name, tensor] of file.tensors) tensors.set(name, await tensor.read());
  await file.close();
  return { tensors, metadata: file.metadata };
}

describe("writing", () => {
  test.each(REFERENCE)("%s: read and written again, the bytes are the reference writer's", async (path) => {
    const { tensors, metadata } = await readAll(path);
    // Insertion order must not matter.
    const shuffled = new Map([...tensors].toReversed());
    expect(Buffer.from(encodeSafetensors(shuffled, metadata)).equals(readFileSync(path))).toBe(true);
  });

  test("the example of the format: order by dtype, compact header, padding to 8", () => {
    const tensors = new Map<string, Tensor>([
      ["z", tensorOf(Uint8Array.of(7, 8, 9), [3])],
      ["b", createTensor("F16", [2], Uint8Array.of(0x00, 0x3c, 0x00, 0x40))],
      ["a", tensorOf(Float32Array.of(1), [1])],
      ["i", tensorOf(BigInt64Array.of(5n), [1])],
    ]);
    const bytes = encodeSafetensors(tensors, { format: "pt" });
    expect(bytes.length).toBe(275);
    expect([...bytes.subarray(0, 8)]).toEqual([0xf8, 0, 0, 0, 0, 0, 0, 0]);
    const header =
      `{"__metadata__":{"format":"pt"},"i":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},` +
      `"b":{"dtype":"F16","shape":[2],"data_offsets":[12,16]},"z":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}}`;
    expect(Buffer.from(bytes.subarray(8, 256)).toString()).toBe(header.padEnd(248, " "));
    expect(Buffer.from(bytes.subarray(256)).toString("hex")).toBe("05000000000000000000803f003c0040070809");
  });

  test("names sort by code point, as UTF-8 bytes do, not by UTF-16 unit", () => {
    const names = ["\u{1f600}", "\uffee", "a", "B", "é"];
    const { order } = layoutSafetensors(names.map((name) => ({ name, dtype: "U8", shape: [1] })));
    expect(order.map(({ name }) => name)).toEqual(["B", "a", "é", "\uffee", "\u{1f600}"]);
  });

  test("a name twice, the reserved name and bytes that do not fill a shape are refused", () => {
    const spec = { name: "a", dtype: "U8", shape: [1] } as const;
    expect(() => layoutSafetensors([spec, spec])).toThrow(/given twice/);
    expect(() => layoutSafetensors([{ ...spec, name: "__metadata__" }])).toThrow(/reserved/);
    expect(() => encodeSafetensors(new Map([["a", { ...spec, shape: [2], bytes: new Uint8Array(1) }]]))).toThrow(/takes 2 bytes, got 1/);
  });

  test("a file appears whole, with the bytes of encodeSafetensors and nothing beside it", async () => {
    const { tensors, metadata } = await readAll("fixtures/models/minis/bert/model.safetensors");
    const path = join(scratch, "out.safetensors");
    writeFileSync(path, "old");
    await writeSafetensors(path, tensors, metadata);
    expect(Buffer.from(encodeSafetensors(tensors, metadata)).equals(readFileSync(path))).toBe(true);
    expect(readdirSync(scratch)).toEqual(["out.safetensors"]);
  });
});

describe("reading", () => {
  test("any tensors of any dtype come back, and the layout says where they lie", async () => {
    const dtypes = Object.keys(DTYPES) as DType[];
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(
          fc.tuple(fc.string({ unit: "grapheme", maxLength: 12 }), fc.constantFrom(...dtypes), fc.array(fc.nat(4), { maxLength: 3 })),
          {
            selector: ([name]) => name,
            maxLength: 8,
          },
        ),
        fc.dictionary(fc.string({ maxLength: 5 }), fc.string({ maxLength: 5 })),
        async (entries, metadata) => {
          const tensors = new Map<string, Tensor>();
          for (const [name, dtype, sizes] of entries) {
            if (name === "__metadata__") continue;
            // Eight elements fill whole bytes in every dtype.
            const shape = [...sizes, 8];
            const count = shape.reduce((a, b) => a * b, 1);
            const bytes = Uint8Array.from({ length: (count * DTYPES[dtype].bits) / 8 }, (_, i) => i * 31 + name.length);
            tensors.set(name, createTensor(dtype, shape, bytes));
          }
          const bytes = encodeSafetensors(tensors, metadata);
          const file = await openSafetensors(memorySource("memory", bytes));
          expect(file.metadata).toEqual(metadata);
          expect(new Set(file.tensors.keys())).toEqual(new Set(tensors.keys()));
          const { offsets } = layoutSafetensors([...file.tensors.values()], metadata);
          for (const [name, tensor] of tensors) {
            expect(await file.tensors.get(name)!.read()).toEqual(tensor);
            const offset = offsets.get(name)!;
            expect(bytes.slice(offset, offset + tensor.bytes.length)).toEqual(tensor.bytes);
          }
        },
      ),
      { seed: 2, numRuns: 100 },
    );
  });

  test("tensors of a file say where they lie, and reads are copies the caller owns", async () => {
    const path = "fixtures/models/minis/llama/model.safetensors";
    const file = await openSafetensors(await openFileSource(path));
    const whole = readFileSync(path);
    for (const tensor of file.tensors.values()) {
      const { path: where, offset } = tensor.location!;
      const { bytes } = await tensor.read();
      expect([where, Buffer.from(bytes).equals(whole.subarray(offset, offset + tensor.byteLength))]).toEqual([path, true]);
      bytes.fill(0);
      expect((await tensor.read()).bytes).not.toEqual(bytes);
      break;
    }
    await file.close();
  });

  test("reads past the end and whole files over a limit are refused", async () => {
    const path = "fixtures/models/minis/llama/config.json";
    const source = await openFileSource(path);
    await expect(source.read(source.size - 1, 2)).rejects.toMatchObject({ code: "format.truncated" });
    await expect(source.read(-1, 2)).rejects.toMatchObject({ code: "format.truncated" });
    await source.close();
    await expect(readSmallFile(path, 10)).rejects.toMatchObject({ code: "format.limit" });
  });
});
