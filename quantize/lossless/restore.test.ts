import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { FormatError, InputError } from "../../core/errors.ts";
import { quantize } from "../quantize.ts";
import { restore } from "./restore.ts";

const FIXTURES = join(import.meta.dirname, "../../fixtures/lossless/df11");
let work: string;
let counter = 0;

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "restore-"));
});
afterAll(async () => {
  await rm(work, { recursive: true, force: true });
});

const fresh = (): string => join(work, `out-${counter++}`);
const compress = async (source: string): Promise<string> => {
  const out = fresh();
  await quantize(source, { recipe: { method: ["dfloat11"] }, out, workers: 0 });
  return out;
};

/** Relative names and bytes of every file below a directory. */
async function tree(directory: string): Promise<Map<string, Buffer>> {
  const names = (await readdir(directory, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  return new Map(
    await Promise.all(
      names.map(
        async ({ parentPath, name }) =>
          [join(parentPath, name).slice(directory.length + 1), await readFile(join(parentPath, name))] as const,
      ),
    ),
  );
}

/** A safetensors file with a header nobody's writer would make: odd order, metadata, extra padding. */
function oddFile(tensors: readonly (readonly [name: string, dtype: string, shape: number[], bytes: Uint8Array])[]): Buffer {
  let at = 0;
  const entries = tensors.map(([name, dtype, shape, bytes]) => {
    const entry = `"${name}": {"shape": [${shape.join(", ")}], "data_offsets": [${at}, ${(at += bytes.length)}], "dtype": "${dtype}"}`;
    return entry;
  });
  const text = Buffer.from(`{${entries.toReversed().join(" , ")}, "__metadata__": {"odd": "\\u00e9"}}`.padEnd(1003));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([prefix, text, ...tensors.map(([, , , bytes]) => bytes)]);
}

const weights = (count: number, seed: number): Uint8Array =>
  new Uint8Array(Uint16Array.from({ length: count }, (_, i) => 0x3c00 + (Math.imul(i + seed, 0x9e3779b1) >>> 22) + ((i & 1) << 15)).buffer);

test.each(["llama-slice", "bert-slice"])("%s comes back file for file", async (name) => {
  const source = join(FIXTURES, name, "source");
  const out = fresh();
  const report = await restore(await compress(source), { out });
  const [found, wanted] = [await tree(out), await tree(source)];
  expect([...found.keys()].toSorted()).toEqual([...wanted.keys()].toSorted());
  for (const [file, bytes] of wanted) expect(found.get(file)!.equals(bytes), file).toBe(true);
  expect(report.files.map(({ sha256 }) => sha256)).toEqual([createHash("sha256").update(wanted.get("model.safetensors")!).digest("hex")]);
});

test("shards of a diffusers pipeline come back with their own headers, index and configuration text", async () => {
  const source = join(work, "pipe");
  await mkdir(join(source, "transformer"), { recursive: true });
  await mkdir(join(source, "vae"), { recursive: true });
  await writeFile(join(source, "model_index.json"), "{ }");
  await writeFile(join(source, "transformer/config.json"), `{"b":1,\n  "a" : 2}`);
  const first = oddFile([
    ["blocks.1.q.weight", "BF16", [32, 32], weights(1024, 1)],
    ["blocks.0.q.weight", "BF16", [32, 32], weights(1024, 2)],
    ["blocks.0.norm", "F32", [3], new Uint8Array(12).fill(7)],
  ]);
  const second = oddFile([
    ["blocks.0.k.weight", "BF16", [32, 32], weights(1024, 3)],
    ["blocks.1.k.weight", "BF16", [32, 32], weights(1024, 4)],
    ["empty.weight", "BF16", [0, 4], new Uint8Array(0)],
    ["flag", "BOOL", [1], new Uint8Array([1])],
  ]);
  const [a, b] = ["diffusion_pytorch_model-00001-of-00002.safetensors", "diffusion_pytorch_model-00002-of-00002.safetensors"];
  await writeFile(join(source, "transformer", a), first);
  await writeFile(join(source, "transformer", b), second);
  const map = {
    "blocks.1.q.weight": a,
    "blocks.0.q.weight": a,
    "blocks.0.norm": a,
    "blocks.0.k.weight": b,
    "blocks.1.k.weight": b,
    "empty.weight": b,
    flag: b,
  };
  await writeFile(
    join(source, "transformer/diffusion_pytorch_model.safetensors.index.json"),
    JSON.stringify({ metadata: {}, weight_map: map }),
  );
  // A component with nothing to compress.
  await writeFile(
    join(source, "vae/diffusion_pytorch_model.safetensors"),
    oddFile([["conv.weight", "F32", [1, 1, 1, 1], new Uint8Array(4)]]),
  );
  const artifact = await compress(source);
  expect([...(await tree(artifact)).keys()].filter((name) => name.includes("index.json"))).toEqual(["model_index.json"]);
  const out = fresh();
  await restore(artifact, { out });
  const [found, wanted] = [await tree(out), await tree(source)];
  expect([...found.keys()].toSorted()).toEqual([...wanted.keys()].toSorted());
  for (const [file, bytes] of wanted) expect(found.get(file)!.equals(bytes), file).toBe(true);
});

test("a single file comes back under its name", async () => {
  const source = join(work, "weights.safetensors");
  await writeFile(source, oddFile([["layers.0.a.weight", "BF16", [64, 16], weights(1024, 5)]]));
  const out = fresh();
  await restore(await compress(source), { out });
  expect((await tree(out)).get("weights.safetensors")!.equals(await readFile(source))).toBe(true);
  expect([...(await tree(out)).keys()]).toEqual(["weights.safetensors"]);
});

test("damage is an error that names the unit, and nothing is left behind", async () => {
  const artifact = await compress(join(FIXTURES, "llama-slice/source"));
  const file = join(artifact, "model_layers_0.safetensors");
  const bytes = await readFile(file);
  bytes[bytes.length - 100]! ^= 1;
  await writeFile(file, bytes);
  const out = fresh();
  const error: unknown = await restore(artifact, { out }).catch((cause: unknown) => cause);
  expect(error).toBeInstanceOf(FormatError);
  expect((error as FormatError).code).toBe("format.checksum");
  expect((error as FormatError).message).toContain("model.layers.0");
  await expect(readdir(out)).rejects.toThrow("ENOENT");
});

test("a directory with files in it is not written to", async () => {
  const artifact = await compress(join(FIXTURES, "llama-slice/source"));
  const out = fresh();
  await mkdir(out);
  await writeFile(join(out, "mine.txt"), "mine");
  await expect(restore(artifact, { out })).rejects.toThrow(InputError);
  expect(await readdir(out)).toEqual(["mine.txt"]);
});
