import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { DType } from "../../../core/dtype.ts";
import { encodeBf16, encodeFloat, F16 } from "../../../core/float.ts";
import { createRandom } from "../../../core/random.ts";
import { roundHalfEven } from "../../../core/round.ts";
import { lazyOf } from "../../../core/tensor.ts";
import { encodeWith } from "../../../formats/containers/compact/encoder.ts";
import { compactSource, encodeCompact } from "../../../formats/containers/compact/write.ts";
import { encodeSafetensors } from "../../../formats/containers/safetensors/write.ts";
import { createCompactCoder } from "../../../kernels/compact/coder.ts";
import { quantize } from "../../quantize.ts";
import { restore } from "../restore.ts";

interface OpenFile {
  readonly tensors: ReadonlyMap<string, { readonly dtype: string; readonly shape: readonly number[]; readonly bytes: number }>;
  readonly header: Uint8Array;
  decode(name: string, options?: { sha256?: boolean }): Promise<Uint8Array>;
}
interface RangeSource {
  readonly size: number;
  read(offset: number, length: number): Uint8Array | Promise<Uint8Array>;
}

interface SourceFile {
  readonly name: string;
  readonly sha256: string;
  readonly content: Uint8Array;
}
interface PageModule {
  readonly EXTENSION: string;
  readonly filesOf: (manifest: unknown) => { readonly names: readonly string[] };
  readonly restoreFiles: (
    wasm: Uint8Array,
    files: readonly { readonly name: string; readonly blob: Blob }[],
    manifest: undefined,
    report: { tensor(): void; source(file: SourceFile): void },
  ) => Promise<{ readonly wrong: number }>;
}

const SOURCE = join(import.meta.dirname, "../../../fixtures/lossless/df11/llama-slice/source");
let work: string;
let out: string;
let openCompact: (source: Uint8Array | RangeSource) => Promise<OpenFile>;

beforeAll(async () => {
  work = mkdtempSync(join(tmpdir(), "compact-wasm-"));
  out = join(work, "out");
  await quantize(SOURCE, { recipe: { method: ["dfloat11"], codec: "compact", level: "max", kernels: ["wasm"] }, out, workers: 0 });
  const module = (await import(pathToFileURL(join(out, "kernels/compact.mjs")).href)) as {
    openCompact: (source: Uint8Array | RangeSource, wasm: WebAssembly.Module) => Promise<OpenFile>;
  };
  const wasm = new WebAssembly.Module(readFileSync(join(out, "kernels/compact.wasm")));
  openCompact = async (source) => await module.openCompact(source, wasm);
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

const random = createRandom(23);

function weights(dtype: DType, rows: number, cols: number): Uint8Array {
  const columns = Float64Array.from({ length: cols }, () => Math.exp(0.4 * random.normal()));
  const values = Float64Array.from({ length: rows * cols }, (_, i) => 0.03 * random.normal() * columns[i % cols]!);
  // Some far from what their row and column let expect.
  for (let i = 0; i < values.length; i += 501) values[i]! *= 2 ** (random.below(200) - 140);
  if (dtype === "BF16") return new Uint8Array(Uint16Array.from(values, encodeBf16).buffer);
  if (dtype === "F16") return new Uint8Array(Uint16Array.from(values, (x) => encodeFloat(F16, x)).buffer);
  return Uint8Array.from(values, (x) => Math.max(-127, Math.min(127, roundHalfEven(600 * x))) & 0xff);
}

interface Case {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}
const coded = (dtype: DType, ...shape: readonly number[]): Case => ({
  dtype,
  shape,
  bytes: weights(
    dtype,
    shape[0]!,
    shape.slice(1).reduce((a, b) => a * b, 1),
  ),
});
const noise = (bytes: number): Uint8Array => Uint8Array.from({ length: bytes }, () => random.below(256));

/** Every kind of payload: classes of floats, a table of bytes, raw, progressions, a copy, nothing; blocks stored as they are; cut rows. */
function everyKind(): ReadonlyMap<string, Case> {
  const shared = coded("BF16", 200, 300);
  const cases = new Map<string, Case>([
    ["__proto__", coded("I8", 90, 100)],
    ["copy", { ...shared }],
    ["shared", shared],
    ["noise", { dtype: "U8", shape: [300, 1000], bytes: noise(300_000) }],
    ["mixed", { dtype: "BF16", shape: [600, 512], bytes: Uint8Array.from([...weights("BF16", 512, 512), ...noise(2 * 88 * 512)]) }],
    [
      "positions",
      { dtype: "I64", shape: [512], bytes: new Uint8Array(BigInt64Array.from({ length: 512 }, (_, i) => BigInt(i) - 5n).buffer) },
    ],
    ["zeros", { dtype: "F32", shape: [40, 30], bytes: new Uint8Array(4800) }],
    ["halves", { dtype: "BF16", shape: [7], bytes: new Uint8Array(Uint16Array.from({ length: 7 }, (_, i) => 65530 + i).buffer) }],
    ["four", { dtype: "F4", shape: [8, 300], bytes: noise(1200) }],
    ["none", { dtype: "BF16", shape: [0, 5], bytes: new Uint8Array(0) }],
    ["scalar", { dtype: "F32", shape: [], bytes: Uint8Array.of(1, 2, 3, 4) }],
    [
      "doubles",
      { dtype: "F64", shape: [3, 700], bytes: new Uint8Array(Float64Array.from({ length: 2100 }, () => random.normal()).buffer) },
    ],
    ["cut", coded("BF16", 1, 140_000)],
  ]);
  for (const dtype of ["BF16", "F16", "U8"] as const)
    for (const [rows, cols] of [
      [1, 384],
      [33, 129],
      [140, 1023],
      [700, 480],
      [3000, 3],
    ] as const)
      cases.set(`${dtype} ${rows} ${cols}`, coded(dtype, rows, cols));
  return cases;
}

async function pack(cases: ReadonlyMap<string, Case>, level: "max" | "fast"): Promise<Uint8Array> {
  const tensors = [...cases].map(([name, { dtype, shape, bytes }]) => lazyOf(name, { dtype, shape, bytes }));
  return await encodeCompact(compactSource(tensors, { format: "pt" }), { level, encoder: encodeWith(createCompactCoder()) });
}

test("`--kernels wasm` brings the module, its tables and a self-test that passes, and fails when a byte of the tensor has changed", async () => {
  expect(readdirSync(join(out, "kernels")).toSorted()).toEqual([
    "README.md",
    "compact-block.mjs",
    "compact-tables.mjs",
    "compact-tail.mjs",
    "compact.mjs",
    "compact.wasm",
    "compact_selftest.json",
    "index.html",
    "page.mjs",
    "restore.mjs",
  ]);
  expect(readFileSync(join(out, "kernels/README.md"), "utf8")).toContain("node compact.mjs ..");
  const run = (): ReturnType<typeof spawnSync> =>
    spawnSync(process.execPath, ["compact.mjs", ".."], { cwd: join(out, "kernels"), encoding: "utf8" });
  expect(run().stderr).toBe("");
  expect(run().stdout).toMatch(/^ok: tensor \S+, \d+ bytes, sha256 as stored\n$/);
  const { tensor } = JSON.parse(readFileSync(join(out, "kernels/compact_selftest.json"), "utf8")) as { tensor: string };
  const path = join(out, "model.safetensors.compact");
  const good = readFileSync(path);
  const bad = Buffer.from(good);
  for (let at = 16; at < bad.length - 4000; at += 1000) bad[at]! ^= 4;
  writeFileSync(path, bad);
  const failed = run();
  writeFileSync(path, good);
  expect([failed.status, String(failed.stdout).includes(`tensor ${tensor}`)]).toEqual([1, true]);
  const back = join(work, "back");
  await restore(out, { out: back });
  expect(readdirSync(back).toSorted()).toEqual(["config.json", "model.safetensors"]);
});

test("every tensor of an artifact, read range by range, after the header, is the source file", async () => {
  const stored = readFileSync(join(out, "model.safetensors.compact"));
  const file = await openCompact({ size: stored.length, read: async (offset, length) => stored.subarray(offset, offset + length) });
  const parts = [file.header];
  for (const name of file.tensors.keys()) parts.push(await file.decode(name));
  expect(Buffer.concat(parts).equals(readFileSync(join(SOURCE, "model.safetensors")))).toBe(true);
});

test("the page's module gives the source file back with its hashes, and tells tensors that are not those stored", async () => {
  const { EXTENSION, filesOf, restoreFiles } = (await import(pathToFileURL(join(out, "kernels/restore.mjs")).href)) as PageModule;
  const { names } = filesOf(JSON.parse(readFileSync(join(out, "bitwright.json"), "utf8")));
  expect(names).toEqual([`model.safetensors${EXTENSION}`]);
  const stored = readFileSync(join(out, names[0]!));
  const original = readFileSync(join(SOURCE, "model.safetensors"));
  const wasm = readFileSync(join(out, "kernels/compact.wasm"));
  const run = async (bytes: Uint8Array<ArrayBuffer>): Promise<{ readonly wrong: number; readonly sources: readonly SourceFile[] }> => {
    const sources: SourceFile[] = [];
    const report = { tensor: () => undefined, source: (file: SourceFile) => void sources.push(file) };
    return { ...(await restoreFiles(wasm, [{ name: names[0]!, blob: new Blob([bytes]) }], undefined, report)), sources };
  };
  const { wrong, sources } = await run(stored);
  expect(wrong).toBe(0);
  expect(sources.map(({ name, sha256 }) => [name, sha256])).toEqual([
    ["model.safetensors", createHash("sha256").update(original).digest("hex")],
  ]);
  expect(original.equals(sources[0]!.content)).toBe(true);
  const bad = Uint8Array.from(stored);
  bad[100]! ^= 1;
  await expect(run(bad)).rejects.toThrow(/^model\.safetensors\.compact: tensor /);
});

describe.each(["max", "fast"] as const)("level %s", (level) => {
  test("decodes every dtype and kind of payload, two tensors at a time as well", async () => {
    const cases = everyKind();
    const file = await openCompact(await pack(cases, level));
    expect([...file.tensors.keys()].toSorted()).toEqual([...cases.keys()].toSorted());
    for (const [name, { dtype, shape, bytes }] of cases) {
      expect(file.tensors.get(name)).toMatchObject({ dtype, shape, bytes: bytes.length });
      expect(Buffer.compare(await file.decode(name), bytes), name).toBe(0);
    }
    const both = await Promise.all(["shared", "U8 700 480"].map(async (name) => await file.decode(name)));
    expect(both.map((bytes, i) => Buffer.compare(bytes, cases.get(["shared", "U8 700 480"][i]!)!.bytes))).toEqual([0, 0]);
    const original = encodeSafetensors(cases, { format: "pt" });
    expect(Buffer.from(original).subarray(0, file.header.length).equals(file.header)).toBe(true);
  });

  test("of 150 damaged files, none gives other bytes, not even where only the checksums of blocks are looked at", async () => {
    const cases = new Map<string, Case>([
      ["a", coded("BF16", 40, 20)],
      ["b", coded("F16", 33, 130)],
      ["c", coded("I8", 70, 70)],
      ["d", { dtype: "U8", shape: [300], bytes: noise(300) }],
      ["e", { dtype: "I32", shape: [64], bytes: new Uint8Array(Int32Array.from({ length: 64 }, (_, i) => 3 * i).buffer) }],
      ["f", coded("BF16", 160, 110)],
    ]);
    const good = await pack(cases, level);
    let refused = 0;
    for (let i = 0; i < 150; i++) {
      const bad = Uint8Array.from(good);
      // Half of them at tails and tables, where a byte changes most.
      const at = i % 2 === 0 ? random.below(bad.length) : bad.length - 1 - random.below(1500);
      for (let k = 0; k <= i % 3; k++) bad[Math.min(bad.length - 1, at + random.below(4))] = random.below(256);
      try {
        const file = await openCompact(bad);
        for (const name of file.tensors.keys()) {
          const bytes = await file.decode(name, { sha256: false });
          if (Buffer.compare(bytes, cases.get(name)!.bytes) !== 0) throw new TypeError(`tensor ${name} is other bytes`);
        }
      } catch (error) {
        if (error instanceof TypeError || error instanceof WebAssembly.RuntimeError) throw error;
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(100);
  });
});

test("what is no compact file, or cut short, is said to be", async () => {
  const good = await pack(new Map([["a", coded("BF16", 40, 20)]]), "max");
  await expect(openCompact(new Uint8Array(100))).rejects.toThrow("not a compact file");
  await expect(openCompact(good.subarray(0, 30))).rejects.toThrow("30 bytes are no compact file");
  await expect(openCompact(good.subarray(0, -1))).rejects.toThrow("cut short");
  await expect(openCompact({ size: good.length, read: async () => new Uint8Array(3) })).rejects.toThrow("3 of 16 bytes at 0");
  await expect((await openCompact(good)).decode("b")).rejects.toThrow('there is no tensor "b"');
});

test("a SHA-256 that is another is an error although every checksum agrees", async () => {
  const one = coded("BF16", 64, 64);
  const file = await openCompact(await pack(new Map([["a", one]]), "fast"));
  const digest = globalThis.crypto.subtle.digest.bind(globalThis.crypto.subtle);
  globalThis.crypto.subtle.digest = async () => new ArrayBuffer(32);
  try {
    await expect(file.decode("a")).rejects.toThrow(`tensor a: sha256 is ${"0".repeat(64)}, must be`);
    expect(Buffer.compare(await file.decode("a", { sha256: false }), one.bytes)).toBe(0);
  } finally {
    globalThis.crypto.subtle.digest = digest;
  }
});
