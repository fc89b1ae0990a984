import { createHash } from "node:crypto";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runCli } from "../../../cli/run.ts";
import { FormatError, InputError, InterruptedError } from "../../../core/errors.ts";
import { encodeBf16 } from "../../../core/float.ts";
import { createRandom } from "../../../core/random.ts";
import { openCheckpoint } from "../../../formats/checkpoint.ts";
import { encodeSafetensors } from "../../../formats/containers/safetensors/write.ts";
import { openModel } from "../../../model/sources/open.ts";
import { inspect } from "../../inspect.ts";
import { planQuantization } from "../../plan.ts";
import { quantize, resume } from "../../quantize.ts";
import type { QuantizeOptions, Recipe } from "../../types.ts";
import { verifyArtifact } from "../../verify.ts";
import { openDFloat11 } from "../open.ts";
import { restore } from "../restore.ts";

const MODELS = join(import.meta.dirname, "../../../fixtures/models");
const TINY = join(MODELS, "tiny-llama");
const SHARDED = join(MODELS, "minis/llama-sharded");
let work: string;
let tiny: string;
let small: string;
let smallSource: string;
let counter = 0;

const fresh = (): string => join(work, `out-${counter++}`);
async function compress(source: string, recipe: Partial<Recipe> = {}, options: Partial<QuantizeOptions> = {}): Promise<string> {
  const out = options.out ?? fresh();
  await quantize(source, { workers: 0, ...options, out, recipe: { method: ["dfloat11"], codec: "compact", ...recipe } });
  return out;
}

/** Relative names and SHA-256 of every file below a directory. */
async function tree(directory: string): Promise<Record<string, string>> {
  const entries = (await readdir(directory, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  const files = await Promise.all(
    entries.map(async ({ parentPath, name }) => {
      const path = join(parentPath, name);
      const hash = createHash("sha256")
        .update(await readFile(path))
        .digest("hex");
      return [path.slice(directory.length + 1), hash] as const;
    }),
  );
  return Object.fromEntries(files.toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

async function copyChanged(artifact: string, name: string, change: (bytes: Buffer) => Buffer): Promise<string> {
  const out = fresh();
  await cp(artifact, out, { recursive: true });
  await writeFile(join(out, name), change(await readFile(join(out, name))));
  return out;
}

/** Flips a bit. @param at - share of the file. */
const flip =
  (at: number) =>
  (bytes: Buffer): Buffer => {
    bytes[Math.floor(at * bytes.length)]! ^= 1;
    return bytes;
  };

async function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  let [out, err] = ["", ""];
  const code = await runCli(args, {
    stdout: (text) => void (out += text),
    stderr: (text) => void (err += text),
    stdoutIsTerminal: false,
    stderrIsTerminal: false,
    columns: 100,
    environment: {},
    signal: new AbortController().signal,
  });
  return { code, out, err };
}

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "compact-artifact-"));
  tiny = await compress(TINY);
  // Goldens beside the minis are no part of the model and stay behind.
  smallSource = fresh();
  const filter = (path: string): boolean => !path.endsWith("golden.safetensors");
  await cp(join(MODELS, "minis/opt"), smallSource, { recursive: true, filter });
  small = await compress(smallSource);
});
afterAll(() => rm(work, { recursive: true, force: true }));

describe("what comes back is what went in", () => {
  // bf16, f32, f16, shards.
  const sources = ["tiny-llama", "minis/bert", "minis/opt", "minis/llama-sharded"];
  test.each(sources.flatMap((name) => (["max", "fast"] as const).map((level) => [name, level] as const)))(
    "%s at level %s: every file has the SHA-256 of the source's",
    async (name, level) => {
      const source = fresh();
      await cp(join(MODELS, name), source, { recursive: true, filter: (path) => !path.endsWith("golden.safetensors") });
      const artifact = await compress(source, { level });
      const out = fresh();
      const report = await restore(artifact, { out, workers: 0 });
      const wanted = await tree(source);
      expect(await tree(out)).toEqual(wanted);
      for (const { name: file, sha256 } of report.files) expect(wanted[file]).toBe(sha256);
      expect((await verifyArtifact(artifact, { source })).problems).toEqual([]);
    },
  );

  test("a single safetensors file of any name, and a file called like the manifest", async () => {
    const source = fresh();
    await mkdir(source);
    await cp(join(smallSource, "model.safetensors"), join(source, "weights.safetensors"));
    const alone = await compress(join(source, "weights.safetensors"));
    expect((await readdir(alone)).toSorted()).toEqual(["bitwright.json", "weights.safetensors.compact"]);
    await writeFile(join(source, "bitwright.json"), `{"tool":"other"}`);
    const [one, all] = [fresh(), fresh()];
    await restore(alone, { out: one, workers: 0 });
    expect(Object.keys(await tree(one))).toEqual(["weights.safetensors"]);
    await restore(await compress(source), { out: all, workers: 0 });
    expect(await tree(all)).toEqual(await tree(source));
  });

  test("a diffusers directory keeps its folders", async () => {
    const source = fresh();
    await mkdir(join(source, "transformer"), { recursive: true });
    await writeFile(join(source, "model_index.json"), "{}");
    await writeFile(join(source, "transformer/config.json"), `{"a":1}`);
    await cp(join(smallSource, "model.safetensors"), join(source, "transformer/diffusion_pytorch_model.safetensors"));
    const artifact = await compress(source);
    const { tensors, configs } = await openDFloat11(artifact);
    expect(tensors.get("transformer/model.decoder.final_layer_norm.weight")?.shape).toEqual([48]);
    expect(configs.get("transformer/")).toEqual({ a: 1 });
    const out = fresh();
    await restore(artifact, { out, workers: 0 });
    expect(await tree(out)).toEqual(await tree(source));
  });

  test("--cast bf16 says that it is lossy, and restores what was rounded", async () => {
    const report = await quantize(join(MODELS, "minis/bert"), {
      recipe: { method: ["dfloat11"], codec: "compact", cast: "bf16" },
      out: fresh(),
      workers: 0,
    });
    expect(report.warnings.join()).toContain("lossy");
    const { notes } = await restore(report.out[0]!.directory, { out: fresh(), workers: 0 });
    expect(notes.join()).toContain("rounded to bf16");
    const { tensors } = await openDFloat11(report.out[0]!.directory);
    expect(new Set([...tensors.values()].map(({ dtype }) => dtype))).toEqual(new Set(["BF16"]));
  });
});

describe("as a source", () => {
  test.each([TINY, SHARDED])("%s: names, order, dtypes, shapes and bytes are the source's", async (source) => {
    const artifact = source === TINY ? tiny : await compress(source, { level: "fast" });
    const [found, wanted] = [await openCheckpoint(artifact), await openCheckpoint(source)];
    const { tensors } = await openDFloat11(artifact);
    expect([...found.tensors.keys()]).toEqual([...wanted.tensors.keys()]);
    expect([...tensors.keys()].toSorted()).toEqual([...wanted.tensors.keys()].toSorted());
    for (const [name, lazy] of (await openModel(artifact)).tensors) {
      const [tensor, original] = [await lazy.read(), await wanted.tensors.get(name)!.read()];
      expect({ dtype: tensor.dtype, shape: tensor.shape }, name).toEqual({ dtype: original.dtype, shape: original.shape });
      expect(Buffer.compare(tensor.bytes, original.bytes), name).toBe(0);
    }
    await found.close();
    await wanted.close();
  });

  test("quantizing an artifact gives the bytes of quantizing its source", async () => {
    const recipe = { method: ["rtn"], bits: "w8a16" };
    const [a, b] = [fresh(), fresh()];
    const artifact = await compress(SHARDED);
    await quantize(SHARDED, { recipe, out: a, workers: 0 });
    await quantize(artifact, { recipe, out: b, workers: 0 });
    const [x, y] = [await tree(a), await tree(b)];
    expect(Object.keys(y)).toEqual(Object.keys(x));
    expect(y["model.safetensors"]).toBe(x["model.safetensors"]);
    expect(x["model.safetensors"]).toBeDefined();
  });

  test("inspect sums up what each kind of tensor takes", async () => {
    const { kind, kinds } = await inspect(tiny);
    expect(kind).toBe("artifact");
    const names = kinds!.map(({ name }) => name);
    expect(names).toContain("model.layers.N.mlp.up_proj.weight");
    for (const { elements, bytes, bitsPerWeight } of kinds!) expect(bitsPerWeight).toBeCloseTo((8 * bytes) / elements, 10);
    const stored = kinds!.reduce((sum, { bytes }) => sum + bytes, 0);
    const { size } = await stat(join(tiny, "model.safetensors.compact"));
    // Prefix, directory and footer are what is left.
    expect(size - stored).toBeGreaterThan(0);
    expect(size - stored).toBeLessThan(5000);
    const matrices = kinds!.filter(({ elements }) => elements > 100_000);
    for (const { bitsPerWeight, entropyBound } of matrices) {
      expect(bitsPerWeight).toBeLessThan(10.6);
      expect(entropyBound).toBeGreaterThan(10.4);
    }
  });

  test("compressing an artifact again is refused", async () => {
    await expect(compress(tiny)).rejects.toThrow(/already/);
  });
});

describe("damage", () => {
  test("a flipped bit is an error that names the tensor, from the reader, restore and verify", async () => {
    const damaged = await copyChanged(small, "model.safetensors.compact", flip(0.5));
    const { tensors } = await openDFloat11(damaged);
    const results = await Promise.allSettled([...tensors.values()].map((tensor) => tensor.read()));
    const failed = [...tensors.keys()].filter((_, i) => results[i]!.status === "rejected");
    expect(failed).toHaveLength(1);
    const out = fresh();
    const error = await restore(damaged, { out, workers: 0 }).catch((cause: unknown) => cause);
    expect(error).toBeInstanceOf(FormatError);
    expect((error as FormatError).message).toContain(failed[0]!);
    expect(["format.checksum", "format.field"]).toContain((error as FormatError).code);
    await expect(stat(out)).rejects.toThrow("ENOENT");
    const { ok, problems } = await verifyArtifact(damaged);
    expect(ok).toBe(false);
    expect(problems.map(({ tensor }) => tensor)).toEqual(failed);
  });

  test.each([
    ["a weight file that ends early", "model.safetensors.compact", (bytes: Buffer) => bytes.subarray(0, -100)],
    ["a changed directory", "model.safetensors.compact", flip(0.9999)],
    ["a changed golden", "golden.json", flip(0.5)],
    [
      "a manifest that leaves its directory",
      "bitwright.json",
      (bytes: Buffer) => Buffer.from(bytes.toString().replace('"config.json"', '"../c.json"')),
    ],
    ["a manifest without weights", "bitwright.json", (bytes: Buffer) => Buffer.from(bytes.toString().replace('"weights"', '"w"'))],
  ])("%s is a typed error, and nothing is left behind", async (_, name, change) => {
    const damaged = await copyChanged(small, name, change);
    const out = fresh();
    await expect(restore(damaged, { out, workers: 0 })).rejects.toThrow(FormatError);
    await expect(stat(out)).rejects.toThrow("ENOENT");
  });
});

describe("runs", () => {
  test("one worker, two and none give the same bytes", async () => {
    const random = createRandom(7);
    const patterns = Uint16Array.from({ length: 1 << 20 }, () => encodeBf16(0.02 * random.normal()));
    // Enough for threads to be worth their start; no two tensors are the same.
    const tensors = new Map(
      ["a", "b", "c", "d", "e"].map((name, i) => {
        const bytes = new Uint8Array(patterns.map((pattern) => pattern ^ i).buffer);
        return [name, { dtype: "BF16" as const, shape: [1024, 1024], bytes }];
      }),
    );
    const source = fresh();
    await mkdir(source);
    await writeFile(join(source, "model.safetensors"), encodeSafetensors(tensors));
    const [none, one, two] = await Promise.all(
      [0, 1, 2].map(async (workers) => tree(await compress(source, { level: "fast" }, { workers }))),
    );
    expect(one).toEqual(none);
    expect(two).toEqual(none);
  });

  test("interrupted, the same call goes on with the file it was at and gives the same bytes", async () => {
    const whole = await compress(SHARDED);
    const [again, byDirectory] = [fresh(), fresh()];
    for (const out of [again, byDirectory]) {
      const stop = new AbortController();
      const onProgress: QuantizeOptions["onProgress"] = ({ phase, done, total }) => {
        if (phase === "quantize" && done > 0.6 * total) stop.abort();
      };
      await expect(compress(SHARDED, {}, { out, signal: stop.signal, onProgress })).rejects.toThrow(InterruptedError);
      expect((await readdir(out)).filter((name) => name.endsWith(".compact"))).toEqual([]);
    }
    const names: string[] = [];
    await compress(SHARDED, {}, { out: again, onProgress: ({ phase, detail }) => void (phase === "quantize" && names.push(detail!)) });
    expect(names.length).toBeGreaterThan(0);
    expect(names.length).toBeLessThan(29);
    expect(await tree(again)).toEqual(await tree(whole));
    expect((await resume(byDirectory, { workers: 0 })).resumed).toBe(true);
    expect(await tree(byDirectory)).toEqual(await tree(whole));
  });

  test("a finished artifact is replaced only by force, and then nothing of it stays", async () => {
    const out = await compress(SHARDED);
    await expect(compress(smallSource, {}, { out })).rejects.toThrow(/--force/);
    await compress(smallSource, {}, { out, force: true });
    expect(await tree(out)).toEqual(await tree(small));
  });

  test("the plan is within 2 % of what is written, and says that it estimates", async () => {
    const recipe: Recipe = { method: ["dfloat11"], codec: "compact" };
    const { notes, estimate } = await planQuantization(TINY, { recipe, out: fresh() });
    const { size } = await stat(join(tiny, "model.safetensors.compact"));
    expect(notes.join()).toContain("estimated");
    expect(Math.abs(estimate.outputBytes / size - 1)).toBeLessThan(0.02);
  });

  test.each<[string, Record<string, unknown>]>([
    ["--codec zip", { codec: "zip" }],
    ["--level best", { level: "best" }],
    ["--level", { codec: "df11", level: "max" }],
    ["--pattern", { patterns: [{ pattern: "layers" }] }],
    ["--kernels", { kernels: ["wgsl"] }],
    ["--scheme tied", { scheme: { tied: "plain" } }],
    ["--ignore", { ignore: ["lm_head"] }],
  ])("%s is refused before anything is read", async (flag, options) => {
    const error = await compress("/nowhere", options).catch((cause: unknown) => cause);
    expect(error).toBeInstanceOf(InputError);
    expect((error as InputError).code).toBe("input.option");
    expect((error as InputError).message).toContain(flag);
  });
});

test("the command line compresses, reports bits a weight, inspects, verifies and restores", async () => {
  const [out, back] = [fresh(), fresh()];
  const made = await run("quantize", TINY, "--method", "dfloat11", "--codec", "compact", "--level", "fast", "--out", out, "--json");
  expect(made.code, made.err).toBe(0);
  const report = JSON.parse(made.out) as { bitsPerWeight: { weights: number; directory: number }; outputBytes: number };
  const { size } = await stat(join(out, "model.safetensors.compact"));
  // 2,885,888 weights: half the 5,771,776 bytes of bf16 in the file.
  expect(report.bitsPerWeight.weights).toBeCloseTo((8 * size) / 2_885_888, 10);
  expect(report.bitsPerWeight.directory).toBeCloseTo((8 * report.outputBytes) / 2_885_888, 10);
  expect((await run("inspect", out)).out).toContain("bits a weight");
  expect((await run("verify", out, "--source", TINY)).code).toBe(0);
  expect((await run("restore", out, "--out", back)).code).toBe(0);
  expect(await tree(back)).toEqual(await tree(TINY));
  const refused = await run("quantize", TINY, "--method", "dfloat11", "--codec", "zip", "--out", fresh());
  expect(refused.code).not.toBe(0);
  expect(refused.err).toContain("--codec zip");
});
