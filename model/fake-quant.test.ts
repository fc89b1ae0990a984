import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { E4M3, E2M1, E5M2, FLOAT_FORMATS, decodeFloat, roundToFloat } from "../core/float.ts";
import { createRandom } from "../core/random.ts";
import { clamp, roundHalfEven } from "../core/round.ts";
import type { ActivationScheme, Granularity, QuantScheme, SiteActivations } from "../core/scheme.ts";
import { lazyOf, tensorOf, toFloat32 } from "../core/tensor.ts";
import type { Engine, HostTensor } from "./engines/engine.ts";
import { createEngine } from "./engines/index.ts";
import { quantizeDequantize, withActivations } from "./fake-quant.ts";
import { GraphBuilder } from "./graph/builder.ts";
import { compareModels } from "./compare.ts";
import { tokenSample } from "./inputs.ts";
import { sitesOf, type Block, type Model } from "./model.ts";
import { openModel } from "./sources/open.ts";

const ENGINES = ["onnxruntime", "tfjs"] as const;
const engines = new Map<string, Engine>();
beforeAll(async () => {
  for (const name of ENGINES) engines.set(name, await createEngine(name, { threads: 1 }));
});
afterAll(async () => {
  for (const engine of engines.values()) await engine.close();
});

const scheme = (over: Partial<QuantScheme> = {}): QuantScheme => ({
  format: { kind: "int", bits: 8, symmetric: true },
  granularity: { kind: "token" },
  timing: "dynamic",
  scale: "f32",
  dialect: "sq-fake",
  ...over,
});

/** Run quantize-dequantize on `x` in every engine, which must agree to the bit; static numbers come in as inputs. */
async function run(s: QuantScheme, x: Float32Array, shape: readonly number[], scale?: number, zero?: number): Promise<number[]> {
  const graph = new GraphBuilder("probe");
  graph.input(
    "x",
    "F32",
    shape.map((_, i) => `axis${i}`),
  );
  graph.input("samples", "F32", ["batch", "any"]);
  if (scale !== undefined) graph.weight("scale", [1]);
  if (zero !== undefined) graph.weight("zero", [1]);
  const y = quantizeDequantize(graph, "x", s, scale === undefined ? undefined : "scale", zero === undefined ? undefined : "zero", {
    samples: "samples",
    output: "y",
  });
  // Read so that engines that refuse unused inputs see it used.
  graph.op("Identity", ["samples"], {}, "used");
  const feeds: Record<string, HostTensor> = {
    x: { dtype: "F32", shape, data: x },
    samples: { dtype: "F32", shape: [2, 1], data: new Float32Array(2) },
    scale: { dtype: "F32", shape: [1], data: Float32Array.of(scale ?? 0) },
    zero: { dtype: "F32", shape: [1], data: Float32Array.of(zero ?? 0) },
  };
  const results: number[][] = [];
  for (const engine of engines.values()) {
    const compiled = await engine.compile(graph.build([y, "used"]));
    const out = await compiled.run(feeds);
    await compiled.release();
    expect(out["y"]!.shape).toEqual(shape);
    // The sign of a zero is not part of the claim.
    results.push(Array.from(out["y"]!.data as Float32Array, (v) => v + 0));
  }
  for (const result of results) expect(result).toEqual(results[0]);
  return results[0]!;
}

const f = Math.fround;
/** Values with two loud channels and one row of zeros: 2 samples × 3 tokens × 8 channels. */
function activations(): Float32Array {
  const random = createRandom(7);
  return Float32Array.from({ length: 48 }, (_, i) => (i >= 8 && i < 16 ? 0 : f((random.uniform() - 0.4) * (i % 8 === 3 ? 50 : 1))));
}

/** The formulas of methods-llm.md §0.3 on one run of numbers, rounded to f32 after every operation. */
const REFERENCE: Record<string, (x: Float32Array, bits: number) => number[]> = {
  "sq-fake": (x, bits) => {
    const s = f(Math.max(f(1e-5), ...x.map(Math.abs)) / (2 ** (bits - 1) - 1));
    return Array.from(x, (v) => f(roundHalfEven(f(v / s)) * s));
  },
  "torch-int": (x, bits) => {
    const s = f(Math.max(f(1e-8), ...x.map(Math.abs)) / (2 ** (bits - 1) - 1));
    return Array.from(x, (v) => f(clamp(roundHalfEven(f(v / s)), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * s));
  },
  "compressed-tensors": (x, bits) => {
    const s = f(Math.max(...x.map(Math.abs)) / ((2 ** bits - 1) / 2)) || 2 ** -23;
    return Array.from(x, (v) => f(roundHalfEven(clamp(f(v / s), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)) * s));
  },
  "compressed-tensors asym": (x, bits) => {
    const [low, high] = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1];
    const min = Math.min(0, ...x);
    const s = f(f(Math.max(0, ...x) - min) / (2 ** bits - 1)) || 2 ** -23;
    const z = roundHalfEven(clamp(f(low - f(min / s)), low, high));
    return Array.from(x, (v) => f((roundHalfEven(clamp(f(f(v / s) + z), low, high)) - z) * s));
  },
  "awq asym": (x, bits) => {
    const top = 2 ** bits - 1;
    const s = f(Math.max(f(1e-5), f(Math.max(...x) - Math.min(...x))) / top);
    const z = clamp(-roundHalfEven(f(Math.min(...x) / s)), 0, top);
    return Array.from(x, (v) => f((clamp(roundHalfEven(f(v / s)) + z, 0, top) - z) * s));
  },
  "gptq asym": (x, bits) => {
    const top = 2 ** bits - 1;
    const min = Math.min(0, ...x);
    const s = f(f(Math.max(0, ...x) - min) / top) || f(2 / top);
    const z = roundHalfEven(f(-min / s));
    return Array.from(x, (v) => f((clamp(roundHalfEven(f(v / s)) + z, 0, top) - z) * s));
  },
  "omniquant asym": (x, bits) => {
    const top = 2 ** bits - 1;
    const s = clamp(f(f(Math.max(...x) - Math.min(...x)) / top), f(1e-5), 1e4);
    const z = roundHalfEven(clamp(f(-Math.min(...x) / s), -1e4, 1e4));
    return Array.from(x, (v) => f((clamp(roundHalfEven(f(v / s)) + z, 0, top) - z) * s));
  },
};

function inRuns(x: Float32Array, length: number, quantize: (run: Float32Array) => number[]): number[] {
  return Array.from({ length: x.length / length }, (_, i) => quantize(x.subarray(i * length, (i + 1) * length))).flat();
}

describe("integer activations equal the written formulas bit for bit", () => {
  const runLength: [Granularity, number][] = [
    [{ kind: "token" }, 8],
    [{ kind: "tensor" }, 24],
    [{ kind: "group", size: 4 }, 4],
  ];
  for (const name of Object.keys(REFERENCE)) {
    for (const [granularity, length] of runLength) {
      test.each([2, 4, 8, 16])(`${name}, dynamic per ${granularity.kind}, %i bits`, async (bits) => {
        const x = activations();
        const dialect = name.replace(" asym", "") as QuantScheme["dialect"];
        const s = scheme({ format: { kind: "int", bits, symmetric: !name.endsWith("asym") }, granularity, dialect });
        const expected = inRuns(x, length, (part) => REFERENCE[name]!(part, bits));
        expect(await run(s, x, [2, 3, 8])).toEqual(expected.map((v) => v + 0));
        // The same numbers with samples and tokens merged into one axis.
        expect(await run(s, x, [6, 8])).toEqual(expected.map((v) => v + 0));
      });
    }
  }
});

test("a static scale clamps what lies outside: 8 bits at 0.1 hold [-12.8, 12.7]", async () => {
  const x = Float32Array.of(20, -20, 12.74, 0.25, 0.05, -0.15);
  const y = await run(scheme({ timing: "static", granularity: { kind: "tensor" } }), x, [2, 3], 0.1);
  // 0.25 / f32(0.1) rounds to 2.5 in f32: half to even gives 2.
  expect(y).toEqual([12.7, -12.8, 12.7, 0.2, 0, -0.2].map((v) => expect.closeTo(v, 5)));
});

test("a static zero point shifts the range: scale 1, zero -128 holds [0, 255]", async () => {
  const s = scheme({
    format: { kind: "int", bits: 8, symmetric: false },
    timing: "static",
    granularity: { kind: "tensor" },
    dialect: "compressed-tensors",
  });
  expect(await run(s, Float32Array.of(-3, 0, 7, 254.6, 400, 100), [2, 3], 1, -128)).toEqual([0, 0, 7, 255, 255, 100]);
});

describe("small floats are rounded as core/float.ts rounds them", () => {
  const exact = (format: "e4m3" | "e5m2" | "e2m1" | "e3m2" | "e2m3"): QuantScheme =>
    scheme({
      format: { kind: "float", format },
      timing: "static",
      granularity: { kind: "tensor" },
      dialect: "compressed-tensors",
    });
  test.each(["e4m3", "e5m2", "e2m1", "e3m2", "e2m3"] as const)("%s: every code, every tie and their neighbours", async (name) => {
    const format = FLOAT_FORMATS[name];
    const codes = Array.from({ length: 2 ** (1 + format.exponentBits + format.mantissaBits) }, (_, code) => decodeFloat(format, code));
    const finite = codes.filter(Number.isFinite).toSorted((a, b) => a - b);
    const ties = finite.slice(1).map((v, i) => (v + finite[i]!) / 2);
    const near = ties.flatMap((v) => [f(v * (1 + 2 ** -22)), f(v * (1 - 2 ** -22))]);
    const x = Float32Array.from([...finite, ...ties, ...near, 1e9, -1e9, 2 ** -140]);
    const y = await run(exact(name), x, [1, x.length], 1);
    expect(y).toEqual(Array.from(x, (v) => roundToFloat(format, v, true) + 0));
  });

  test("e4m3 per token: absmax lands on 448 and a token of zeros stays zeros", async () => {
    const x = activations();
    const s = scheme({ format: { kind: "float", format: "e4m3" }, dialect: "compressed-tensors" });
    const expected = inRuns(x, 8, (row) => {
      const step = f(Math.max(...row.map(Math.abs)) / E4M3.max) || 2 ** -23;
      return Array.from(row, (v) => f(roundToFloat(E4M3, f(v / step), true) * step));
    });
    expect(await run(s, x, [2, 3, 8])).toEqual(expected.map((v) => v + 0));
    expect([E2M1.max, E5M2.max]).toEqual([6, 57344]);
  });
});

describe("what cannot run is refused by name", () => {
  test.each([
    [scheme({ granularity: { kind: "channel" } }), "per channel"],
    [scheme({ granularity: { kind: "token" }, timing: "static" }), "static scales per token"],
    [scheme({ dialect: "hqq", format: { kind: "int", bits: 8, symmetric: false } }), "hqq"],
    [scheme({ dialect: "gptq" }), "depends on signs"],
    [scheme({ format: { kind: "int", bits: 8, symmetric: false } }), "asymmetric"],
    [scheme({ format: { kind: "bfp", mantissaBits: 8 } }), "int and small float"],
  ])("%#", (s, message) => {
    const graph = new GraphBuilder("probe");
    graph.input("x", "F32", ["tokens", 8]);
    expect(() => quantizeDequantize(graph, "x", s)).toThrow(expect.objectContaining({ code: "unsupported.scheme" }) as Error);
    expect(() => quantizeDequantize(graph, "x", s)).toThrow(message);
  });
});

/** Two equal blocks: y = relu(x a) + (x b) c, weights [4, 4]. */
function twoBlocks(quantized: Model["activations"]): Model {
  const graph = new GraphBuilder("block");
  graph.input("x", "F32", ["batch", "sequence", 4]);
  for (const slot of ["a.weight", "b.weight", "c.weight"]) graph.weight(slot, [4, 4]);
  const a = graph.op("MatMul", ["x", "a.weight"], {}, "a.output");
  const b = graph.op("MatMul", ["x", "b.weight"], {}, "b.output");
  const c = graph.op("MatMul", [b, "c.weight"], {}, "c.output");
  const built = graph.build([graph.op("Add", [graph.op("Relu", [a]), c], {}, "y")]);
  const inputs = { a: "x", b: "x", c: "b.output" };
  const blocks = [0, 1].map((index): Block => {
    const random = createRandom(index + 1);
    const weight = (): Float32Array => Float32Array.from({ length: 16 }, () => random.uniform() - 0.5);
    return {
      name: `layers.${index}`,
      role: "block",
      graph: built,
      weights: new Map(["a", "b", "c"].map((n) => [`${n}.weight`, lazyOf(`layers.${index}.${n}.weight`, tensorOf(weight(), [4, 4]))])),
      reads: { x: "hidden" },
      writes: { y: "hidden" },
      sites: (["a", "b", "c"] as const).map((n) => ({
        name: `layers.${index}.${n}`,
        localName: n,
        kind: "linear",
        node: `MatMul:${n}.output`,
        input: inputs[n],
        output: `${n}.output`,
        weight: `${n}.weight`,
        channelAxis: 1,
        rows: 4,
        cols: 4,
      })),
    };
  });
  return {
    facts: {
      family: "probe",
      className: "Probe",
      vocabularySize: 4,
      maxPositions: 4,
      hiddenSize: 4,
      dtype: "F32",
      tiedHead: false,
      output: "last_hidden_state",
    },
    config: {},
    blocks,
    inputs: [{ name: "hidden", dtype: "F32", shape: ["batch", "sequence", 4] }],
    outputs: ["hidden"],
    tensors: new Map(),
    activations: quantized,
  };
}

const onEverySite = (of: (site: string, block: number) => SiteActivations): Model["activations"] =>
  new Map([0, 1].flatMap((i) => ["a", "b", "c"].map((n): [string, SiteActivations] => [`layers.${i}.${n}`, of(n, i)])));

describe("withActivations", () => {
  test("a value that two sites read is quantized once, and equal blocks share one graph", () => {
    const model = withActivations(twoBlocks(onEverySite(() => ({ input: { scheme: scheme() } }))));
    const [first, second] = model.blocks;
    expect(first!.graph).toBe(second!.graph);
    expect(first!.graph.nodes.filter(({ op }) => op === "Round")).toHaveLength(2);
    expect(model.activations.size).toBe(0);
    expect(withActivations(model)).toBe(model);
  });

  test("static scales of different size are slots of one shared graph", () => {
    const s = scheme({ timing: "static", granularity: { kind: "tensor" } });
    const model = withActivations(twoBlocks(onEverySite((n, i) => ({ input: { scheme: s, scale: (i + 1) * (n === "c" ? 2 : 1) } }))));
    expect(model.blocks[0]!.graph).toBe(model.blocks[1]!.graph);
    expect(model.blocks[0]!.graph.weights.map(({ name }) => name).slice(3)).toEqual(["a.input_scale", "c.input_scale"]);
  });

  test("blocks whose sites differ in scales get the graphs they need", () => {
    const s = scheme({ timing: "static", granularity: { kind: "tensor" } });
    const model = withActivations(twoBlocks(onEverySite((n, i) => ({ input: { scheme: s, scale: i === 1 && n === "b" ? 2 : 1 } }))));
    expect(model.blocks[0]!.graph).not.toBe(model.blocks[1]!.graph);
    expect(model.blocks[1]!.graph.weights.map(({ name }) => name).slice(3)).toEqual(["a.input_scale", "b.input_scale", "c.input_scale"]);
  });

  test("inputs and outputs are quantized where the schemes say so", async () => {
    const model = twoBlocks(
      new Map([
        ["layers.0.b", { output: { scheme: scheme() } }],
        ["layers.0.c", { input: { scheme: scheme({ format: { kind: "int", bits: 4, symmetric: true } }) } }],
      ]),
    );
    const { graph, weights } = withActivations(model).blocks[0]!;
    const x = activations().subarray(0, 8);
    const feeds = { x: { dtype: "F32", shape: [1, 2, 4], data: x } } as Record<string, HostTensor>;
    const w: Record<string, Float32Array> = {};
    for (const [slot, lazy] of weights) {
      w[slot] = toFloat32(await lazy.read());
      feeds[slot] = { dtype: "F32", shape: lazy.shape, data: w[slot] };
    }
    const compiled = await engines.get("onnxruntime")!.compile(graph, { outputs: ["y", "b.output", "b.output.float"] });
    const out = await compiled.run(feeds);
    await compiled.release();
    const matmul = (v: Float32Array, m: Float32Array): Float32Array =>
      Float32Array.from({ length: v.length }, (_, i) =>
        [0, 1, 2, 3].reduce((sum, k) => sum + v[i - (i % 4) + k]! * m[4 * k + (i % 4)]!, 0),
      );
    const float = out["b.output.float"]!.data as Float32Array;
    expect(Array.from(float)).toEqual(Array.from(matmul(x, w["b.weight"]!), (v) => expect.closeTo(v, 5)));
    const b = Float32Array.from(inRuns(float, 4, (row) => REFERENCE["sq-fake"]!(row, 8)));
    expect(Array.from(out["b.output"]!.data as Float32Array, (v) => v + 0)).toEqual(Array.from(b, (v) => v + 0));
    const c = matmul(Float32Array.from(inRuns(b, 4, (row) => REFERENCE["sq-fake"]!(row, 4))), w["c.weight"]!);
    const expected = matmul(x, w["a.weight"]!).map((v, i) => Math.max(0, v) + c[i]!);
    expect(Array.from(out["y"]!.data as Float32Array)).toEqual(Array.from(expected, (v) => expect.closeTo(v, 5)));
  });

  test("a module that is no site, a missing scale and groups that do not divide are refused", () => {
    const s = scheme({ timing: "static", granularity: { kind: "tensor" } });
    const rewrite = (site: string, input: ActivationScheme) => () => withActivations(twoBlocks(new Map([[site, { input }]])));
    expect(rewrite("layers.9.a", { scheme: scheme() })).toThrow("layers.9.a");
    expect(rewrite("layers.0.a", { scheme: s })).toThrow("must be a positive number");
    expect(rewrite("layers.0.a", { scheme: scheme({ granularity: { kind: "group", size: 3 } }) })).toThrow("groups of 3");
  });
});

describe("every fixture architecture runs with all its linears quantized", () => {
  const minis = ["llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3-moe", "gemma2", "gemma3", "phi3", "gpt2", "opt-post-norm", "bert"];
  const prompt = [5, 17, 3, 44, 8, 21, 9, 30, 12, 2, 7, 40, 33, 6, 19, 25, 11, 4, 28, 15];

  test.each(minis)("%s: 16-bit inputs and outputs, router and head included, leave its outputs as they were", async (name) => {
    const model = await openModel(new URL(`../fixtures/models/minis/${name}`, import.meta.url).pathname);
    const fine = scheme({ format: { kind: "int", bits: 16, symmetric: true }, dialect: "compressed-tensors" });
    const activation = { input: { scheme: fine }, output: { scheme: fine } };
    const quantized = { ...model, activations: new Map(sitesOf(model).map((site) => [site.name, activation])) };
    const samples = [prompt, prompt.toReversed(), prompt.slice(3)].map((ids) => tokenSample(model, ids));
    const results = await compareModels(model, quantized, samples, { engine: engines.get("onnxruntime")! });
    expect(results.map(({ output }) => output)).toEqual(model.outputs);
    for (const { sqnr } of results) {
      expect(sqnr).toBeGreaterThan(55);
      expect(sqnr).toBeLessThan(110);
    }
  });

  test("an expert's dynamic per-tensor scale is refused: its tokens come from all samples of a batch", async () => {
    const model = await openModel(new URL("../fixtures/models/minis/mixtral", import.meta.url).pathname);
    const expert = sitesOf(model).find(({ localName }) => localName.includes("experts"))!;
    const input = { scheme: scheme({ granularity: { kind: "tensor" } }) };
    expect(() => withActivations({ ...model, activations: new Map([[expert.name, { input }]]) })).toThrow(/mixed.*token or static tensor/);
  });
});
