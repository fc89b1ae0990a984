import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { openModel } from "../../model/sources/open.ts";
import { toFloat32 } from "../../core/tensor.ts";
import { readManifest } from "../manifest.ts";
import { quantize } from "../quantize.ts";
import type { QuantizeReport, Recipe } from "../types.ts";
import { verifyArtifact } from "../verify.ts";
import type { BlockSelfTest } from "./emit.ts";

const SOURCE = join(import.meta.dirname, "../../fixtures/models/tiny-llama");
const hasCompiler = spawnSync("cc", ["--version"]).status === 0;
const FLAGS = ["-std=c99", "-O0", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"];
/** Compilers take seconds; the C twin's formats are all covered beside it. */
const COMPILED = new Set(["bfp12a16, bitwright", "nvfp4a16, compressed-tensors"]);
const folder = mkdtempSync(join(tmpdir(), "bitwright-kernels-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function run(name: string, recipe: Recipe, to: string, maxShardBytes?: number): Promise<{ out: string; report: QuantizeReport }> {
  const out = join(folder, name);
  const report = await quantize(SOURCE, { recipe, to: [to], out, workers: 0, ...(maxShardBytes !== undefined && { maxShardBytes }) });
  return { out, report };
}

const kernelsOf = (out: string): string => join(out, "kernels");

function runWasm(out: string): { readonly status: number | null; readonly stdout: string } {
  return spawnSync(process.execPath, ["blocks.mjs", ".."], { cwd: kernelsOf(out), encoding: "utf8" });
}

function runC(out: string): { readonly status: number | null; readonly stdout: string } {
  execFileSync("cc", [...FLAGS, "-DBW_SELFTEST", "blocks.c", "-o", join(folder, "selftest")], { cwd: kernelsOf(out) });
  return spawnSync(join(folder, "selftest"), [".."], { cwd: kernelsOf(out), encoding: "utf8" });
}

describe("--kernels c,wasm puts kernels beside artifacts in block formats, which read them", () => {
  test.each([
    ["bfp12a16, bitwright", { method: ["bfp"], bits: "bfp12a16", groupSize: 32 }, "bitwright"],
    ["mxfp6a16, bitwright", { method: ["mxfp6"], bits: "mxfp6a16" }, "bitwright"],
    ["nvfp4a16, bitwright", { method: ["nvfp4"], bits: "nvfp4a16" }, "bitwright"],
    ["mxfp4a16, compressed-tensors", { method: ["mxfp4"], bits: "mxfp4a16" }, "compressed-tensors"],
    ["mxfp8a16, compressed-tensors", { method: ["mxfp8"], bits: "mxfp8a16" }, "compressed-tensors"],
    ["nvfp4a16, compressed-tensors", { method: ["nvfp4"], bits: "nvfp4a16" }, "compressed-tensors"],
  ] as const)("%s", async (name, recipe, to) => {
    const { out } = await run(name, { ...recipe, kernels: ["c", "wasm"] }, to);
    expect(readdirSync(kernelsOf(out)).toSorted()).toEqual([
      "README.md",
      "blocks.c",
      "blocks.mjs",
      "blocks.wasm",
      "blocks_selftest.h",
      "blocks_selftest.json",
      "gemm-int8.wasm",
      "sha256.h",
    ]);
    const facts = JSON.parse(readFileSync(join(kernelsOf(out), "blocks_selftest.json"), "utf8")) as BlockSelfTest;
    const model = await openModel(out);
    const read = toFloat32(await model.tensors.get(`${facts.module}.weight`)!.read()).subarray(0, facts.rows * facts.cols);
    const bytes = new Uint8Array(read.buffer, read.byteOffset, read.byteLength);
    expect(createHash("sha256").update(bytes).digest("hex")).toBe(facts.values);
    expect(runWasm(out)).toMatchObject({ status: 0, stdout: expect.stringContaining(`ok: ${facts.module}`) as string });
    if (hasCompiler && COMPILED.has(name))
      expect(runC(out)).toMatchObject({ status: 0, stdout: expect.stringContaining(`ok: ${facts.module}`) as string });
  });
});

test("a tensor's parts may lie in different shards", async () => {
  const { out } = await run("shards", { method: ["nvfp4"], bits: "nvfp4a16", kernels: ["c", "wasm"] }, "bitwright", 2 ** 13);
  const { arrays } = JSON.parse(readFileSync(join(kernelsOf(out), "blocks_selftest.json"), "utf8")) as BlockSelfTest;
  expect(arrays.codes.file).not.toBe(arrays.scales.file);
  expect(runWasm(out).status).toBe(0);
});

test("the manifest hashes the kernels, and verify sees a change in them", async () => {
  const { out, report } = await run("hashed", { method: ["bfp"], bits: "bfp12a16", kernels: ["wasm"] }, "bitwright");
  const { files } = await readManifest(out);
  const names = Object.keys(files).filter((name) => name.startsWith("kernels/"));
  expect(names).toEqual(
    readdirSync(kernelsOf(out))
      .toSorted()
      .map((name) => `kernels/${name}`),
  );
  expect(report.out[0]!.files).toEqual(expect.arrayContaining(names));
  expect(await verifyArtifact(out)).toMatchObject({ ok: true });
  writeFileSync(join(kernelsOf(out), "blocks.mjs"), "// gone");
  expect(await verifyArtifact(out)).toMatchObject({ ok: false, problems: [{ tensor: "kernels/blocks.mjs" }] });
});

test.each([
  ["a method without kernels", { method: ["rtn"], bits: "w8a8", kernels: ["c"] }, "bitwright", "int8"],
  ["a language without kernels", { method: ["bfp"], bits: "bfp12", kernels: ["cuda"] }, "bitwright", "--kernels cuda"],
  ["an ONNX file", { method: ["bfp"], bits: "bfp12", kernels: ["c"] }, "onnx", "ONNX"],
] as const)("%s is refused before anything is written", async (name, recipe, to, words) => {
  const failed = await run(name, recipe, to).then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(failed).toMatchObject({ code: "input.option", details: { option: "kernels" }, message: expect.stringContaining(words) as string });
  expect(readdirSync(folder)).not.toContain(name);
});
