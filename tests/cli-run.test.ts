/** The program as scripts use it: fixed forms, one JSON object on stdout, exit codes, on the models in fixtures/. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runCli } from "../cli/run.ts";
import { tensorOf, toFloat32 } from "../core/tensor.ts";
import { readNpz, writeNpz } from "../formats/containers/npz/npz.ts";
import { openCheckpoint } from "../formats/checkpoint.ts";

const LLAMA = "fixtures/models/minis/llama";
const BERT = "fixtures/models/minis/bert";
const directory = mkdtempSync(join(tmpdir(), "bitwright cli ü "));
const at = (name: string): string => join(directory, name);
const IDS = [
  [1, 2, 3, 4, 5, 6, 7, 8],
  [9, 10, 11, 12, 13, 14, 15, 16],
];

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
  /** What stdout holds, which must be exactly one JSON value. */
  json(): Record<string, unknown>;
}

async function run(args: readonly string[], stop?: { readonly at: string }): Promise<Outcome> {
  let out = "";
  let err = "";
  const controller = new AbortController();
  const code = await runCli(args, {
    stdout: (text) => (out += text),
    stderr: (text) => {
      err += text;
      if (stop !== undefined && err.includes(stop.at)) controller.abort();
    },
    stdoutIsTerminal: false,
    stderrIsTerminal: false,
    columns: 100,
    environment: {},
    signal: controller.signal,
  });
  return { code, out, err, json: () => JSON.parse(out) as Record<string, unknown> };
}

let made: Outcome;
beforeAll(async () => {
  writeFileSync(at("ids.json"), JSON.stringify(IDS));
  made = await run([LLAMA, "--method", "smoothquant", "--data", at("ids.json"), "--out", at("artifact"), "--json", "--quiet"]);
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe("fixed forms", () => {
  test("quantize prints its report as one object, and nothing else with --quiet", () => {
    expect(made).toMatchObject({ code: 0, err: "" });
    expect(made.json()).toMatchObject({ resumed: false, verified: { ok: true }, out: [{ format: "compressed-tensors" }] });
  });

  test("eval gives perplexity, tokens, window, kl, top1 and seconds", async () => {
    const found = await run(["eval", at("artifact"), "--data", at("ids.json"), "--window", "4", "--reference", LLAMA, "--json"]);
    expect(found.code).toBe(0);
    const number: unknown = expect.any(Number);
    expect(found.json()).toMatchObject({ perplexity: number, tokens: 12, window: 4, kl: number, top1: number, seconds: number });
  });

  test("eval --ids writes logits.i [tokens, vocabulary], last_hidden_state.i of an encoder", async () => {
    for (const [model, name, width] of [
      [LLAMA, "logits", 96],
      [BERT, "last_hidden_state", 32],
    ] as const) {
      expect((await run(["eval", model, "--ids", at("ids.json"), "--logits-out", at("logits.safetensors"), "--json"])).code).toBe(0);
      const file = await openCheckpoint(at("logits.safetensors"));
      expect([0, 1].map((i) => file.tensors.get(`${name}.${i}`)).map((tensor) => [tensor?.dtype, tensor?.shape])).toEqual([
        ["F32", [8, width]],
        ["F32", [8, width]],
      ]);
      await file.close();
    }
  });

  test("run --inputs gives the same numbers as eval --ids, batched, from int32 or int64, with the rest of the inputs filled in", async () => {
    await run(["eval", BERT, "--ids", at("ids.json"), "--logits-out", at("bert.safetensors")]);
    const file = await openCheckpoint(at("bert.safetensors"));
    const expected = await Promise.all([0, 1].map(async (i) => [...toFloat32(await file.tensors.get(`last_hidden_state.${i}`)!.read())]));
    await file.close();
    await writeNpz(at("in.npz"), new Map([["input_ids", tensorOf(Int32Array.from(IDS.flat()), [2, 8])]]));
    const done = await run(["run", BERT, "--inputs", at("in.npz"), "--out", at("out.npz"), "--json"]);
    expect(done.json()).toMatchObject({
      outputs: [{ name: "last_hidden_state", dtype: "F32", shape: [2, 8, 32] }, { name: "pooler_output" }],
    });
    const outputs = await readNpz(at("out.npz"));
    expect([...toFloat32(outputs.get("last_hidden_state")!)]).toEqual(expected.flat());
  });

  test("run --inputs names what does not fit: an unknown input, ids outside the vocabulary, the wrong type", async () => {
    const ids = tensorOf(BigInt64Array.from([1n, 2n]), [1, 2]);
    for (const [arrays, message] of [
      [
        new Map([
          ["input_ids", ids],
          ["pixels", ids],
        ]),
        /no input pixels; its inputs are input_ids/,
      ],
      [new Map([["input_ids", tensorOf(BigInt64Array.from([999n]), [1, 1])]]), /999 is outside the vocabulary of 96/],
      [new Map([["input_ids", tensorOf(Float32Array.from([1]), [1, 1])]]), /input_ids is F32; the model wants I64/],
      [new Map([["position_ids", ids]]), /input_ids is missing/],
    ] as const) {
      await writeNpz(at("bad.npz"), arrays);
      const refused = await run(["run", LLAMA, "--inputs", at("bad.npz"), "--out", at("none.npz"), "--json"]);
      expect(refused.code).toBe(2);
      expect((refused.json()["error"] as { message: string }).message).toMatch(message);
    }
  });

  test("verify says ok, tensors and worst, with and without the source; a changed byte exits 4", async () => {
    const worst: unknown = { tensor: expect.any(String), sqnr: expect.any(Number) };
    for (const source of [[], ["--source", LLAMA]]) {
      const checked = await run(["verify", at("artifact"), ...source, "--json"]);
      expect(checked.code).toBe(0);
      expect(checked.json()).toMatchObject({ ok: true, tensors: expect.any(Number) as unknown, worst });
    }
    cpSync(at("artifact"), at("flipped"), { recursive: true });
    const bytes = readFileSync(at("flipped/model.safetensors"));
    bytes[bytes.length - 5]! ^= 1;
    writeFileSync(at("flipped/model.safetensors"), bytes);
    const damaged = await run(["verify", at("flipped"), "--json"]);
    expect(damaged.code).toBe(4);
    expect(damaged.json()).toMatchObject({ ok: false });
  });

  test("compare, inspect and --dry-run print one object each, and options may stand in front of the command", async () => {
    const compared = (await run(["compare", LLAMA, at("artifact"), "--data", at("ids.json"), "--json"])).json();
    const number: unknown = expect.any(Number);
    expect(compared["outputs"]).toMatchObject([{ output: "logits", cosine: number, sqnr: number, largestDifference: number }]);
    expect((await run(["--json", "inspect", at("artifact")])).json()).toMatchObject({ kind: "artifact" });
    expect((await run([LLAMA, "--method", "rtn", "--bits", "fp8", "--dry-run", "--json"])).json()).toMatchObject({
      method: "rtn",
      estimate: { memoryBytes: number, diskBytes: number, outputBytes: number, seconds: number },
    });
  });
});

describe("gates", () => {
  test("a missed gate exits 3, and the object on stdout holds the report and the miss", async () => {
    const missed = await run([LLAMA, "--method", "rtn", "--gate", "sqnr=90", "--out", at("gated"), "--json"]);
    expect(missed.code).toBe(3);
    expect(missed.json()).toMatchObject({
      exitCode: 3,
      error: { code: "verify.gate" },
      verified: { ok: true },
      sites: expect.any(Array) as unknown,
    });
  });
  test("a perplexity gate without --eval is measured on --data and says so; without either it is refused before the work", async () => {
    const data = ["--method", "smoothquant", "--data", at("ids.json"), "--seq-len", "8"];
    const gated = await run([LLAMA, ...data, "--gate", "perplexity=1.5", "--out", at("gated-2"), "--json"]);
    expect(gated.code).toBe(0);
    expect(gated.json()).toMatchObject({ evaluation: { after: { tokens: 14, window: 8 } } });
    expect(String(gated.json()["warnings"])).toContain("measured on the calibration data");
    expect((await run([LLAMA, "--method", "rtn", "--gate", "perplexity=1.01", "--out", at("gated-3")])).code).toBe(2);
  });
});

describe("wrong input", () => {
  test.each([
    [["--json", "x", "--methd", "rtn"], 2, "--method"],
    [["inspct", "x", "--json"], 2, "command inspect"],
    [[LLAMA, "--method", "smoothquant", "--data", "no-such.txt", "--out", "{}/a", "--json"], 2, "no-such.txt"],
    [[LLAMA, "--method", "smoothquant", "--calibration", "no-such.safetensors", "--out", "{}/a", "--json"], 2, "no-such.safetensors"],
    [[LLAMA, "--method", "rtn", "--eval", "no-such.txt", "--out", "{}/a", "--json"], 2, "no-such.txt"],
    [[LLAMA, "--method", "rtn", "--group-size", "chanel", "--out", "{}/a", "--json"], 2, "did you mean channel"],
    [[LLAMA, "--method", "rtn", "--out", "{}/ids.json", "--json"], 2, "a file is in the way"],
    [["calibrate", LLAMA, "--data", "{}/ids.json", "--statistics", "absmx", "--out", "{}/s", "--json"], 2, "did you mean absmax"],
    [["verify", "no-such", "--json"], 2, "no such file"],
  ] as const)("%j exits %i and says %s", async (args, code, text) => {
    const refused = await run(args.map((arg) => arg.replace("{}", directory)));
    expect(refused.code).toBe(code);
    expect(refused.err).toContain(text);
    expect(refused.json()).toMatchObject({ exitCode: code, error: { code: expect.any(String) as unknown } });
  });

  test("a start that failed on its data does not stand in the way of the next one", async () => {
    writeFileSync(at("bad.json"), "[[1, 2, 999]]");
    const attempt = (data: string): Promise<Outcome> =>
      run([LLAMA, "--method", "smoothquant", "--data", at(data), "--out", at("again"), "--quiet"]);
    const failed = await attempt("bad.json");
    expect(failed.err).toContain("id 999");
    expect(failed.code).toBe(7);
    expect(await attempt("ids.json")).toMatchObject({ code: 0, err: "" });
  });

  test("an architecture nobody knows is refused by name, except for plain weight rounding, which says so", async () => {
    cpSync(LLAMA, at("unknown"), { recursive: true });
    const config = readFileSync(at("unknown/config.json"), "utf8").replaceAll("LlamaForCausalLM", "FooForCausalLM");
    writeFileSync(at("unknown/config.json"), config);
    const refused = await run([at("unknown"), "--method", "rtn", "--out", at("foo"), "--quiet"]);
    expect(refused.code).toBe(6);
    expect(refused.err).toContain("FooForCausalLM");
    const rounded = await run([at("unknown"), "--method", "rtn", "--bits", "w8a16", "--out", at("foo"), "--json", "--quiet"]);
    expect(rounded.code).toBe(0);
    expect(String(rounded.json()["warnings"])).toContain("architecture is not known");
  });

  test("logits that are not numbers are an error, not a perplexity", async () => {
    cpSync(LLAMA, at("nan"), { recursive: true });
    const bytes = readFileSync(at("nan/model.safetensors"));
    bytes.fill(0xff, bytes.length - 4000);
    writeFileSync(at("nan/model.safetensors"), bytes);
    const refused = await run(["eval", at("nan"), "--data", at("ids.json"), "--window", "8", "--json", "--quiet"]);
    expect(refused.code).toBe(7);
    expect(refused.json()).toMatchObject({ error: { code: "numeric.not-finite" } });
  });
});

test("a calibrated run that was interrupted goes on by `resume <out>`, also when its data was named by a relative path", async () => {
  const args = [LLAMA, "--method", "smoothquant", "--data", relative(process.cwd(), at("ids.json"))];
  const stopped = await run([...args, "--out", at("stopped"), "--progress", "ndjson"], { at: '"phase":"quantize"' });
  expect(stopped.code).toBe(130);
  const resumed = await run(["resume", at("stopped"), "--json", "--quiet"]);
  expect(resumed.err).toBe("");
  expect(resumed.json()).toMatchObject({ resumed: true });
  for (const file of ["model.safetensors", "config.json", "bitwright.json"]) {
    expect(readFileSync(at(`stopped/${file}`)).equals(readFileSync(at(`artifact/${file}`))), file).toBe(true);
  }
  expect((await run(["resume", at("stopped"), "--quiet"])).code).toBe(2);
});
