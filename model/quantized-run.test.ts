/**
 * Runs of quantized models against what reference stacks computed from the same model: SmoothQuant's fake
 * quantization (goldens/perplexity.json) and compressed-tensors artifacts (compressed-tensors/<name>).
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { codeOf, floatCodeOf, floatScale, intParameters, intRule } from "../core/dialect.ts";
import { decodeBf16, decodeFloat, encodeBf16, FLOAT_FORMATS } from "../core/float.ts";
import { roundHalfEven } from "../core/round.ts";
import type { QuantScheme, SiteActivations } from "../core/scheme.ts";
import { lazyFloat, toFloat32, type Tensor } from "../core/tensor.ts";
import { openFileSource } from "../formats/containers/bytes.ts";
import { openSafetensors } from "../formats/containers/safetensors/read.ts";
import { createEngine } from "./engines/index.ts";
import type { Engine } from "./engines/engine.ts";
import { evaluate, logitsOf } from "./evaluate.ts";
import type { LinearSite, Model } from "./model.ts";
import { openModel } from "./sources/open.ts";
import { loadTokenizer } from "./tokenizer.ts";

const FIXTURES = new URL("../fixtures", import.meta.url).pathname;
const TINY = join(FIXTURES, "models/tiny-llama");

let engine: Engine;
let model: Model;
let ids: number[];
beforeAll(async () => {
  engine = await createEngine("onnxruntime", { threads: 1 });
  model = await openModel(TINY);
  ids = (await loadTokenizer(TINY)).encode(readFileSync(join(FIXTURES, "data/test.txt"), "utf8"));
});
afterAll(() => engine.close());

const parse = (path: string) => JSON.parse(readFileSync(join(FIXTURES, path), "utf8"));

/** `model` with the weights of its layers' linears put through `change`, and activations as `of` says. */
function requantized(
  change: (weight: Float32Array, site: LinearSite) => Float32Array,
  of: (site: LinearSite) => SiteActivations | undefined,
): Model {
  const activations = new Map<string, SiteActivations>();
  const blocks = model.blocks.map((block) => {
    if (block.role !== "block") return block;
    const weights = new Map(block.weights);
    for (const site of block.sites) {
      const lazy = block.weights.get(site.weight)!;
      weights.set(
        site.weight,
        lazyFloat(lazy.name, lazy.shape, async () => change(toFloat32(await lazy.read()), site)),
      );
      const activation = of(site);
      if (activation !== undefined) activations.set(site.name, activation);
    }
    return { ...block, weights };
  });
  return { ...model, blocks, activations };
}

const inRows = (weight: Float32Array, cols: number, quantize: (row: Float32Array) => ArrayLike<number>): Float32Array => {
  const out = new Float32Array(weight.length);
  for (let start = 0; start < weight.length; start += cols) out.set(quantize(weight.subarray(start, start + cols)), start);
  return out;
};

describe("fake quantization as the SmoothQuant repository does it (RTN column, test.txt, window 256)", () => {
  const f = Math.fround;
  /** max(absmax, 1e-5) / (2^(bits-1) - 1), half to even. */
  const sqFake = (bits: number) => (row: Float32Array) => {
    const scale = f(row.reduce((most, w) => Math.max(most, Math.abs(w)), f(1e-5)) / (2 ** (bits - 1) - 1));
    return row.map((w) => roundHalfEven(f(w / scale)) * scale);
  };
  const dynamic = (kind: "token" | "tensor", bits: number): QuantScheme => ({
    format: { kind: "int", bits, symmetric: true },
    granularity: { kind },
    timing: "dynamic",
    scale: "f32",
    dialect: "sq-fake",
  });
  const perplexity = async (m: Model, maxTokens?: number): Promise<number> =>
    (await evaluate(m, ids, { engine, window: 256, ...(maxTokens !== undefined && { maxTokens }) })).perplexity;

  test("w8a8 per channel, per token: 35.6895", async () => {
    const m = requantized(
      (w, { cols }) => inRows(w, cols, sqFake(8)),
      () => ({ input: { scheme: dynamic("token", 8) } }),
    );
    expect((await perplexity(m)) / 35.6895).toBeCloseTo(1, 3);
  });

  test("w8a8 O2, per-tensor scales of each window though several windows run at once: 64.2841", async () => {
    const m = requantized(
      (w) => inRows(w, w.length, sqFake(8)),
      () => ({ input: { scheme: dynamic("tensor", 8) } }),
    );
    expect((await perplexity(m)) / 64.2841).toBeCloseTo(1, 3);
  });

  test("16-bit activations change nothing that a text could show", async () => {
    const m = requantized(
      (w) => w,
      () => ({ input: { scheme: dynamic("token", 16) } }),
    );
    expect((await perplexity(m, 2048)) / (await perplexity(model, 2048))).toBeCloseTo(1, 4);
  });
});

describe("compressed-tensors artifacts run as the official stack runs them", () => {
  /** The scales of the other layers are known by their hashes alone: two bytes each, so all can be tried. */
  const bf16ByHash = new Map<string, number>();
  for (let code = 0; code < 0x7f80; code++) {
    const hash = createHash("sha256").update(Uint8Array.of(code & 255, code >> 8));
    bf16ByHash.set(hash.digest("hex"), decodeBf16(code));
  }

  const int = (bits: number, symmetric: boolean) => (row: Float32Array) => {
    const precision = { arithmetic: "bf16", storage: "BF16" } as const;
    const low = row.reduce((least, w) => Math.min(least, w), Infinity);
    const high = row.reduce((most, w) => Math.max(most, w), -Infinity);
    const { scale, zero } = intParameters("compressed-tensors", bits, symmetric, low, high, precision);
    const rule = intRule("compressed-tensors", bits, symmetric);
    return row.map((w) => (codeOf(rule, w, scale, zero, "bf16") - zero) * scale);
  };
  /** Quotients are bf16, so every cast there is fits a table. */
  const castE4m3 = Float32Array.from({ length: 2 ** 16 }, (_, code) => {
    const x = decodeBf16(code);
    return Number.isFinite(x) ? decodeFloat(FLOAT_FORMATS.e4m3, floatCodeOf(FLOAT_FORMATS.e4m3, x, 1)) : NaN;
  });
  const fp8 = (row: Float32Array) => {
    const absMax = row.reduce((most, w) => Math.max(most, Math.abs(w)), 0);
    const scale = floatScale("e4m3", absMax, { arithmetic: "bf16", storage: "BF16" });
    return row.map((w) => castE4m3[encodeBf16(w / scale)]! * scale);
  };
  const activation = (format: QuantScheme["format"], timing: QuantScheme["timing"]): QuantScheme => ({
    format,
    granularity: { kind: timing === "static" ? "tensor" : "token" },
    timing,
    scale: "bf16",
    dialect: "compressed-tensors",
  });
  const INT8 = { kind: "int", bits: 8, symmetric: true } as const;
  const E4M3 = { kind: "float", format: "e4m3" } as const;
  /** Weights of a run share a scale: a row, the tensor, or a group of 128. */
  const artifacts: readonly {
    readonly name: string;
    readonly quantize: (row: Float32Array) => Float32Array;
    readonly run: (site: LinearSite) => number;
    readonly input?: QuantScheme;
  }[] = [
    { name: "w8a8-dynamic", quantize: int(8, true), run: ({ cols }) => cols, input: activation(INT8, "dynamic") },
    { name: "w8a8-static", quantize: int(8, true), run: ({ rows, cols }) => rows * cols, input: activation(INT8, "static") },
    { name: "fp8-dynamic", quantize: fp8, run: ({ cols }) => cols, input: activation(E4M3, "dynamic") },
    { name: "fp8-static", quantize: fp8, run: ({ rows, cols }) => rows * cols, input: activation(E4M3, "static") },
    { name: "w4a16", quantize: int(4, true), run: () => 128 },
    { name: "w4a16-asym", quantize: int(4, false), run: () => 128 },
  ];

  test.each(artifacts)("$name: cosine of logits at least 0.9999", async ({ name, quantize, run, input }) => {
    const hashes = parse(`compressed-tensors/${name}/tensors.json`) as Record<string, { sha256: string }>;
    const m = requantized(
      (w, site) => inRows(w, run(site), quantize),
      (site) => {
        if (input === undefined) return undefined;
        if (input.timing === "dynamic") return { input: { scheme: input } };
        return { input: { scheme: input, scale: bf16ByHash.get(hashes[`${site.name}.input_scale`]!.sha256)! } };
      },
    );
    const prompt = parse("goldens/float.json").genesis.ids as number[];
    const logits = (await logitsOf(m, [prompt], { engine })).get("logits.0")!;
    const expected = await readTensor(`compressed-tensors/${name}/logits.safetensors`, "genesis.last_logits");
    expect(logits.shape).toEqual([prompt.length, 2048]);
    expect(cosine(toFloat32(logits).subarray(-4 * 2048), toFloat32(expected))).toBeGreaterThan(0.9999);
  });
});

async function readTensor(path: string, name: string): Promise<Tensor> {
  const source = await openFileSource(join(FIXTURES, path));
  try {
    return await (await openSafetensors(source)).tensors.get(name)!.read();
  } finally {
    await source.close();
  }
}

function cosine(a: Float32Array, b: Float32Array): number {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i]! * b[i]!;
    aa += a[i]! ** 2;
    bb += b[i]! ** 2;
  }
  return dot / Math.sqrt(aa * bb);
}
