import { afterAll, beforeAll, expect, test } from "vitest";
import { parseBlockFormat } from "../core/blocks/format.ts";
import { fakeQuantizeBlocks, nvfp4GlobalScale } from "../core/blocks/quantize.ts";
import { createRandom } from "../core/random.ts";
import { SCALE_RULES, type ScaleRule } from "../core/scheme.ts";
import { quantizeDequantizeBlocks } from "./block-nodes.ts";
import type { Engine } from "./engines/engine.ts";
import { createEngine } from "./engines/index.ts";
import { GraphBuilder } from "./graph/builder.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine("onnxruntime", { threads: 1 });
});
afterAll(async () => engine.close());

/** Values of many magnitudes, with zeros, ties and exact powers of two among them. */
function hardValues(count: number): Float32Array {
  const random = createRandom(11);
  return Float32Array.from({ length: count }, (_, i) => {
    if (i % 37 === 0) return 0;
    if (i % 11 === 0) return 2 ** (random.below(12) - 6) * (i % 2 === 0 ? 1 : -1);
    if (i % 7 === 0) return (random.below(64) - 32) / 8;
    return random.normal() * 2 ** (random.below(16) - 8);
  });
}

async function inEngine(
  x: Float32Array,
  cols: number,
  name: string,
  rule: ScaleRule | undefined,
  globalScale?: number,
): Promise<Float32Array> {
  const format = parseBlockFormat(name)!;
  const graph = new GraphBuilder("blocks");
  const value = graph.input("x", "F32", ["tokens", cols]);
  const divisor = globalScale === undefined ? undefined : graph.input("g", "F32", [1]);
  const place = { channels: cols, rule, output: "y", ...(divisor !== undefined && { globalScale: divisor }) };
  quantizeDequantizeBlocks(graph, value, format, place);
  const form = await engine.compile(graph.build(["y"]));
  const { y } = await form.run({
    x: { dtype: "F32", shape: [x.length / cols, cols], data: x },
    ...(globalScale !== undefined && { g: { dtype: "F32", shape: [1], data: Float32Array.of(globalScale) } }),
  });
  await form.release();
  return y!.data as Float32Array;
}

const FORMATS = ["bfp12", "bfp16", "bfp10", "bfp24", "mxint8", "mxfp8", "mxfp8-e5m2", "mxfp6", "mxfp6-e3m2", "mxfp4"];

test.each(FORMATS.flatMap((name) => SCALE_RULES.map((rule) => [name, rule] as const)))(
  "%s with scale=%s: nodes of the graph give what the definition gives, bit for bit",
  async (name, rule) => {
    const cols = 80;
    const x = hardValues(24 * cols);
    const wanted = x.slice();
    fakeQuantizeBlocks(wanted, cols, parseBlockFormat(name)!, { rule });
    const found = await inEngine(x, cols, name, rule);
    for (let i = 0; i < x.length; i++)
      if (found[i] !== wanted[i]) throw new Error(`value ${i}: ${x[i]} gave ${found[i]}, not ${wanted[i]}`);
    expect(found.length).toBe(wanted.length);
  },
);

test("nvfp4 with a calibrated divisor, bit for bit, values beyond the calibrated range included", async () => {
  const cols = 72;
  const x = hardValues(24 * cols);
  const globalScale = nvfp4GlobalScale(100);
  const wanted = x.slice();
  fakeQuantizeBlocks(wanted, cols, parseBlockFormat("nvfp4")!, { globalScale });
  const found = await inEngine(x, cols, "nvfp4", undefined, globalScale);
  expect([...found].map((v) => v + 0)).toEqual([...wanted].map((v) => v + 0));
});
