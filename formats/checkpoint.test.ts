import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { tensorOf } from "../core/tensor.ts";
import { openCheckpoint, parseConfig, parseIndex, planShards } from "./checkpoint.ts";
import { encodeSafetensors } from "./containers/safetensors/write.ts";

const MINIS = "fixtures/models/minis";
const scratch = mkdtempSync(join(tmpdir(), "bitwright-checkpoint-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const directory = (): string => mkdtempSync(join(scratch, "model-"));
/** A directory with the given files; numbers become safetensors files of one tensor of that name. */
function make(files: Readonly<Record<string, string | Uint8Array>>): string {
  const path = directory();
  for (const [name, content] of Object.entries(files)) writeFileSync(join(path, name), content);
  return path;
}
const shard = (...names: string[]): Uint8Array =>
  encodeSafetensors(new Map(names.map((name, i) => [name, tensorOf(Uint8Array.of(i, 7), [2])])), { format: "pt" });
const index = (weightMap: unknown): string => JSON.stringify({ metadata: { total_size: 4 }, weight_map: weightMap });
async function failure(path: string): Promise<unknown> {
  try {
    await (await openCheckpoint(path)).close();
    return "opened";
  } catch (error) {
    return error;
  }
}

describe("model directories", () => {
  test("three shards and an index read as the same model in one file", async () => {
    const [sharded, single] = [await openCheckpoint(join(MINIS, "llama-sharded")), await openCheckpoint(join(MINIS, "llama"))];
    expect(sharded.files).toHaveLength(3);
    expect([...sharded.tensors.keys()].toSorted()).toEqual([...single.tensors.keys()].toSorted());
    for (const [name, tensor] of single.tensors) expect(await sharded.tensors.get(name)!.read()).toEqual(await tensor.read());
    expect(sharded.config).toEqual(single.config);
    expect(sharded.metadata).toEqual({ format: "pt" });
    await Promise.all([sharded.close(), single.close()]);
  });

  test("one file by name; config.json beside it counts", async () => {
    const checkpoint = await openCheckpoint(join(MINIS, "bert", "model.safetensors"));
    expect([checkpoint.directory, checkpoint.config?.["model_type"], checkpoint.tensors.size]).toEqual([join(MINIS, "bert"), "bert", 39]);
    await checkpoint.close();
  });

  test("links are followed, as in the hub's cache", async () => {
    const path = directory();
    mkdirSync(join(path, "blobs"));
    mkdirSync(join(path, "snapshot"));
    for (const name of ["model.safetensors", "config.json"]) {
      cpSync(join(MINIS, "llama", name), join(path, "blobs", `blob-${name}`));
      symlinkSync(join("..", "blobs", `blob-${name}`), join(path, "snapshot", name));
    }
    const checkpoint = await openCheckpoint(join(path, "snapshot"));
    expect(checkpoint.tensors.size).toBe(29);
    await checkpoint.close();
  });

  test("model.safetensors counts before an index, unless the index names it as a shard", async () => {
    const stale = make({
      "model.safetensors": shard("whole"),
      "model.safetensors.index.json": index({ a: "model-00001-of-00001.safetensors" }),
      "model-00001-of-00001.safetensors": shard("a"),
    });
    const first = await openCheckpoint(stale);
    expect([...first.tensors.keys()]).toEqual(["whole"]);
    const named = make({
      "model.safetensors": shard("a"),
      "extra.safetensors": shard("b"),
      "model.safetensors.index.json": index({ a: "model.safetensors", b: "extra.safetensors" }),
    });
    const second = await openCheckpoint(named);
    expect([...second.tensors.keys()].toSorted()).toEqual(["a", "b"]);
    await Promise.all([first.close(), second.close()]);
  });

  test("pickles are refused with the reason and what to do", async () => {
    for (const name of ["pytorch_model.bin", "model.pt", "weights.pth", "model.ckpt", "pytorch_model-00001-of-00002.bin"]) {
      const error = await failure(make({ [name]: "x", "config.json": "{}" }));
      expect(error).toMatchObject({
        code: "format.pickle",
        message: expect.stringMatching(/runs whatever code.*Convert it to safetensors/) as string,
      });
    }
    const file = join(make({ "pytorch_model.bin": "x" }), "pytorch_model.bin");
    expect(await failure(file)).toMatchObject({ code: "format.pickle" });
  });

  test("pickles beside safetensors do not matter", async () => {
    const checkpoint = await openCheckpoint(make({ "pytorch_model.bin": "x", "model.safetensors": shard("a") }));
    expect([...checkpoint.tensors.keys()]).toEqual(["a"]);
    await checkpoint.close();
  });

  test("nothing there, nothing inside, shards without an index", async () => {
    expect(await failure(join(scratch, "absent"))).toMatchObject({ code: "input.path" });
    expect(await failure(directory())).toMatchObject({ code: "format.missing" });
    expect(await failure(make({ "model-00001-of-00002.safetensors": shard("a") }))).toMatchObject({ code: "format.missing" });
  });
});

describe("files that are not files", () => {
  const link = (target: string, name = "model.safetensors"): string => {
    const path = directory();
    symlinkSync(target, join(path, name));
    return path;
  };
  test("a link to a directory, a device, itself, nothing", async () => {
    expect(await failure(link(scratch))).toMatchObject({ code: "format.path", message: expect.stringMatching(/directory/) as string });
    expect(await failure(link("/dev/zero"))).toMatchObject({ code: "format.path", message: expect.stringMatching(/device/) as string });
    expect(await failure(link("model.safetensors"))).toMatchObject({ code: "input.path" });
    expect(await failure(link(join(scratch, "gone")))).toMatchObject({ code: "input.path" });
  });

  test.skipIf(process.platform === "win32")("a pipe does not hang", async () => {
    const path = directory();
    execFileSync("mkfifo", [join(path, "model.safetensors")]);
    expect(await failure(path)).toMatchObject({ code: "format.path", message: expect.stringMatching(/pipe/) as string });
    const withConfig = make({ "model.safetensors": shard("a") });
    execFileSync("mkfifo", [join(withConfig, "config.json")]);
    expect(await failure(withConfig)).toMatchObject({ code: "format.config" });
  });
});

describe("an index that does not fit its shards", () => {
  const base = { "one.safetensors": shard("a"), "two.safetensors": shard("b") };
  test.each<[string, unknown, string]>([
    ["a shard that is missing", { a: "one.safetensors", b: "three.safetensors" }, "format.missing"],
    ["a tensor that is in no shard", { a: "one.safetensors", b: "two.safetensors", c: "two.safetensors" }, "format.missing"],
    ["a tensor in another shard", { a: "two.safetensors", b: "one.safetensors" }, "format.field"],
    ["an empty map", {}, "format.field"],
    ["a map that is a list", [], "format.field"],
    ["a shard that is a number", { a: 1 }, "format.field"],
    ["a shard in the directory above", { a: "../one.safetensors" }, "format.path"],
    ["a shard below", { a: "sub/one.safetensors" }, "format.path"],
    ["a shard below, the other way round", { a: "sub\\one.safetensors" }, "format.path"],
    ["an absolute shard", { a: "/etc/one.safetensors" }, "format.path"],
    ["a drive", { a: "C:one.safetensors" }, "format.path"],
    ["two dots", { a: ".." }, "format.path"],
    ["a hidden file", { a: ".safetensors" }, "format.path"],
    ["a NUL", { a: "one.safetensors\u0000.safetensors" }, "format.path"],
    ["no name", { a: "" }, "format.path"],
    ["a pickle", { a: "one.bin" }, "format.path"],
  ])("%s: %s", async (_, weightMap, code) => {
    const result = await failure(make({ ...base, "model.safetensors.index.json": index(weightMap) }));
    expect(result).toMatchObject({ code });
  });

  test("files the index does not name are left alone", async () => {
    const checkpoint = await openCheckpoint(make({ ...base, "model.safetensors.index.json": index({ a: "one.safetensors" }) }));
    expect([...checkpoint.tensors.keys()]).toEqual(["a"]);
    await checkpoint.close();
  });

  test("a tensor in two shards, a tensor the index leaves out, a tensor listed twice", async () => {
    const twice = make({
      "one.safetensors": shard("a"),
      "two.safetensors": shard("a", "b"),
      "model.safetensors.index.json": index({ a: "one.safetensors", b: "two.safetensors" }),
    });
    expect(await failure(twice)).toMatchObject({ code: "format.duplicate" });
    const extra = make({ "one.safetensors": shard("a", "z"), "model.safetensors.index.json": index({ a: "one.safetensors" }) });
    expect(await failure(extra)).toMatchObject({ code: "format.field", message: expect.stringMatching(/"z"/) as string });
    const text = '{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}';
    expect(() => parseIndex(new TextEncoder().encode(text))).toThrow(expect.objectContaining({ code: "format.duplicate" }));
    expect(parseIndex(new TextEncoder().encode('{"weight_map":{"__proto__":"x.safetensors"}}')).get("__proto__")).toBe("x.safetensors");
  });
});

describe("config.json", () => {
  test.each<[string, string]>([
    ["a list", "[]"],
    ["null", "null"],
    ["text", '"llama"'],
    ["nothing", ""],
    ["cut JSON", '{"a":'],
    ["nesting", `{"a":${"[".repeat(100_000)}`],
    ["__proto__", '{"a":{"__proto__":{"b":1}}}'],
    ["__proto__, escaped", '{"\\u005f_proto__":1}'],
    ["a byte order mark", "\ufeff{}"],
    ["NaN", '{"a":NaN}'],
  ])("%s: format.config", async (_, text) => {
    expect(() => parseConfig(new TextEncoder().encode(text))).toThrow(expect.objectContaining({ code: "format.config" }));
    expect(await failure(make({ "model.safetensors": shard("a"), "config.json": text }))).toMatchObject({ code: "format.config" });
  });

  test("bytes that are not UTF-8, and a file that is too large", async () => {
    expect(() => parseConfig(Uint8Array.of(0x7b, 0xff, 0x7d))).toThrow(expect.objectContaining({ code: "format.config" }));
    const large = make({ "model.safetensors": shard("a"), "config.json": `{"a":"${" ".repeat(2 ** 24)}"}` });
    expect(await failure(large)).toMatchObject({ code: "format.config" });
  });

  test("of two equal keys the last counts, as in every JSON reader", () => {
    expect(parseConfig(new TextEncoder().encode('{"a":1,"a":2}'))).toEqual({ a: 2 });
  });
});

describe("sharding", () => {
  const spec = (name: string, bytes: number): { name: string; dtype: "U8"; shape: number[] } => ({ name, dtype: "U8", shape: [bytes] });

  test("shards fill in order, none is larger than the limit unless one tensor is", () => {
    const { shards, index: written } = planShards(
      [spec("a", 6), spec("b", 4), spec("c", 11), spec("d", 1), spec("e", 9), spec("f", 1)],
      10,
    );
    expect(shards.map(({ file, specs }) => [file, specs.map(({ name }) => name)])).toEqual([
      ["model-00001-of-00004.safetensors", ["a", "b"]],
      ["model-00002-of-00004.safetensors", ["c"]],
      ["model-00003-of-00004.safetensors", ["d", "e"]],
      ["model-00004-of-00004.safetensors", ["f"]],
    ]);
    expect(written).toEqual({
      metadata: { total_size: 32 },
      weight_map: Object.fromEntries(shards.flatMap(({ file, specs }) => specs.map(({ name }) => [name, file]))),
    });
  });

  test("what fits one shard is model.safetensors without an index; limits and names are checked", () => {
    expect(planShards([spec("a", 6), spec("b", 4)], 10)).toEqual({
      shards: [{ file: "model.safetensors", specs: [spec("a", 6), spec("b", 4)] }],
    });
    expect(() => planShards([], 0)).toThrow(/maxShardBytes/);
    expect(() => planShards([spec("a", 1), spec("a", 1)], 1)).toThrow(/given twice/);
  });

  test("a plan written to disk is read again, total_size as in the fixture's index", async () => {
    const source = await openCheckpoint(join(MINIS, "llama"));
    const plan = planShards([...source.tensors.values()], 31_000);
    expect(plan.shards.length).toBeGreaterThan(2);
    const official = JSON.parse(readFileSync(join(MINIS, "llama-sharded/model.safetensors.index.json"), "utf8")) as {
      metadata: { total_size: number };
    };
    expect(plan.index!.metadata.total_size).toBe(official.metadata.total_size);
    const path = make({ "model.safetensors.index.json": JSON.stringify(plan.index) });
    for (const { file, specs } of plan.shards) {
      const tensors = await Promise.all(specs.map(async ({ name }) => [name, await source.tensors.get(name)!.read()] as const));
      writeFileSync(join(path, file), encodeSafetensors(new Map(tensors), { format: "pt" }));
    }
    const written = await openCheckpoint(path);
    for (const [name, tensor] of source.tensors) expect(await written.tensors.get(name)!.read()).toEqual(await tensor.read());
    await Promise.all([source.close(), written.close()]);
  });
});
