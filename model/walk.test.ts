import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { InputError, InterruptedError } from "../core/errors.ts";
import { lazyOf, tensorOf } from "../core/tensor.ts";
import type { CompileOptions, Engine, HostTensor, Values } from "./engines/engine.ts";
import { GraphBuilder } from "./graph/builder.ts";
import type { Graph } from "./graph/graph.ts";
import type { Block, Model } from "./model.ts";
import { walk } from "./walk.ts";
import type { Sample, WalkProgress } from "./walk-types.ts";

/** Add and Mul with a scalar weight: enough to follow values through blocks by hand. */
class ScalarEngine implements Engine {
  readonly name = "scalar";
  readonly description = "test engine";
  readonly operators: ReadonlySet<string> = new Set(["Add", "Mul"]);
  compiled = 0;
  released = 0;
  runs: string[] = [];

  async compile(graph: Graph, { outputs = graph.outputs }: CompileOptions = {}) {
    this.compiled++;
    return {
      outputs,
      run: async (feeds: Values): Promise<Values> => {
        this.runs.push(`${graph.name}→${outputs.join()}`);
        const values: Record<string, HostTensor> = { ...feeds };
        for (const node of graph.nodes) {
          const [x, w] = node.inputs.map((name) => values[name]!);
          const scalar = (w!.data as Float32Array)[0]!;
          const data = Float32Array.from(x!.data as Float32Array, (v) => (node.op === "Add" ? v + scalar : v * scalar));
          values[node.outputs[0]!] = { dtype: "F32", shape: x!.shape, data };
        }
        return Object.fromEntries(outputs.map((name) => [name, values[name]!]));
      },
      release: async () => void this.released++,
    };
  }

  async close(): Promise<void> {}
}

function graphOf(name: string, op: "Add" | "Mul"): Graph {
  const builder = new GraphBuilder(name);
  builder.input("hidden", "F32", ["batch", "sequence"]);
  builder.weight("factor", [1]);
  builder.op(op, ["hidden", "factor"], {}, "scaled");
  builder.op(op, ["scaled", "factor"], {}, "result");
  return builder.build(["result"]);
}

const addTwice = graphOf("add", "Add");
const multiplyTwice = graphOf("multiply", "Mul");

function blockOf(name: string, graph: Graph, factor: number, from: string): Block {
  const weights = new Map([["factor", lazyOf(`${name}.factor`, tensorOf(Float32Array.of(factor), [1]))]]);
  return { name, role: "block", graph, weights, reads: { hidden: from }, writes: { result: "hidden" }, sites: [] };
}

/** x → (x + 2) → × 9 → × 4 */
const model: Model = {
  facts: {
    family: "test",
    className: "Test",
    vocabularySize: 0,
    maxPositions: 0,
    hiddenSize: 1,
    dtype: "F32",
    tiedHead: false,
    output: "last_hidden_state",
  },
  config: {},
  blocks: [blockOf("b0", addTwice, 1, "pixels"), blockOf("b1", multiplyTwice, 3, "hidden"), blockOf("b2", multiplyTwice, 2, "hidden")],
  inputs: [{ name: "pixels", dtype: "F32", shape: ["batch", "sequence"] }],
  outputs: ["hidden"],
  tensors: new Map(),
  activations: new Map(),
};

const sampleOf = (...values: number[]): Sample => ({
  inputs: { pixels: { dtype: "F32", shape: [1, values.length], data: Float32Array.from(values) } },
});

async function results(samples: readonly Sample[], options: Partial<Parameters<typeof walk>[2]> = {}): Promise<number[][]> {
  const rows: number[][] = [];
  await walk(model, samples, {
    engine: new ScalarEngine(),
    visitor: {
      observe: (context, _batch, values) => {
        if (context.index !== 2) return;
        const { data, shape } = values["result"]!;
        for (let i = 0; i < shape[0]!; i++) rows.push(Array.from((data as Float32Array).slice(i * shape[1]!, (i + 1) * shape[1]!)));
      },
    },
    ...options,
  });
  return rows;
}

let scratch = "";
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), "walk-"));
});
afterEach(() => rmSync(scratch, { recursive: true }));

describe("walk", () => {
  const samples = [sampleOf(1, 2), sampleOf(3, 4), sampleOf(5), sampleOf(6, 7), sampleOf(8, 9)];
  const expected = [[108, 144], [180, 216], [252], [288, 324], [360, 396]];

  test.each([1, 2, 4, 1000])("gives every sample the composition of all blocks, in order, with %i tokens a batch", async (batchTokens) => {
    expect(await results(samples, { batchTokens })).toEqual(expected);
  });

  test("gives the same values from a scratch file, and leaves nothing behind", async () => {
    expect(await results(samples, { batchTokens: 4, maxMemory: 9, scratchDirectory: scratch })).toEqual(expected);
    expect(readdirSync(scratch)).toEqual([]);
  });

  test("groups consecutive samples of equal shapes and never splits one", async () => {
    const seen: (readonly number[])[] = [];
    await walk(model, samples, {
      engine: new ScalarEngine(),
      batchTokens: 4,
      visitor: { observe: (context, batch) => void (context.index === 0 && seen.push(context.batchSamples(batch))) },
    });
    expect(seen).toEqual([[0, 1], [2], [3, 4]]);
  });

  test("compiles one form for equal blocks and releases all", async () => {
    const engine = new ScalarEngine();
    await results(samples, { engine });
    expect([engine.compiled, engine.released]).toEqual([2, 2]);
  });

  test("taps any value where the visitor asks", async () => {
    const tapped: number[][] = [];
    await walk(model, [sampleOf(1)], {
      engine: new ScalarEngine(),
      visitor: {
        instrument: () => ({ outputs: ["scaled"] }),
        observe: (_context, _batch, values) => void tapped.push(Object.values(values).flatMap((v) => [...(v.data as Float32Array)])),
      },
    });
    expect(tapped).toEqual([[2], [9], [54]]);
  });

  test.each([2 ** 30, 5])("replays what the visitor decides, so that later blocks see it (memory %i)", async (maxMemory) => {
    const seen: number[] = [];
    await walk(model, [sampleOf(1), sampleOf(2)], {
      engine: new ScalarEngine(),
      batchTokens: 1,
      maxMemory,
      scratchDirectory: scratch,
      visitor: {
        observe: (context, _batch, values) => {
          if (context.index === 2) seen.push(...(values["result"]!.data as Float32Array));
        },
        decide: async (context) => {
          if (context.index !== 1) return undefined;
          // The float block can still be run on its recorded inputs here.
          expect((await context.run(1))["result"]!.data).toEqual(Float32Array.of(36));
          return { weights: new Map([["factor", { dtype: "F32", shape: [1], data: Float32Array.of(10) }]]) };
        },
      },
    });
    expect(seen).toEqual([1200, 1600]);
    expect(readdirSync(scratch)).toEqual([]);
  });

  test("runs nothing behind the last block that is wanted", async () => {
    const engine = new ScalarEngine();
    await walk(model, [sampleOf(1)], { engine, to: 1, visitor: { instrument: () => ({ outputs: ["scaled"] }) } });
    expect(engine.runs).toEqual(["add→scaled,result", "multiply→scaled"]);
  });

  test("reports tokens up to the announced total", async () => {
    const events: WalkProgress[] = [];
    await results(samples, { batchTokens: 4, onProgress: (event) => events.push(event) });
    expect(events.map((event) => event.tokens)).toEqual([4, 5, 9, 13, 14, 18, 22, 23, 27]);
    expect(events.at(-1)).toMatchObject({ block: 2, blocks: 3, blockName: "b2", batch: 3, batches: 3, totalTokens: 27 });
  });

  test("stops between runs when the signal is aborted, and removes its scratch file", async () => {
    const controller = new AbortController();
    const run = results(samples, {
      batchTokens: 1,
      maxMemory: 1,
      scratchDirectory: scratch,
      signal: controller.signal,
      onProgress: ({ block, batch }) => {
        if (block === 1 && batch === 2) controller.abort();
      },
    });
    await expect(run).rejects.toThrow(InterruptedError);
    expect(readdirSync(scratch)).toEqual([]);
  });

  test("refuses samples that do not fit, naming the sample, both shapes and dtypes", async () => {
    const wrong = { inputs: { pixels: { dtype: "I32", shape: [1, 1], data: Int32Array.of(1) } } } satisfies Sample;
    await expect(results([sampleOf(1), wrong])).rejects.toThrow('sample 1: "pixels" is I32, the model takes F32');
    await expect(results([{ inputs: {} }])).rejects.toThrow('sample 0 lacks "pixels"');
    await expect(results([])).rejects.toMatchObject({ code: "input.no-data" });
    const flat: Sample = { inputs: { pixels: { dtype: "F32", shape: [2], data: Float32Array.of(1, 2) } } };
    await expect(results([flat])).rejects.toThrow(InputError);
  });
});
