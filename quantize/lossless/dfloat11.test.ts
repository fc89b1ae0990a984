import { mkdir, mkdtemp, readdir, readFile, rm, writeFile, cp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { InputError, UnsupportedError } from "../../core/errors.ts";
import { memorySource, openFileSource } from "../../formats/containers/bytes.ts";
import { openSafetensors } from "../../formats/containers/safetensors/read.ts";
import { encodeSafetensors } from "../../formats/containers/safetensors/write.ts";
import { planQuantization } from "../plan.ts";
import { quantize } from "../quantize.ts";
import type { QuantizeOptions, Recipe } from "../types.ts";
import { verifyArtifact } from "../verify.ts";

const FIXTURES = join(import.meta.dirname, "../../fixtures/lossless/df11");
let work: string;
let counter = 0;

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "df11-"));
});
afterAll(async () => {
  await rm(work, { recursive: true, force: true });
});

const fresh = (): string => join(work, `out-${counter++}`);

async function run(
  source: string,
  recipe: Partial<Recipe> = {},
  options: Partial<QuantizeOptions> = {},
): Promise<{ out: string; report: Awaited<ReturnType<typeof quantize>> }> {
  const out = options.out ?? fresh();
  const report = await quantize(source, { workers: 0, ...options, out, recipe: { method: ["dfloat11"], ...recipe } });
  return { out, report };
}

/** Every tensor of every file: name, dtype, shape, bytes. */
async function contents(directory: string): Promise<Map<string, Map<string, { dtype: string; shape: readonly number[]; bytes: Buffer }>>> {
  const files = new Map<string, Map<string, { dtype: string; shape: readonly number[]; bytes: Buffer }>>();
  for (const name of (await readdir(directory)).filter((file) => file.endsWith(".safetensors")).toSorted()) {
    const file = await openSafetensors(await openFileSource(join(directory, name)));
    const tensors = new Map<string, { dtype: string; shape: readonly number[]; bytes: Buffer }>();
    for (const [tensor, lazy] of file.tensors) {
      const { dtype, shape, bytes } = await lazy.read();
      tensors.set(tensor, { dtype, shape, bytes: Buffer.from(bytes) });
    }
    await file.close();
    files.set(name, tensors);
  }
  return files;
}

const bf16 = (values: readonly number[]): Uint8Array => new Uint8Array(Uint16Array.from(values).buffer);
/** Weights around 0.02, as patterns: many exponents, none high. */
const weights = (count: number, seed = 1): Uint8Array =>
  bf16(Array.from({ length: count }, (_, i) => 0x3c00 + (Math.imul(i + seed, 0x9e3779b1) >>> 22) + ((i & 1) << 15)));

describe("the official artifacts", () => {
  test.each(["bert-slice", "llama-slice"])("%s: every tensor of every file, byte for byte", async (name) => {
    const { out, report } = await run(join(FIXTURES, name, "source"));
    const [found, expected] = [await contents(out), await contents(join(FIXTURES, name, "artifact"))];
    expect([...found.keys()]).toEqual([...expected.keys()]);
    for (const [file, tensors] of expected) {
      expect([...found.get(file)!.keys()], file).toEqual([...tensors.keys()]);
      for (const [tensor, wanted] of tensors) {
        const got = found.get(file)!.get(tensor)!;
        expect({ dtype: got.dtype, shape: got.shape }, tensor).toEqual({ dtype: wanted.dtype, shape: wanted.shape });
        expect(got.bytes.equals(wanted.bytes), tensor).toBe(true);
      }
    }
    const [config, official] = await Promise.all(
      [out, join(FIXTURES, name, "artifact")].map(
        async (place) => JSON.parse(await readFile(join(place, "config.json"), "utf8")) as Record<string, unknown>,
      ),
    );
    expect(config).toEqual(official);
    expect(report.verified).toMatchObject({ ok: true, problems: [] });
  });

  test("edges: seventeen synthetic units in one file, with the one missing position put right", async () => {
    const config = JSON.parse(await readFile(join(FIXTURES, "edges/artifact/config.json"), "utf8")) as {
      dfloat11_config: { pattern_dict: Record<string, string[]> };
    };
    const patterns = Object.entries(config.dfloat11_config.pattern_dict).map(([pattern, attributes]) => ({ pattern, attributes }));
    const { out } = await run(join(FIXTURES, "edges/source.safetensors"), { patterns });
    const found = (await contents(out)).get("model.safetensors")!;
    const expected = (await contents(join(FIXTURES, "edges/artifact"))).get("model.safetensors")!;
    expect([...found.keys()].toSorted()).toEqual([...expected.keys()].toSorted());
    for (const [tensor, wanted] of expected) {
      if (tensor === "missing_position.output_positions") continue;
      expect(found.get(tensor)!.bytes.equals(wanted.bytes), tensor).toBe(true);
      expect(found.get(tensor)!.shape, tensor).toEqual(wanted.shape);
    }
    const elements = found.get("missing_position.sign_mantissa")!.bytes.length;
    expect(expected.get("missing_position.output_positions")!.bytes.length).toBe(8);
    const positions = found.get("missing_position.output_positions")!.bytes;
    expect([0, 4, 8].map((at) => positions.readUInt32LE(at))).toEqual([0, elements, elements]);
    expect(JSON.parse(await readFile(join(out, "config.json"), "utf8"))).toEqual(config);
  });

  test("units that DFloat11 cannot hold stay as they are, each with a note", async () => {
    const file = await openSafetensors(await openFileSource(join(FIXTURES, "refuse/source.safetensors")));
    const names = [...file.tensors.keys()].filter((name) => name.endsWith(".weight") && file.tensors.get(name)!.shape.length === 2);
    await file.close();
    expect(names.length).toBeGreaterThan(8);
    const patterns = names.map((name) => ({ pattern: name.replace(/\.weight$/, ""), attributes: [] }));
    const { out, report } = await run(join(FIXTURES, "refuse/source.safetensors"), { patterns });
    expect(report.plan.lossless!.units.map(({ refusal }) => refusal === undefined)).toEqual(names.map(() => false));
    expect(report.warnings.filter((note) => note.includes("stays uncompressed")).length).toBe(names.length);
    const stored = (await contents(out)).get("model.safetensors")!;
    for (const name of names) expect(stored.get(name)?.dtype, name).toBe("BF16");
    expect((await verifyArtifact(out, { source: join(FIXTURES, "refuse/source.safetensors") })).ok).toBe(true);
  });
});

describe("sources", () => {
  test("workers give the same bytes as the calling thread", async () => {
    const source = join(FIXTURES, "llama-slice/source");
    const [alone, two] = [await run(source), await run(source, {}, { workers: 2 })];
    const files = (await readdir(alone.out)).toSorted();
    expect((await readdir(two.out)).toSorted()).toEqual(files);
    for (const name of files) expect((await readFile(join(two.out, name))).equals(await readFile(join(alone.out, name))), name).toBe(true);
  });

  test("fp32 is refused with the way out, and rounded only when asked", async () => {
    const source = join(work, "wide");
    await mkdir(source);
    const values = Float32Array.from({ length: 4096 }, (_, i) => Math.fround(Math.sin(i) * 0.05));
    const file = encodeSafetensors(
      new Map([["model.layers.0.mlp.up_proj.weight", { dtype: "F32" as const, shape: [64, 64], bytes: new Uint8Array(values.buffer) }]]),
    );
    await writeFile(join(source, "model.safetensors"), file);
    await expect(run(source)).rejects.toThrow(UnsupportedError);
    await expect(run(source)).rejects.toThrow(/--cast bf16/);
    const { report, out } = await run(source, { cast: "bf16" });
    expect(report.warnings.some((note) => note.includes("lossy"))).toBe(true);
    expect([...(await contents(out)).keys()]).toEqual(["model.safetensors", "model_layers_0.safetensors"]);
  });

  test("a tied embedding stays plain unless asked for, and the plan says which", async () => {
    const source = join(work, "tied");
    await mkdir(source);
    const tensors = new Map([
      ["model.embed_tokens.weight", { dtype: "BF16" as const, shape: [64, 32], bytes: weights(2048) }],
      ["model.layers.0.mlp.up_proj.weight", { dtype: "BF16" as const, shape: [64, 32], bytes: weights(2048, 7) }],
    ]);
    await writeFile(join(source, "model.safetensors"), encodeSafetensors(tensors));
    await writeFile(
      join(source, "config.json"),
      JSON.stringify({ architectures: ["XForCausalLM"], model_type: "x", tie_word_embeddings: true }),
    );
    const plain = await run(source);
    expect([...(await contents(plain.out)).keys()]).toEqual(["model.safetensors", "model_layers_0.safetensors"]);
    expect(plain.report.warnings.find((note) => note.startsWith("tied head"))).toContain("stays uncompressed");
    const both = await run(source, { scheme: { tied: "compress" } });
    expect([...(await contents(both.out)).keys()]).toContain("model_embed_tokens.safetensors");
    expect(both.report.warnings.find((note) => note.startsWith("tied head"))).toContain("cannot tie");
  });

  test("a diffusers directory keeps its structure", async () => {
    const source = join(work, "pipe");
    await mkdir(join(source, "transformer"), { recursive: true });
    await mkdir(join(source, "scheduler"), { recursive: true });
    await writeFile(join(source, "model_index.json"), "{}");
    await writeFile(join(source, "scheduler/scheduler_config.json"), `{"a": 1}`);
    await writeFile(join(source, "transformer/config.json"), `{"_class_name": "T"}`);
    const tensors = new Map([
      ["transformer_blocks.0.attn.to_q.weight", { dtype: "BF16" as const, shape: [64, 64], bytes: weights(4096) }],
      ["transformer_blocks.0.norm.bias", { dtype: "F32" as const, shape: [4], bytes: new Uint8Array(16) }],
      ["proj_out.weight", { dtype: "BF16" as const, shape: [8, 8], bytes: weights(64) }],
    ]);
    await writeFile(join(source, "transformer/diffusion_pytorch_model.safetensors"), encodeSafetensors(tensors));
    const { out } = await run(source);
    expect((await readdir(out)).toSorted()).toEqual(["bitwright.json", "model_index.json", "scheduler", "transformer"]);
    expect((await readdir(join(out, "transformer"))).toSorted()).toEqual([
      "config.json",
      "diffusion_pytorch_model.safetensors",
      "transformer_blocks_0.safetensors",
    ]);
    expect((await verifyArtifact(out, { source })).ok).toBe(true);
    const config = JSON.parse(await readFile(join(out, "transformer/config.json"), "utf8")) as Record<string, unknown>;
    expect(config).toMatchObject({ _class_name: "T", dfloat11_config: { pattern_dict: { "transformer_blocks\\.\\d+": ["attn.to_q"] } } });
  });
});

describe("options", () => {
  test.each([
    [{ patterns: [{ pattern: "nothing\\.here" }] }, /matches no module/],
    [{ patterns: [{ pattern: "model\\.layers\\.\\d+" }, { pattern: "model\\.layers\\.0" }] }, /two units/],
    [{ bits: "w8a8" }, /--bits/],
    [{ scheme: { alpha: "0.5" } }, /alpha/],
    [{ method: ["smoothquant", "dfloat11"] }, /transforms/],
  ] satisfies [Partial<Recipe>, RegExp][])("%j is refused by name", async (recipe, message) => {
    const out = fresh();
    await expect(run(join(FIXTURES, "llama-slice/source"), recipe, { out })).rejects.toThrow(InputError);
    await expect(run(join(FIXTURES, "llama-slice/source"), recipe, { out })).rejects.toThrow(message);
    await expect(readdir(out)).rejects.toThrow("ENOENT");
  });

  test("a plan reads the units and writes nothing", async () => {
    const plan = await planQuantization(join(FIXTURES, "llama-slice/source"), {
      recipe: { method: ["dfloat11"] },
      out: fresh(),
      workers: 0,
    });
    expect(plan.lossless!.units.map(({ name }) => name).toSorted()).toEqual([
      "lm_head",
      "model.embed_tokens",
      "model.layers.0",
      "model.layers.1",
    ]);
    for (const { bitsPerWeight } of plan.lossless!.units) expect(bitsPerWeight).toBeGreaterThan(10.5);
  });
});

test("damage anywhere in the weights is found and named", async () => {
  const { out } = await run(join(FIXTURES, "llama-slice/source"));
  const file = join(out, "model_layers_1.safetensors");
  const good = await readFile(file);
  const tensors = (await openSafetensors(memorySource("x", good))).tensors;
  const header = good.length - [...tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
  let named = 0;
  for (let i = 0; i < 24; i++) {
    const bad = Buffer.from(good);
    bad[header + Math.floor(((good.length - header) * (i + 0.5)) / 24)]! ^= 0x10;
    await writeFile(file, bad);
    const report = await verifyArtifact(out);
    if (!report.ok && report.problems.every(({ tensor }) => tensor.startsWith("model.layers.1"))) named++;
    // Gaps inside a block are used by the GPU's decoder alone: the weights are exact without them.
  }
  expect(named).toBeGreaterThan(19);
  await writeFile(file, good.subarray(0, good.length - 5));
  expect((await verifyArtifact(out)).problems[0]!.problem).toMatch(/bytes/);
  await cp(join(FIXTURES, "llama-slice/artifact/lm_head.safetensors"), join(out, "extra.safetensors"));
  expect((await verifyArtifact(out)).problems.map(({ tensor }) => tensor)).toContain("extra.safetensors");
});
