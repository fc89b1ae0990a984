import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openCheckpoint } from "../../formats/checkpoint.ts";
import { createEngine } from "../../model/engines/index.ts";
import { logitsOf } from "../../model/evaluate.ts";
import { openModel } from "../../model/sources/open.ts";
import { inspect } from "../inspect.ts";
import { quantize } from "../quantize.ts";
import { openDFloat11 } from "./open.ts";

const FIXTURES = join(import.meta.dirname, "../../fixtures/lossless/df11");
const [SOURCE, OFFICIAL] = [join(FIXTURES, "llama-slice/source"), join(FIXTURES, "llama-slice/artifact")];
let work: string;
let ours: string;

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "open-df11-"));
  ours = join(work, "ours");
  await quantize(SOURCE, { recipe: { method: ["dfloat11"] }, out: ours, workers: 0 });
});
afterAll(async () => {
  await rm(work, { recursive: true, force: true });
});

test.each(["llama-slice", "bert-slice"])("%s: every tensor of the official artifact is the source's", async (name) => {
  const { tensors } = await openDFloat11(join(FIXTURES, name, "artifact"));
  const source = await openCheckpoint(join(FIXTURES, name, "source"));
  expect([...tensors.keys()].toSorted()).toEqual([...source.tensors.keys()].toSorted());
  for (const [tensor, lazy] of source.tensors) {
    const [found, wanted] = [await tensors.get(tensor)!.read(), await lazy.read()];
    expect(found.dtype, tensor).toBe(wanted.dtype);
    expect(Buffer.compare(found.bytes, wanted.bytes), tensor).toBe(0);
  }
  await source.close();
});

test("an artifact whose output_positions lack the entry that the official encoder leaves out opens, and decodes exactly", async () => {
  const { tensors } = await openDFloat11(join(FIXTURES, "edges/artifact"));
  const source = await openCheckpoint(join(FIXTURES, "edges/source.safetensors"));
  const lacking = await openCheckpoint(join(FIXTURES, "edges/artifact/model.safetensors"));
  const [positions, stream] = ["output_positions", "encoded_exponent"].map((suffix) => lacking.tensors.get(`missing_position.${suffix}`)!);
  expect([positions!.shape, Math.ceil(stream!.shape[0]! / 4096)]).toEqual([[8], 2]);
  for (const [name, lazy] of source.tensors)
    expect(Buffer.compare((await tensors.get(name)!.read()).bytes, (await lazy.read()).bytes), name).toBe(0);
  await source.close();
  await lacking.close();
});

test("our artifact has the source's names, order and shapes", async () => {
  const { tensors, configs } = await openDFloat11(ours);
  const source = await openCheckpoint(SOURCE);
  expect([...tensors].map(([name, { dtype, shape }]) => [name, dtype, shape])).toEqual(
    [...source.tensors].map(([name, { dtype, shape }]) => [name, dtype, shape]),
  );
  for (const [name, lazy] of source.tensors)
    expect(Buffer.compare((await tensors.get(name)!.read()).bytes, (await lazy.read()).bytes), name).toBe(0);
  expect(configs.get("")).toEqual(source.config);
  await source.close();
});

test("one artifact is read from unit files the definition decodes as well", async () => {
  const { dfloat11 } = await import("../../formats/layouts/dfloat11/dfloat11.ts");
  const checkpoint = await openCheckpoint(ours);
  const source = await openCheckpoint(SOURCE);
  const { tensors } = await dfloat11.read(checkpoint);
  for (const [name, lazy] of source.tensors)
    expect(Buffer.compare((await tensors.get(name)!.read()).bytes, (await lazy.read()).bytes), name).toBe(0);
  await checkpoint.close();
  await source.close();
});

test.each([
  ["the official artifact", OFFICIAL],
  ["ours", ""],
])("%s opens as a model and gives the source's logits", async (_, path) => {
  const directory = path === "" ? ours : path;
  const engine = await createEngine("auto");
  const ids = [[1, 17, 200, 5, 9, 383]];
  const [found, wanted] = [
    await logitsOf(await openModel(directory), ids, { engine }),
    await logitsOf(await openModel(SOURCE), ids, { engine }),
  ];
  expect(found).toEqual(wanted);
  await engine.close();
});

test("quantizing an artifact gives the bytes of quantizing its source", async () => {
  const recipe = { method: ["rtn"], bits: "w8a16" };
  const [a, b, c] = [join(work, "rtn-source"), join(work, "rtn-ours"), join(work, "rtn-official")];
  await quantize(SOURCE, { recipe, out: a, workers: 0 });
  await quantize(ours, { recipe, out: b, workers: 0 });
  await quantize(OFFICIAL, { recipe, out: c, workers: 0 });
  const read = (place: string, name: string): Promise<Buffer> => readFile(join(place, name));
  expect((await read(b, "model.safetensors")).equals(await read(a, "model.safetensors"))).toBe(true);
  expect((await read(b, "config.json")).equals(await read(a, "config.json"))).toBe(true);
  const [x, y] = [await openCheckpoint(a), await openCheckpoint(c)];
  for (const [name, lazy] of x.tensors)
    expect(Buffer.compare((await y.tensors.get(name)!.read()).bytes, (await lazy.read()).bytes), name).toBe(0);
  await x.close();
  await y.close();
});

test("a flipped bit in a sign or mantissa is an error that names the unit", async () => {
  const damaged = join(work, "damaged");
  await mkdir(damaged);
  for (const name of await readdir(ours)) await copyFile(join(ours, name), join(damaged, name));
  const bytes = await readFile(join(damaged, "model_layers_0.safetensors"));
  bytes[bytes.length - 1]! ^= 0x80;
  await writeFile(join(damaged, "model_layers_0.safetensors"), bytes);
  const { tensors } = await openDFloat11(damaged);
  const results = await Promise.allSettled([...tensors.values()].map((tensor) => tensor.read()));
  const errors = results.flatMap((result) => (result.status === "rejected" ? [result.reason as { code: string; message: string }] : []));
  expect(errors).toHaveLength(1);
  expect(errors[0]!.code).toBe("format.checksum");
  expect(errors[0]!.message).toContain("model.layers.0");
});

test("inspect shows what each unit takes, its bound and its index", async () => {
  for (const path of [OFFICIAL, ours]) {
    const { kind, units } = await inspect(path);
    expect(kind).toBe("artifact");
    expect(units!.map(({ name }) => name).toSorted()).toEqual(["lm_head", "model.embed_tokens", "model.layers.0", "model.layers.1"]);
    for (const { bitsPerWeight, entropyBound, indexBits, tableBits, histogram, elements } of units!) {
      expect(entropyBound).toBeGreaterThan(10);
      expect(bitsPerWeight).toBeGreaterThan(entropyBound);
      // Everything but streams, index and tables is what Huffman loses on the entropy: less than half a bit.
      expect(bitsPerWeight - indexBits - tableBits - entropyBound).toBeLessThan(0.5);
      expect(histogram.reduce((sum, { count }) => sum + count, 0)).toBe(elements);
    }
  }
});
