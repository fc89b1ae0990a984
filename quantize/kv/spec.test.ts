import { expect, test } from "vitest";
import { parseKv } from "./spec.ts";

test("a name alone stores keys and values alike, queries stay float", () => {
  const spec = parseKv("bfp12:block=32");
  expect(spec.k).toMatchObject({ kind: "block", format: { name: "bfp12", block: 32 } });
  expect(spec.v).toEqual(spec.k);
  expect(spec.q).toEqual({ kind: "float", dtype: "F32" });
  expect(spec).toMatchObject({ mode: "all", centre: "none", order: "none" });
});

test("values, queries, mode, centre and order have keys", () => {
  const spec = parseKv("bfp12:block=16,v=f16,q=bfp16,mode=stream,window=64,sinks=4,centre=mean,order=score");
  expect(spec.v).toEqual({ kind: "float", dtype: "F16" });
  expect(spec.q).toMatchObject({ kind: "block", format: { name: "bfp16", block: 16 } });
  expect(spec).toMatchObject({ mode: "stream", window: 64, sinks: 4, centre: "mean", order: "score" });
});

test.each(["mxfp8", "mxfp4", "mxint8", "int8", "f16", "bf16", "nvfp4", "bfp16"])("%s is a format of a cache", (name) => {
  expect(parseKv(name).text).toBe(name);
});

test.each([
  ["w4a16", /no format of a cache/],
  ["bfp12:blok=32", /blok/],
  ["bfp12:block=0", /block=0/],
  ["bfp12:block=32,block=16", /twice/],
  ["bfp12:centre=median", /centre=median/],
  ["bfp12:window=8", /mode=stream/],
  ["bfp99", /bfp99/],
  ["bfp12:__proto__=1", /__proto__/],
  ["", /no format/],
])("--kv %s is refused and says what is wrong", (text, message) => {
  expect(() => parseKv(text)).toThrow(message);
});
