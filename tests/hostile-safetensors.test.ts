/**
 * Every rule of the safetensors format, broken one at a time (the table of the reference reader, 0.8.0).
 */
import { describe, expect, test } from "vitest";
import { memorySource } from "../formats/containers/bytes.ts";
import { openSafetensors } from "../formats/containers/safetensors/read.ts";

/** A file from header text and data. @param declared - header length written, when it is to lie. */
function file(header: string | Uint8Array, data: number | Uint8Array = 0, declared?: bigint): Uint8Array {
  const text = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const body = typeof data === "number" ? new Uint8Array(data) : data;
  const out = new Uint8Array(8 + text.length + body.length);
  new DataView(out.buffer).setBigUint64(0, declared ?? BigInt(text.length), true);
  out.set(text, 8);
  out.set(body, 8 + text.length);
  return out;
}

const entry = (dtype: string, shape: string, begin: number | string, end: number | string): string =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`;
const one = (dtype: string, shape: string, bytes: number): string => `{"a":${entry(dtype, shape, 0, bytes)}}`;
const open = async (bytes: Uint8Array): Promise<unknown> => openSafetensors(memorySource("hostile.safetensors", bytes));

describe("refused", () => {
  test.each<[string, string, Uint8Array, RegExp]>([
    ["an empty file", "format.truncated", new Uint8Array(0), /0 bytes/],
    ["seven bytes", "format.truncated", new Uint8Array(7), /7 bytes/],
    ["a header length over 100,000,000", "format.limit", file("{}", 0, 100_000_001n), /100000001/],
    ["the largest header length", "format.limit", file("{}", 0, 2n ** 64n - 1n), /18446744073709551615/],
    ["a header longer than the file", "format.truncated", file("{}", 0, 3n), /byte 11, the file at byte 10/],
    ["a header of exactly the limit in a short file", "format.truncated", file("{}", 0, 100_000_000n), /100000008/],
    ["no header", "format.magic", file(""), /must start with/],
    ["leading spaces", "format.magic", file("  {}"), /must start with/],
    ["a list", "format.magic", file("[]"), /must start with/],
    ["a byte order mark", "format.magic", file("\ufeff{}"), /must start with/],
    ["NUL padding", "format.field", file("{}\0\0"), /not JSON/],
    ["two objects", "format.field", file("{}{}"), /not JSON/],
    ["cut JSON", "format.field", file('{"a":'), /not JSON/],
    ["invalid UTF-8", "format.field", file(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x7d)), /UTF-8/],
    ["bytes after the last tensor", "format.overlap", file(one("U8", "[2]", 2), 3), /1 bytes after the last tensor/],
    ["data without tensors", "format.overlap", file("{}", 1), /not fully covered/],
    ["data cut short", "format.truncated", file(one("U8", "[4]", 4), 3), /take 4 bytes, the file holds 3/],
    ["a first offset that is not 0", "format.overlap", file(`{"a":${entry("U8", "[2]", 1, 3)}}`, 3), /hole: bytes 0 to 1/],
    ["a hole", "format.overlap", file(`{"a":${entry("U8", "[1]", 0, 1)},"b":${entry("U8", "[1]", 2, 3)}}`, 3), /"b" at 2 leaves a hole/],
    ["an overlap", "format.overlap", file(`{"a":${entry("U8", "[2]", 0, 2)},"b":${entry("U8", "[2]", 1, 3)}}`, 3), /"b" at 1 overlaps/],
    [
      "two tensors in one range",
      "format.overlap",
      file(`{"a":${entry("U8", "[2]", 0, 2)},"b":${entry("U8", "[2]", 0, 2)}}`, 2),
      /overlaps/,
    ],
    ["fewer bytes than the shape takes", "format.field", file(one("F32", "[2]", 4), 4), /span 4 bytes, but F32 \[2\] takes 8/],
    ["offsets that run backwards", "format.field", file(`{"a":${entry("U8", "[1]", 2, 1)}}`, 2), /before begin/],
    ["half a byte of F4", "format.field", file(one("F4", "[3]", 2), 2), /12 bits, not whole bytes/],
    ["an unknown dtype", "format.field", file(one("F128", "[1]", 16), 16), /"F128" is unknown/],
    ["a dtype of Object.prototype", "format.field", file(one("constructor", "[0]", 0)), /"constructor" is unknown/],
    ["a dtype that is a number", "format.field", file(`{"a":{"dtype":1,"shape":[],"data_offsets":[0,1]}}`, 1), /dtype must be a string/],
    ["a negative dimension", "format.field", file(one("U8", "[-1]", 1), 1), /shape holds -1/],
    ["two negative dimensions", "format.field", file(one("U8", "[-1,-1]", 1), 1), /shape holds -1/],
    ["a fractional dimension", "format.field", file(one("U8", "[1.5]", 1), 1), /shape holds 1.5/],
    ["a dimension written as a float", "format.field", file(one("U8", "[1.0]", 1), 1), /shape holds 1.0/],
    ["a dimension with an exponent", "format.field", file(one("U8", "[1e0]", 1), 1), /shape holds 1e0/],
    ["a dimension that is text", "format.field", file(one("U8", '["1"]', 1), 1), /shape must be a list/],
    ["a shape that is a number", "format.field", file(one("U8", "1", 1), 1), /shape must be a list/],
    ["a shape of lists", "format.field", file(one("U8", "[[1]]", 1), 1), /shape must be a list/],
    ["a dimension beyond 2^53", "format.field", file(one("U8", "[9007199254740993]", 1), 1), /2\^53/],
    ["a product that overflows", "format.field", file(one("U8", "[4294967296,4294967296]", 0)), /more bits than 2\^53/],
    [
      "a product that wraps to the right size in 64 bits",
      "format.field",
      file(one("U8", "[4294967296,4294967297]", 4294967296)),
      /more bits than 2\^53/,
    ],
    ["a product that overflows before a 0", "format.field", file(one("U8", "[4294967296,4294967296,0]", 0)), /more bits than 2\^53/],
    [
      "offsets beyond 2^53",
      "format.field",
      file(`{"a":${entry("U8", "[1]", "18446744073709551615", "18446744073709551616")}}`, 1),
      /data_offsets/,
    ],
    ["one offset", "format.field", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}}`, 1), /data_offsets must be two/],
    ["no dtype", "format.field", file(`{"a":{"shape":[1],"data_offsets":[0,1]}}`, 1), /dtype is missing/],
    ["no shape", "format.field", file(`{"a":{"dtype":"U8","data_offsets":[0,1]}}`, 1), /shape is missing/],
    ["no offsets", "format.field", file(`{"a":{"dtype":"U8","shape":[1]}}`, 1), /data_offsets is missing/],
    ["an entry that is null", "format.field", file(`{"a":null}`), /entry must be an object/],
    ["an entry that is a list", "format.field", file(`{"a":[]}`), /entry must be an object/],
    ["fields inherited through __proto__", "format.field", file(`{"a":{"__proto__":${entry("U8", "[1]", 0, 1)}}}`, 1), /dtype is missing/],
    ["a tensor twice", "format.duplicate", file(`{"a":${entry("U8", "[1]", 0, 1)},"a":${entry("U8", "[1]", 0, 1)}}`, 1), /"a" twice/],
    [
      "a tensor twice, once escaped",
      "format.duplicate",
      file(`{"a":${entry("U8", "[1]", 0, 1)},"\\u0061":${entry("U8", "[1]", 0, 1)}}`, 1),
      /"a" twice/,
    ],
    [
      "__proto__ twice",
      "format.duplicate",
      file(`{"__proto__":${entry("U8", "[0]", 0, 0)},"__proto__":${entry("U8", "[0]", 0, 0)}}`),
      /twice/,
    ],
    ["a field twice", "format.duplicate", file(`{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}`, 1), /"dtype" twice/],
    ["two __metadata__", "format.duplicate", file(`{"__metadata__":{},"__metadata__":{}}`), /__metadata__.* twice/],
    ["metadata that is not text", "format.field", file(`{"__metadata__":{"a":1}}`), /"a" must be a string/],
    ["metadata that is a list", "format.field", file(`{"__metadata__":[]}`), /object of strings/],
    ["half a surrogate pair in a name", "format.field", file(`{"\\ud800":${entry("U8", "[0]", 0, 0)}}`), /not well-formed/],
    ["deep nesting", "format.field", file(`{"a":${"[".repeat(100_000)}`), /deeper than 16/],
    ["deep nesting of objects", "format.field", file(`${'{"a":'.repeat(50_000)}1${"}".repeat(50_000)}`), /deeper than 16/],
  ])("%s: %s", async (_, code, bytes, message) => {
    await expect(open(bytes)).rejects.toMatchObject({ code, message: expect.stringMatching(message) as string });
  });
});

describe("accepted", () => {
  const names = async (bytes: Uint8Array): Promise<readonly string[]> => [
    ...(await openSafetensors(memorySource("ok", bytes))).tensors.keys(),
  ];

  test.each<[string, Uint8Array, readonly string[]]>([
    ["no tensors", file("{}"), []],
    ["a header whose length is not a multiple of 8", file(one("U8", "[1]", 1), 1), ["a"]],
    ["trailing spaces and a newline", file(`${one("U8", "[1]", 1)}  \n`, 1), ["a"]],
    ["metadata that is null", file(`{"__metadata__":null}`), []],
    ["unknown keys of an entry", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"note":{"x":[1.5]}}}`, 1), ["a"]],
    [
      "a scalar and empty tensors",
      file(`{"s":${entry("F32", "[]", 0, 4)},"e":${entry("F32", "[0,7]", 4, 4)},"f":${entry("U8", "[3,0]", 0, 0)}}`, 4),
      ["f", "s", "e"],
    ],
    [
      "names of Object.prototype",
      file(`{"__proto__":${entry("U8", "[1]", 0, 1)},"constructor":${entry("U8", "[1]", 1, 2)}}`, 2),
      ["__proto__", "constructor"],
    ],
    ["entries in another order than the data", file(`{"b":${entry("U8", "[1]", 1, 2)},"a":${entry("U8", "[1]", 0, 1)}}`, 2), ["a", "b"]],
  ])("%s", async (_, bytes, expected) => {
    expect(await names(bytes)).toEqual(expected);
  });

  test("a header of a hundred thousand tensors takes linear time", async () => {
    const count = 100_000;
    const entries = Array.from({ length: count }, (_, i) => `"t${i}":${entry("U8", "[1]", i, i + 1)}`);
    const start = performance.now();
    expect(await names(file(`{${entries.join(",")}}`, count))).toHaveLength(count);
    expect(performance.now() - start).toBeLessThan(20_000);
  });
});
