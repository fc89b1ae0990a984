import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { packBits } from "../pack.ts";
import { NVFP4, parseBlockFormat } from "./format.ts";
import { encodeScales, nvfp4GlobalScale, quantizeBlocks } from "./quantize.ts";

describe("llm-compressor's bytes", () => {
  const file = readFileSync("fixtures/models/tiny-llama/model.safetensors");
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + headerBytes)) as Record<
    string,
    { shape: [number, number]; data_offsets: [number, number] }
  >;
  const linears = Object.keys(header).filter((name) => name.endsWith("_proj.weight"));
  const cache = new Map<string, Float32Array>();
  const weight = (name: string): Float32Array => {
    const known = cache.get(name);
    if (known !== undefined) return known;
    const [start, end] = header[name]!.data_offsets;
    const at = 8 + headerBytes;
    const bits = new Uint32Array((end - start) / 2);
    for (let i = 0; i < bits.length; i++) bits[i] = file.readUInt16LE(at + start + 2 * i) << 16;
    const values = new Float32Array(bits.buffer);
    cache.set(name, values);
    return values;
  };
  const FUSED = [/[qkv]_proj/, /(gate|up)_proj/];
  const partners = (name: string): string[] => {
    const fused = FUSED.find((pattern) => pattern.test(name));
    const layer = /layers\.\d+\./.exec(name)![0];
    return fused === undefined ? [name] : linears.filter((other) => other.includes(layer) && fused.test(other));
  };
  const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

  test.each([
    ["nvfp4", NVFP4, "even"],
    ["nvfp4a16", NVFP4, "even"],
    ["mxfp4a16", parseBlockFormat("mxfp4")!, "even"],
  ] as const)("%s: codes, scales and divisors of all 28 layers, with bf16 arithmetic", (artifact, format, rule) => {
    const official = JSON.parse(readFileSync(`fixtures/compressed-tensors/${artifact}/tensors.json`, "utf8")) as Record<
      string,
      { sha256: string }
    >;
    expect(linears).toHaveLength(28);
    const wrong: string[] = [];
    for (const name of linears) {
      const [rows, cols] = header[name]!.shape;
      const most = partners(name).reduce((m, other) => weight(other).reduce((a, x) => Math.max(a, Math.abs(x)), m), 0);
      const globalScale = format === NVFP4 ? { globalScale: nvfp4GlobalScale(most, "bf16") } : {};
      const quantized = quantizeBlocks(weight(name), rows, cols, format, { rule, arithmetic: "bf16", ...globalScale });
      const packed = new Uint8Array((rows * cols) / 2);
      packBits(quantized.codes.data, 4, packed);
      const found: Record<string, Uint8Array> = {
        [`${name}_packed`]: packed,
        [`${name}_scale`]: encodeScales(format, quantized.scales),
        ...(format === NVFP4 ? { [`${name}_global_scale`]: new Uint8Array(Float32Array.of(quantized.globalScale!).buffer) } : {}),
      };
      for (const [tensor, bytes] of Object.entries(found)) if (official[tensor]!.sha256 !== sha256(bytes)) wrong.push(tensor);
    }
    expect(wrong).toEqual([]);
  });
});
