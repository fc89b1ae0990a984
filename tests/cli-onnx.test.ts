import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { runCli } from "../cli/run.ts";
import { tensorOf, type Tensor } from "../core/tensor.ts";
import { readNpz, writeNpz } from "../formats/containers/npz/npz.ts";
import { readTensors, withPrefix } from "./support/tensors.ts";

const MODEL = "fixtures/onnx/zoo/modern-23.onnx";
const GOLDEN = MODEL.replace(".onnx", ".golden.safetensors");
const scratch = mkdtempSync(join(tmpdir(), "bitwright-cli-onnx-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

async function run(...args: string[]): Promise<{ readonly code: number; readonly out: string; readonly err: string }> {
  let [out, err] = ["", ""];
  const code = await runCli(args, {
    stdout: (text) => (out += text),
    stderr: (text) => (err += text),
    stdoutIsTerminal: false,
    stderrIsTerminal: false,
    columns: 100,
    environment: {},
    signal: new AbortController().signal,
  });
  return { code, out, err };
}

describe("the program on an ONNX file", () => {
  test("run gives the golden outputs by name", async () => {
    const tensors = await readTensors(GOLDEN);
    const [input, output] = ["in.npz", "out.npz"].map((name) => join(scratch, name)) as [string, string];
    await writeNpz(input, withPrefix(tensors, "in."));
    expect(await run("run", MODEL, "--inputs", input, "--out", output)).toMatchObject({ code: 0 });
    const outputs = await readNpz(output);
    for (const [name, expected] of withPrefix(tensors, "out.")) {
      const actual = outputs.get(name)!;
      expect(actual.shape).toEqual(expected.shape);
      const floats = ({ bytes }: Tensor): Float32Array => new Float32Array(bytes.slice().buffer);
      for (const [i, value] of floats(expected).entries()) expect(floats(actual)[i]).toBeCloseTo(value, 4);
    }
  });

  test("wrong names, dtypes and shapes are errors that say what the model takes", async () => {
    const inputs = withPrefix(await readTensors(GOLDEN), "in.");
    const [name, tensor] = [...inputs].find(([, { dtype }]) => dtype === "F32")!;
    const [file, out] = [join(scratch, "wrong.npz"), join(scratch, "never.npz")];
    const count = tensor.bytes.byteLength / 4;
    const cases: [string, Map<string, Tensor>][] = [
      ["input.option", new Map([...inputs, ["nobody", tensor]])],
      ["input.option", new Map([...inputs].filter(([other]) => other !== name))],
      ["input.dtype", new Map([...inputs, [name, tensorOf(new Int32Array(count), tensor.shape)]])],
      ["input.shape", new Map([...inputs, [name, tensorOf(new Float32Array(3), [1, 1, 3])]])],
    ];
    for (const [code, arrays] of cases) {
      await writeNpz(file, arrays);
      const { code: exit, err } = await run("run", MODEL, "--inputs", file, "--out", out);
      expect([code, exit, err]).toEqual([code, 2, expect.stringContaining(`[${code}]`)]);
      expect(err).toContain(`${name} F32`);
    }
  });

  test("inspect lists versions, inputs, operators, sites and tensors", async () => {
    const { code, out } = await run("inspect", MODEL, "--json");
    expect(code).toBe(0);
    const found = JSON.parse(out) as { kind: string; facts: [string, string][]; tensors: { name: string }[] };
    const facts = new Map(found.facts);
    expect(found.kind).toBe("ONNX model");
    expect(facts.get("opsets")).toBe("ai.onnx 23");
    expect(facts.get("sites")).toBe("6 × MatMul");
    expect(facts.get("operators")).toContain("× RotaryEmbedding");
    expect(found.tensors.map(({ name }) => name)).toContain("q");
  });

  test("compare: a file and its own copy are equal, its int8 form is close, another model is refused", async () => {
    const [data, out] = ["compare.npz", "compare-w8a8"].map((name) => join(scratch, name)) as [string, string];
    await writeNpz(data, withPrefix(await readTensors(GOLDEN), "in."));
    type Compared = { outputs: { output: string; cosine: number; largestDifference: number; count: number }[] };
    const compare = async (other: string): Promise<Compared["outputs"]> => {
      const { code, out: text, err } = await run("compare", MODEL, other, "--data", data, "--json");
      expect([code, err]).toEqual([0, expect.any(String)]);
      return (JSON.parse(text) as Compared).outputs;
    };
    const names = [...withPrefix(await readTensors(GOLDEN), "out.").keys()];
    const same = await compare(MODEL);
    expect(same.map(({ output }) => output).toSorted()).toEqual(names.toSorted());
    for (const { cosine, largestDifference } of same) expect([cosine, largestDifference]).toEqual([expect.closeTo(1, 9), 0]);
    expect(await run(MODEL, "--method", "rtn", "--bits", "w8a8", "--out", out)).toMatchObject({ code: 0 });
    for (const { cosine, largestDifference } of await compare(out)) {
      expect(cosine).toBeGreaterThan(0.99);
      expect(largestDifference).toBeGreaterThan(0);
    }
    const { code, err } = await run("compare", MODEL, "fixtures/onnx/zoo/cnn-17.onnx", "--data", data);
    expect([code, err]).toEqual([2, expect.stringContaining("[input.option]")]);
  });
});
