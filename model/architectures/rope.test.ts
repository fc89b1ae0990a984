import { afterAll, beforeAll, expect, test } from "vitest";
import { toFloat32 } from "../../core/tensor.ts";
import type { Engine, HostTensor } from "../engines/engine.ts";
import { createEngine } from "../engines/index.ts";
import { BlockWriter } from "./block-writer.ts";
import { ConfigReader } from "./config.ts";
import { inverseFrequencies, readRope, ropeTables } from "./rope.ts";
import { TensorTable } from "./tensors.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine("onnxruntime", { threads: 1 });
});
afterAll(async () => engine.close());

/** Heads of 12 channels; tables at the last of position + 1 places, by `LlamaRotaryEmbedding` of transformers 5.17, torch 2.14. */
const CASES = [
  {
    name: "linear",
    settings: { rope_type: "linear", factor: 4 },
    maxPositions: 64,
    position: 20,
    cos: [0.2836622, 0.4737808, 0.9731902, 0.9987503, 0.999942, 0.9999973],
    sin: [-0.9589243, 0.8806428, 0.2300017, 0.04997917, 0.01077196, 0.002320793],
  },
  {
    name: "llama3",
    settings: {
      rope_type: "llama3",
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 32,
      rope_theta: 500000,
    },
    maxPositions: 256,
    position: 20,
    cos: [0.4080821, 0.9608852, 0.999504, 0.9999937, 0.9999999, 1.0],
    sin: [0.9129453, 0.2769471, 0.03149281, 0.003535526, 0.0003968502, 4.454495e-5],
  },
  {
    name: "yarn",
    settings: { rope_type: "yarn", factor: 4, original_max_position_embeddings: 16 },
    maxPositions: 64,
    position: 20,
    cos: [0.4646543, 0.5394608, 1.108103, 1.137206, 1.138563, 1.138626],
    sin: [1.039506, 1.002726, 0.2618867, 0.05690775, 0.01226527, 0.002642523],
  },
  {
    name: "yarn with every option",
    settings: {
      rope_type: "yarn",
      factor: 8,
      original_max_position_embeddings: 24,
      rope_theta: 5000,
      beta_fast: 4,
      beta_slow: 0.5,
      mscale: 1.2,
      mscale_all_dim: 0.7,
      truncate: false,
    },
    maxPositions: 192,
    position: 20,
    cos: [0.4451199, -0.3340561, 1.079124, 1.090079, 1.090721, 1.090758],
    sin: [0.995805, 1.038348, 0.1589027, 0.03855619, 0.009325759, 0.002255248],
  },
  {
    name: "dynamic within the trained length",
    settings: { rope_type: "dynamic", factor: 4 },
    maxPositions: 32,
    position: 20,
    cos: [0.4080821, -0.3926581, 0.5991817, 0.9800666, 0.9990718, 0.9999569],
    sin: [0.9129453, -0.9196845, 0.800613, 0.1986693, 0.04307535, 0.009283046],
  },
  {
    name: "dynamic beyond the trained length",
    settings: { rope_type: "dynamic", factor: 4 },
    maxPositions: 32,
    position: 60,
    cos: [-0.952413, -0.9958266, 0.06146579, 0.9714857, 0.9992794, 0.9999819],
    sin: [-0.3048106, -0.09126537, 0.9981092, 0.2370984, 0.0379569, 0.006021485],
  },
  {
    name: "longrope short",
    settings: {
      rope_type: "longrope",
      original_max_position_embeddings: 32,
      short_factor: [1, 1.02, 1.05, 1.1, 1.3, 1.6],
      long_factor: [1, 1.3, 2.1, 3.7, 6, 8],
    },
    maxPositions: 256,
    position: 20,
    cos: [0.5161875, -0.5930744, 0.8019238, 1.244061, 1.264216, 1.26489],
    sin: [1.154795, -1.117257, 0.9782219, 0.2287188, 0.04191798, 0.007338956],
  },
  {
    name: "longrope long",
    settings: {
      rope_type: "longrope",
      original_max_position_embeddings: 32,
      short_factor: [1, 1.02, 1.05, 1.1, 1.3, 1.6],
      long_factor: [1, 1.3, 2.1, 3.7, 6, 8],
    },
    maxPositions: 256,
    position: 60,
    cos: [-1.204718, -1.098489, 0.306356, 1.248316, 1.264617, 1.264903],
    sin: [-0.3855583, -0.6271546, 1.227251, 0.2042229, 0.02724957, 0.00440339],
  },
];

/** Tables at the last position of a sequence. */
async function tablesAt(settings: Record<string, unknown>, maxPositions: number, position: number): Promise<readonly Float32Array[]> {
  const config = new ConfigReader({ max_position_embeddings: maxPositions });
  const rope = readRope(config, new ConfigReader(settings), { headSize: 12, maxPositions, theta: 10_000 });
  const writer = new BlockWriter("rope", "rope", "", new TensorTable(new Map()));
  const positions = writer.graph.input("position_ids", "I64", ["batch", "sequence"]);
  const { cos, sin } = ropeTables(writer, positions, rope);
  const block = writer.block("prologue", {}, { [cos]: cos, [sin]: sin });
  const places = BigInt64Array.from({ length: position + 1 }, (_, i) => BigInt(i));
  const feeds: Record<string, HostTensor> = { position_ids: { dtype: "I64", shape: [1, position + 1], data: places } };
  for (const [slot, tensor] of block.weights) feeds[slot] = { dtype: "F32", shape: tensor.shape, data: toFloat32(await tensor.read()) };
  const compiled = await engine.compile(block.graph);
  const values = await compiled.run(feeds);
  await compiled.release();
  return [cos, sin].map((name) => (values[name]!.data as Float32Array).slice(-6));
}

test.each(CASES)("$name: cosine and sine equal those of transformers", async ({ settings, maxPositions, position, cos, sin }) => {
  const [cosines, sines] = await tablesAt(settings, maxPositions, position);
  cos.forEach((value, i) => expect(cosines![i]).toBeCloseTo(value, 5));
  sin.forEach((value, i) => expect(sines![i]).toBeCloseTo(value, 5));
});

test("frequencies are rounded to f32 at each step, as torch does: the last bit counts at late positions", () => {
  // torch.float32: 1.0 / (10000.0 ** (torch.arange(0, 12, 2) / 12))
  const expected = [1, 0.215443447, 0.046415884, 0.00999999978, 0.00215443433, 0.000464158948];
  expect([...inverseFrequencies(10_000, 12, { type: "default" })]).toEqual(expected.map(Math.fround));
});

test.each([
  [{ rope_type: "mrope" }, "unsupported.architecture"],
  [{ rope_type: "linear" }, "format.config"],
  [{ rope_type: "linear", factor: "4" }, "format.config"],
  [{ rope_type: "llama3", factor: 8, low_freq_factor: 4, high_freq_factor: 1 }, "format.config"],
  [{ rope_type: "longrope", short_factor: [1], long_factor: [1, 1, 1, 1, 1, 1] }, "format.config"],
  [{ rope_type: "yarn", factor: 4, rope_theta: 1 }, "format.config"],
])("%j is refused with %s", (settings, code) => {
  const read = (): unknown => readRope(new ConfigReader({}), new ConfigReader(settings), { headSize: 12, maxPositions: 64, theta: 10_000 });
  expect(read).toThrow(expect.objectContaining({ code }));
});
