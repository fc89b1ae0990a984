import { afterAll, beforeAll, expect, test } from "vitest";
import { createRandom } from "../core/random.ts";
import { createEngine } from "./engines/index.ts";
import type { Engine } from "./engines/engine.ts";
import { GraphBuilder } from "./graph/builder.ts";
import { besides, floatOutput, HeadRunner } from "./head.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await createEngine("onnxruntime", { threads: 1 });
});
afterAll(() => engine.close());

const CHANNELS = 5;
const WIDTH = 11;

/** logits = hidden · weight, as [batch, sequence, width]. */
function head(): ReturnType<GraphBuilder["build"]> {
  const graph = new GraphBuilder("head");
  graph.input("hidden", "F32", ["batch", "sequence", CHANNELS]);
  graph.weight("weight", [CHANNELS, WIDTH]);
  return graph.build([graph.op("MatMul", ["hidden", "weight"], {}, "logits")]);
}

function numbers(seed: number, count: number): Float32Array {
  const random = createRandom(seed);
  return Float32Array.from({ length: count }, () => random.uniform() - 0.5);
}

const weight = (seed: number) => ({ dtype: "F32", shape: [CHANNELS, WIDTH], data: numbers(seed, CHANNELS * WIDTH) }) as const;
const hidden = (seed: number) => ({ dtype: "F32", shape: [3, 7, CHANNELS], data: numbers(seed, 21 * CHANNELS) }) as const;

/** The product, in f64. */
function product(x: Float32Array, w: Float32Array): number[] {
  return Array.from({ length: (x.length / CHANNELS) * WIDTH }, (_, i) => {
    const row = Math.floor(i / WIDTH);
    let sum = 0;
    for (let k = 0; k < CHANNELS; k++) sum += x[row * CHANNELS + k]! * w[k * WIDTH + (i % WIDTH)]!;
    return sum;
  });
}

test.each([[1], [4], [21], [100], [undefined]])(
  "a head run %s tokens at a time gives every token's logits once, in order",
  async (tokens) => {
    const runner = await HeadRunner.create(engine, head(), { weight: weight(1) }, tokens);
    const found: number[] = [];
    const firsts: number[] = [];
    for await (const run of runner.run({ hidden: hidden(2) })) {
      firsts.push(run.first);
      found.push(...floatOutput(run, "logits"));
    }
    await runner.release();
    expect(firsts).toEqual(Array.from({ length: Math.ceil(21 / (tokens ?? 21)) }, (_, i) => i * (tokens ?? 21)));
    expect(found).toEqual(product(hidden(2).data, weight(1).data).map((x) => expect.closeTo(x, 6)));
  },
);

test("two heads beside each other keep their own inputs and weights", async () => {
  const both = besides(head(), head(), "reference.");
  expect(both.outputs).toEqual(["logits", "reference.logits"]);
  const runner = await HeadRunner.create(engine, both, { weight: weight(1), "reference.weight": weight(3) }, 8);
  const [mine, theirs]: [number[], number[]] = [[], []];
  for await (const run of runner.run({ hidden: hidden(2), "reference.hidden": hidden(4) })) {
    mine.push(...floatOutput(run, "logits"));
    theirs.push(...floatOutput(run, "reference.logits"));
  }
  await runner.release();
  expect(mine).toEqual(product(hidden(2).data, weight(1).data).map((x) => expect.closeTo(x, 6)));
  expect(theirs).toEqual(product(hidden(4).data, weight(3).data).map((x) => expect.closeTo(x, 6)));
});
