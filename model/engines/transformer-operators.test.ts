/**
 * What the transformer operators of opset 23 compute in ONNX Runtime, against plain loops over ONNX's text:
 * the architecture builders rest on these claims.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createRandom } from "../../core/random.ts";
import { GraphBuilder, type AttributeInput } from "../graph/builder.ts";
import type { Engine, HostTensor, Values } from "./engine.ts";
import { createEngine } from "./index.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine("onnxruntime", { threads: 1 });
});
afterAll(async () => engine.close());

interface FloatTensor {
  readonly dtype: "F32";
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

const random = createRandom(11);
const count = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
const floats = (...shape: number[]): FloatTensor => ({
  dtype: "F32",
  shape,
  data: Float32Array.from({ length: count(shape) }, () => random.normal()),
});

async function run(op: string, inputs: readonly HostTensor[], attributes: Readonly<Record<string, AttributeInput>>): Promise<HostTensor> {
  const builder = new GraphBuilder(op);
  const names = inputs.map(({ dtype, shape }, i) => builder.input(`x${i}`, dtype, shape));
  const compiled = await engine.compile(builder.build([builder.op(op, names, attributes, "y")]));
  const feeds: Values = Object.fromEntries(inputs.map((tensor, i) => [`x${i}`, tensor]));
  const result = (await compiled.run(feeds))["y"]!;
  await compiled.release();
  return result;
}

function farthest(actual: HostTensor, expected: Float32Array): number {
  expect(actual.data.length).toBe(expected.length);
  return expected.reduce((worst, value, i) => {
    const difference = Math.abs(Number(actual.data[i]) - value);
    return Math.max(worst, Number.isNaN(difference) ? Infinity : difference);
  }, 0);
}

/** [B, H, S, d] → [B, S, H·d]. */
function joined({ shape, data }: FloatTensor): FloatTensor {
  const [batch, heads, length, size] = shape as [number, number, number, number];
  const out = new Float32Array(data.length);
  for (let row = 0; row < batch * heads * length; row++) {
    const [b, h, s] = [Math.floor(row / (heads * length)), Math.floor(row / length) % heads, row % length];
    out.set(data.subarray(row * size, (row + 1) * size), ((b * length + s) * heads + h) * size);
  }
  return { dtype: "F32", shape: [batch, length, heads * size], data: out };
}

interface Rule {
  readonly scale?: number;
  readonly cap?: number;
  /** Added to the capped score of query i and key j. */
  readonly bias: (i: number, j: number) => number;
}

/** softmax(cap · tanh(scale · q k / cap) + bias) v in f64; query heads share key heads in equal runs. */
function attend(q: FloatTensor, k: FloatTensor, v: FloatTensor, { scale, cap, bias }: Rule): Float32Array {
  const [batch, heads, length, size] = q.shape as [number, number, number, number];
  const [groups, total] = [k.shape[1]!, k.shape[2]!];
  const out = new Float32Array(q.data.length);
  for (let row = 0; row < batch * heads * length; row++) {
    const [b, h, i] = [Math.floor(row / (heads * length)), Math.floor(row / length) % heads, row % length];
    const first = (b * groups + Math.floor(h / (heads / groups))) * total;
    const scores = Array.from({ length: total }, (_, j) => {
      let dot = 0;
      for (let c = 0; c < size; c++) dot += q.data[row * size + c]! * k.data[(first + j) * size + c]!;
      dot *= scale ?? 1 / Math.sqrt(size);
      return (cap === undefined ? dot : cap * Math.tanh(dot / cap)) + bias(i, j);
    });
    const highest = Math.max(...scores);
    const exponentials = scores.map((score) => Math.exp(score - highest));
    const sum = exponentials.reduce((a, x) => a + x, 0);
    for (let c = 0; c < size; c++)
      out[row * size + c] = exponentials.reduce((a, x, j) => a + (x / sum) * v.data[(first + j) * size + c]!, 0);
  }
  return out;
}

describe.each([
  { heads: 4, groups: 4, length: 7 },
  { heads: 6, groups: 2, length: 1 },
  { heads: 6, groups: 2, length: 130 },
])("Attention with $heads query and $groups key heads over $length tokens", ({ heads, groups, length }) => {
  const [q, k, v] = [floats(2, heads, length, 8), floats(2, groups, length, 8), floats(2, groups, length, 8)];
  const window = (i: number, j: number): boolean => j <= i && i - j < 5;
  const cells = Array.from({ length: length * length }, (_, n) => window(Math.floor(n / length), n % length));
  const allowed: HostTensor = { dtype: "BOOL", shape: [length, length], data: Uint8Array.from(cells, Number) };
  const additive: FloatTensor = { dtype: "F32", shape: [1, 1, length, length], data: Float32Array.from(cells, (x) => (x ? 0 : -Infinity)) };
  const causal = (i: number, j: number): number => (j <= i ? 0 : -Infinity);
  const windowed = (i: number, j: number): number => (window(i, j) ? 0 : -Infinity);
  const cases: [string, Record<string, AttributeInput>, HostTensor[], Rule][] = [
    ["is_causal", { is_causal: 1 }, [], { bias: causal }],
    ["a bool mask", {}, [allowed], { bias: windowed }],
    ["an additive mask", {}, [additive], { bias: windowed }],
    ["a mask and is_causal", { is_causal: 1 }, [additive], { bias: windowed }],
    ["a scale", { is_causal: 1, scale: { float: 0.5 } }, [], { bias: causal, scale: 0.5 }],
    ["a soft cap before the additive mask", { softcap: { float: 0.75 } }, [additive], { bias: windowed, cap: 0.75 }],
    ["a soft cap before the bool mask", { softcap: { float: 0.75 } }, [allowed], { bias: windowed, cap: 0.75 }],
    ["a soft cap before is_causal", { is_causal: 1, softcap: { float: 0.75 } }, [], { bias: causal, cap: 0.75 }],
  ];
  test.each(cases)("follows %s", async (_, attributes, mask, rule) => {
    const expected = attend(q, k, v, rule);
    expect(farthest(await run("Attention", [q, k, v, ...mask], attributes), expected)).toBeLessThan(4e-6);
    const rank3 = await run("Attention", [joined(q), joined(k), joined(v), ...mask], {
      ...attributes,
      q_num_heads: heads,
      kv_num_heads: groups,
    });
    expect(farthest(rank3, joined({ ...q, data: expected }).data)).toBeLessThan(4e-6);
  });
});

describe("RotaryEmbedding turns pairs (x, y) by the angle of their position", () => {
  const positions: HostTensor = { dtype: "I64", shape: [2, 3], data: BigInt64Array.of(0n, 4n, 2n, 1n, 1n, 3n) };
  test.each([
    { what: "pairs half a head apart", rotated: 8, apart: 4 },
    { what: "only the first part of the head", rotated: 4, apart: 2 },
  ])("$what", async ({ rotated, apart }) => {
    const x = floats(2, 2, 3, 8);
    const [cos, sin] = [floats(5, rotated / 2), floats(5, rotated / 2)];
    const expected = x.data.slice();
    for (let row = 0; row < 12; row++) {
      const place = Number(positions.data[Math.floor(row / 6) * 3 + (row % 3)]);
      for (let i = 0; i < apart; i++) {
        const [c, s] = [cos.data[place * apart + i]!, sin.data[place * apart + i]!];
        const [a, b] = [x.data[row * 8 + i]!, x.data[row * 8 + i + apart]!];
        expected[row * 8 + i] = a * c - b * s;
        expected[row * 8 + i + apart] = a * s + b * c;
      }
    }
    const attributes = rotated === 8 ? {} : { rotary_embedding_dim: rotated };
    expect(farthest(await run("RotaryEmbedding", [x, cos, sin, positions], attributes), expected)).toBeLessThan(1e-6);
    const rank3 = await run("RotaryEmbedding", [joined(x), cos, sin, positions], { ...attributes, num_heads: 2 });
    expect(farthest(rank3, joined({ ...x, data: expected }).data)).toBeLessThan(1e-6);
  });
});

test("RMSNormalization divides by the root of the mean square plus epsilon", async () => {
  const [x, scale] = [floats(3, 2, 6), floats(6)];
  const expected = x.data.map((value, i) => {
    const row = x.data.subarray(i - (i % 6), i - (i % 6) + 6);
    return (value / Math.sqrt(row.reduce((sum, y) => sum + y * y, 0) / 6 + 0.01)) * scale.data[i % 6]!;
  });
  expect(farthest(await run("RMSNormalization", [x, scale], { epsilon: { float: 0.01 } }), expected)).toBeLessThan(1e-6);
});
