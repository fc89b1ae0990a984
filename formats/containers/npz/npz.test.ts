import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { QuantError } from "../../../core/errors.ts";
import { tensorOf, type Tensor } from "../../../core/tensor.ts";
import { memorySource } from "../bytes.ts";
import { npyBytes, parseNpy } from "./npy.ts";
import { parseNpz, readNpz, writeNpz } from "./npz.ts";
import { zipParts } from "./zip.ts";

const directory = mkdtempSync(join(tmpdir(), "bitwright-npz-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** numpy 2.4.6: savez_compressed(a=arange(6, float32).reshape(2, 3), b=array([[1, -2]], int64)). */
const DEFLATED =
  "UEsDBC0AAAAIAAAAIQBP6QAq//////////8FABQAYS5ucHkBABAAmAAAAAAAAABVAAAAAAAAAJvsF+obEMnIUMZQrZ6SWpxcpG6loG6TZqKuo6Cell9UUpSYF59flJIKEndLzClOBYoXZyQWpAL5GkY6CsaaOgq1CmQDLgYwaLAHEg5ABMQNQLzAAQBQSwMELQAAAAgAAAAhAF+7gRz//////////wUAFABiLm5weQEAEACQAAAAAAAAAE0AAAAAAAAAm+wX6hsQychQxlCtnpJanFykbqWgbpNpoa6joJ6WX1RSlJgXn1+UkgoSd0vMKU4FihdnJBakAvkahjoKRpo6CrUKZAMuRgYI+PcfAgBQSwECLQMtAAAACAAAACEAT+kAKlUAAACYAAAABQAAAAAAAAAAAAAAgAEAAAAAYS5ucHlQSwECLQMtAAAACAAAACEAX7uBHE0AAACQAAAABQAAAAAAAAAAAAAAgAGMAAAAYi5ucHlQSwUGAAAAAAIAAgBmAAAAEAEAAAAA";
/** numpy 2.4.6: savez(x=array([True, False]), s=float16(1.5)). */
const STORED =
  "UEsDBC0AAAAAAAAAIQDuGbtd//////////8FABQAeC5ucHkBABAAggAAAAAAAACCAAAAAAAAAJNOVU1QWQEAdgB7J2Rlc2NyJzogJ3xiMScsICdmb3J0cmFuX29yZGVyJzogRmFsc2UsICdzaGFwZSc6ICgyLCksIH0gICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAKAQBQSwMELQAAAAAAAAAhAER5bV3//////////wUAFABzLm5weQEAEACCAAAAAAAAAIIAAAAAAAAAk05VTVBZAQB2AHsnZGVzY3InOiAnPGYyJywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKCksIH0gICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAPlBLAQItAy0AAAAAAAAAIQDuGbtdggAAAIIAAAAFAAAAAAAAAAAAAACAAQAAAAB4Lm5weVBLAQItAy0AAAAAAAAAIQBEeW1dggAAAIIAAAAFAAAAAAAAAAAAAACAAbkAAABzLm5weVBLBQYAAAAAAgACAGYAAAByAQAAAAA=";

const numpy = (base64: string): Promise<Map<string, Tensor>> => parseNpz(memorySource("numpy.npz", Buffer.from(base64, "base64")));
const joined = (parts: readonly Uint8Array[]): Buffer => Buffer.concat(parts);

test("arrays of numpy.savez_compressed and numpy.savez are read with their types, shapes and values", async () => {
  const deflated = await numpy(DEFLATED);
  expect([...deflated].map(([name, { dtype, shape }]) => [name, dtype, shape])).toEqual([
    ["a", "F32", [2, 3]],
    ["b", "I64", [1, 2]],
  ]);
  expect(Buffer.from(deflated.get("a")!.bytes)).toEqual(Buffer.from(Float32Array.from([0, 1, 2, 3, 4, 5]).buffer));
  expect(Buffer.from(deflated.get("b")!.bytes)).toEqual(Buffer.from(BigInt64Array.from([1n, -2n]).buffer));
  const stored = await numpy(STORED);
  expect([...stored].map(([name, { dtype, shape, bytes }]) => [name, dtype, shape, [...bytes]])).toEqual([
    ["x", "BOOL", [2], [1, 0]],
    ["s", "F16", [], [0, 0x3e]],
  ]);
});

test("what is written reads back the same, twice with the same bytes, under any name", async () => {
  const path = join(directory, "out.npz");
  const tensors = new Map([
    ["logits", tensorOf(Float32Array.from([1, 2, 3, 4, 5, 6]), [1, 2, 3])],
    ["__proto__", tensorOf(Int32Array.from([7]), [1])],
    ["größe", tensorOf(new BigInt64Array(0), [0])],
  ]);
  await writeNpz(path, tensors);
  const first = readFileSync(path);
  const read = await readNpz(path);
  expect([...read].map(([name, tensor]) => [name, tensor.dtype, tensor.shape, Buffer.from(tensor.bytes)])).toEqual(
    [...tensors].map(([name, tensor]) => [name, tensor.dtype, tensor.shape, Buffer.from(tensor.bytes)]),
  );
  await writeNpz(path, tensors);
  expect(readFileSync(path)).toEqual(first);
});

test("data of a written array starts at a multiple of 64", () => {
  const bytes = npyBytes(tensorOf(new Float32Array(3), [3]), "x");
  expect((bytes.byteLength - 12) % 64).toBe(0);
  expect(parseNpy(bytes, "x").shape).toEqual([3]);
});

describe("hostile files", () => {
  const header = (text: string, data = 0): Uint8Array => {
    const body = Buffer.from(text, "latin1");
    return joined([
      Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, body.length & 255, body.length >> 8]),
      body,
      new Uint8Array(data),
    ]);
  };
  test.each([
    ["{'descr': '>f4', 'fortran_order': False, 'shape': (), }", "unsupported.dtype"],
    ["{'descr': '|O', 'fortran_order': False, 'shape': (), }", "unsupported.dtype"],
    ["{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }", "unsupported.format"],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", "format.truncated"],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999999), }", "format.field"],
    ["{'descr': '<f4', 'fortran_order': False, }", "format.field"],
    ["{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (), }", "format.field"],
    ["{'descr': __import__('os'), 'fortran_order': False, 'shape': (), }", "format.field"],
    [`{'shape': (${"1".repeat(5000)}x`, "format.field"],
    [`{'shape': (${"1 ".repeat(5000)}), }`, "format.field"],
  ])("header %# is refused as $1", (text, code) => {
    const needed = text.includes("True") ? 16 : text.includes("(3,)") ? 11 : 4;
    expect(() => parseNpy(header(text, needed), "x.npy")).toThrowError(expect.objectContaining({ code }));
  });

  test("entries that overlap, appear twice, lie about their size or fail their checksum are refused", async () => {
    const content = npyBytes(tensorOf(new Float32Array(4), [4]), "a");
    const whole = joined(zipParts([{ name: "a.npy", content }]));
    const directoryAt = whole.readUInt32LE(whole.length - 6);
    const changed = (at: number, value: number): Promise<unknown> => {
      const copy = Buffer.from(whole);
      copy.writeUInt32LE(value, at);
      return parseNpz(memorySource("x.npz", copy));
    };
    await expect(changed(directoryAt + 16, 1)).rejects.toMatchObject({ code: "format.checksum" });
    await expect(changed(directoryAt + 24, 5)).rejects.toMatchObject({ code: "format.field" });
    await expect(changed(directoryAt + 42, 40)).rejects.toMatchObject({ code: "format.overlap" });
    const twice = joined(zipParts([1, 2].map(() => ({ name: "a.npy", content }))));
    await expect(parseNpz(memorySource("x.npz", twice))).rejects.toMatchObject({ code: "format.duplicate" });
    const other = joined(zipParts([{ name: "a.txt", content }]));
    await expect(parseNpz(memorySource("x.npz", other))).rejects.toMatchObject({ code: "format.field" });
  });

  test("an entry never inflates beyond the size it states", async () => {
    const bomb = deflateRawSync(new Uint8Array(2 ** 22));
    const whole = joined(zipParts([{ name: "a.npy", content: bomb }]));
    const directoryAt = whole.readUInt32LE(whole.length - 6);
    whole.writeUInt16LE(8, directoryAt + 10);
    whole.writeUInt32LE(100, directoryAt + 24);
    await expect(parseNpz(memorySource("x.npz", whole))).rejects.toMatchObject({ code: "format.field" });
  });

  test("mutated and cut files give arrays or a typed error", async () => {
    const files = [DEFLATED, STORED].map((text) => Buffer.from(text, "base64"));
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...files),
        fc.array(fc.tuple(fc.nat(500), fc.nat(255)), { maxLength: 4 }),
        fc.nat(120),
        async (file, edits, cut) => {
          const copy = Buffer.from(file.subarray(0, file.length - (cut > 60 ? cut - 60 : 0)));
          for (const [at, value] of edits) copy[at % copy.length] = value;
          const error: unknown = await parseNpz(memorySource("x.npz", copy)).then(
            () => undefined,
            (cause: unknown) => cause,
          );
          if (error === undefined) return;
          refused++;
          expect(error).toBeInstanceOf(QuantError);
        },
      ),
      { seed: 5, numRuns: 2000 },
    );
    expect(refused).toBeGreaterThan(500);
  });
});
