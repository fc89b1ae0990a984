import { expect, test } from "vitest";
import { FormatError } from "../core/errors.ts";
import { wasm as df11 } from "./generated/df11.wasm.ts";
import { privateMemory } from "./private-memory.ts";

test("one byte changes, and the module runs on a memory that is not shared", () => {
  const before = Buffer.from(df11, "base64");
  const after = privateMemory(before);
  expect(after.filter((byte, i) => byte !== before[i])).toHaveLength(1);
  const memory = new WebAssembly.Memory({ initial: 4, maximum: 32768 });
  expect(() => new WebAssembly.Instance(new WebAssembly.Module(before), { env: { memory } })).toThrow(WebAssembly.LinkError);
  const { packGaps } = new WebAssembly.Instance(new WebAssembly.Module(after as BufferSource), { env: { memory } }).exports as {
    packGaps: (gaps: number, windows: number, out: number) => void;
  };
  const bytes = new Uint8Array(memory.buffer);
  bytes.set([31, 0, 1, 0, 0, 0, 0, 16], 1024);
  packGaps(1024, 8, 2048);
  expect([...bytes.subarray(2048, 2053)]).toEqual([0b11111_000, 0b00_00001_0, 0, 0, 0b000_10000]);
});

test("a module without a shared memory is refused", () => {
  expect(() => privateMemory(privateMemory(Buffer.from(df11, "base64")))).toThrow(FormatError);
  expect(() => privateMemory(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0))).toThrow(/no shared memory/);
});
