import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { packedLength } from "../../core/pack.ts";
import type { QuantScheme } from "../../core/scheme.ts";
import { runTasks } from "./run.ts";
import type { OutputRegion, OutputRole, QuantizeTask } from "./task.ts";

// The artifacts under fixtures/compressed-tensors were written by llm-compressor 0.14 from fixtures/models/tiny-llama.
const MODEL = "fixtures/models/tiny-llama/model.safetensors";
type Facts = { dtype: string; shape: number[]; sha256: string };

const file = readFileSync(MODEL);
const headerBytes = Number(file.readBigUInt64LE(0));
const header = JSON.parse(file.toString("utf8", 8, 8 + headerBytes)) as Record<
  string,
  { dtype: "BF16"; shape: number[]; data_offsets: [number, number] }
>;
const linears = Object.keys(header).filter((name) => name.endsWith("_proj.weight"));

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "bitwright-official-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const int = (bits: number, symmetric: boolean, group?: number): QuantScheme => ({
  format: { kind: "int", bits, symmetric },
  granularity: group === undefined ? { kind: "channel" } : { kind: "group", size: group },
  timing: "static",
  scale: "model",
  dialect: "compressed-tensors",
});
const fp8 = (kind: "tensor" | "channel"): QuantScheme => ({
  ...int(8, true),
  format: { kind: "float", format: "e4m3" },
  granularity: { kind },
});

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** Quantizes every linear layer and returns [tensor name, sha256] of all that was written. */
async function quantizeAll(scheme: QuantScheme, workers: number): Promise<Map<string, string>> {
  const path = join(folder, "out.bin");
  let end = 0;
  const names = new Map<string, string>();
  const tasks = linears.map((name): QuantizeTask => {
    const { shape, data_offsets, dtype } = header[name]!;
    const [rows, cols] = shape as [number, number];
    const packed = scheme.granularity.kind === "group";
    const groups = scheme.granularity.kind === "group" ? cols / scheme.granularity.size : 1;
    const scaleCount = scheme.granularity.kind === "tensor" ? 1 : rows * groups;
    const asymmetric = scheme.format.kind === "int" && !scheme.format.symmetric;
    const region = (role: OutputRole, suffix: string, byteLength: number): OutputRegion => {
      names.set(`${name}/${role}`, name.replace(/weight$/, suffix));
      end += byteLength;
      return { role, path, offset: end - byteLength, byteLength };
    };
    return {
      kind: "quantize",
      name,
      input: { source: { kind: "file", path: MODEL, offset: 8 + headerBytes + data_offsets[0] }, dtype, shape },
      channelAxis: 0,
      scheme,
      arithmetic: "bf16",
      scaleDType: "BF16",
      codes: packed ? "packed" : "bytes",
      zeros: "packed-rows",
      outputs: [
        region("codes", packed ? "weight_packed" : "weight", packed ? rows * packedLength(cols, 4) : rows * cols),
        region("scales", "weight_scale", 2 * scaleCount),
        ...(asymmetric ? [region("zeros", "weight_zero_point", Math.ceil((rows * 4) / 32) * groups * 4)] : []),
        ...(packed ? [region("shape", "weight_shape", 16)] : []),
      ],
    };
  });
  writeFileSync(path, "");
  truncateSync(path, end);
  const results = await runTasks(tasks, { workers });
  const written = readFileSync(path);
  const hashes = new Map<string, string>();
  for (const [i, result] of results.entries()) {
    for (const [j, { role, sha256: reported }] of result.outputs.entries()) {
      const { offset, byteLength } = tasks[i]!.outputs[j]!;
      expect(sha256(written.subarray(offset, offset + byteLength))).toBe(reported);
      hashes.set(names.get(`${result.name}/${role}`)!, reported);
    }
  }
  return hashes;
}

describe("with bf16 arithmetic, round to nearest writes the bytes of llm-compressor", () => {
  test.each([
    ["w8a8-dynamic", int(8, true), 0],
    ["w4a16", int(4, true, 128), 0],
    ["w4a16-asym", int(4, false, 128), 2],
    ["fp8-dynamic", fp8("channel"), 0],
    ["fp8-static", fp8("tensor"), 0],
    ["w8a8-static", { ...int(8, true), granularity: { kind: "tensor" } }, 1],
  ] as const)("%s", async (artifact, scheme, workers) => {
    const official = JSON.parse(readFileSync(`fixtures/compressed-tensors/${artifact}/tensors.json`, "utf8")) as Record<string, Facts>;
    const expected = new Map(
      Object.entries(official)
        .filter(([name]) => /_proj\.weight(_packed|_scale|_zero_point|_shape)?$/.test(name))
        .map(([name, facts]) => [name, facts.sha256]),
    );
    const hashes = await quantizeAll(scheme, workers);
    const wrong = [...expected].filter(([name, hash]) => hashes.get(name) !== hash).map(([name]) => name);
    expect(wrong).toEqual([]);
    expect([...hashes.keys()].toSorted()).toEqual([...expected.keys()].toSorted());
    expect(hashes.size).toBeGreaterThanOrEqual(2 * linears.length);
  });
});
