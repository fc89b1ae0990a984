/**
 * Engine `tfjs`: interprets the same graphs with TensorFlow.js operations, on a GPU through tfjs-node-gpu, on the CPU
 * through tfjs-node, or anywhere with the WASM backend that this package carries.
 *
 * Values are float32, int32 and bool; int64 is checked to fit 32 bits. tf's erf is a polynomial, off by at most 1.5e-7.
 * @module
 */
import { InputError, UnsupportedError } from "../../core/errors.ts";
import type { Graph } from "../graph/graph.ts";
import { assertValues } from "../graph/to-onnx.ts";
import type { CompiledGraph, CompileOptions, Engine, Values } from "./engine.ts";
import { checkFeeds } from "./feeds.ts";
import { assertOperators, assertOwnGraph } from "./operators.ts";
import type { Backend, Value } from "./tfjs/call.ts";
import { loadTfjs } from "./tfjs/load.ts";
import { TFJS_OPERATORS } from "./tfjs/operators.ts";
import { planProgram, runProgram, type Program } from "./tfjs/program.ts";
import { fromConstant, fromHost, toHost } from "./tfjs/values.ts";

/** Opsets whose semantics the operators follow: axes as inputs from 18 on. */
const OPSETS = { lowest: 18, highest: 25 } as const;

/** @throws {UnsupportedError} `unsupported.backend` when no TensorFlow.js loads. */
export async function createTfjsEngine(): Promise<Engine> {
  const backend = await loadTfjs();
  const operators = new Set(TFJS_OPERATORS.keys());
  const live = new Set<CompiledProgram>();
  return {
    name: "tfjs",
    description: backend.description,
    operators,
    async compile(graph: Graph, { outputs = graph.outputs }: CompileOptions = {}): Promise<CompiledGraph> {
      assertOwnGraph("tfjs", graph);
      assertOperators("tfjs", operators, graph);
      assertOpset(graph);
      assertValues(graph, outputs);
      const compiled = new CompiledProgram(backend, graph, planProgram(graph, [...new Set(outputs)]), live);
      live.add(compiled);
      return compiled;
    },
    async close(): Promise<void> {
      for (const compiled of live) await compiled.release();
    },
  };
}

function assertOpset(graph: Graph): void {
  const opset = graph.opsets[""] ?? 1;
  if (opset >= OPSETS.lowest && opset <= OPSETS.highest) return;
  throw new UnsupportedError(
    "unsupported.operator",
    `engine tfjs follows ONNX opsets ${OPSETS.lowest} to ${OPSETS.highest}, graph ${graph.name} is of opset ${opset}; use the onnxruntime engine`,
    { engine: "tfjs", graph: graph.name, opset },
  );
}

class CompiledProgram implements CompiledGraph {
  readonly outputs: readonly string[];
  readonly #backend: Backend;
  readonly #graph: Graph;
  readonly #program: Program;
  readonly #live: Set<CompiledProgram>;
  readonly #constants: ReadonlyMap<string, Value>;
  #released = false;

  constructor(backend: Backend, graph: Graph, program: Program, live: Set<CompiledProgram>) {
    this.outputs = program.outputs;
    this.#backend = backend;
    this.#graph = graph;
    this.#program = program;
    this.#live = live;
    this.#constants = new Map([...graph.constants].map(([name, tensor]) => [name, fromConstant(backend.tf, name, tensor)]));
  }

  async run(feeds: Values): Promise<Values> {
    if (this.#released) throw new InputError("input.value", `graph ${this.#graph.name} was released and cannot run again`);
    const checked = checkFeeds(this.#graph, feeds);
    // The computation blocks the thread; let signals and timers in before it.
    await new Promise<void>((resolve) => {
      setImmediate(resolve);
    });
    const fed = new Map(checked.map(([name, tensor]) => [name, fromHost(this.#backend.tf, name, tensor)]));
    try {
      const results = runProgram(this.#backend, this.#program, new Map([...this.#constants, ...fed]));
      try {
        return Object.fromEntries([...results].map(([name, value]) => [name, toHost(value)]));
      } finally {
        dispose(results);
      }
    } finally {
      dispose(fed);
    }
  }

  async release(): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    this.#live.delete(this);
    dispose(this.#constants);
  }
}

function dispose(values: ReadonlyMap<string, Value>): void {
  for (const { tensor } of values.values()) tensor.dispose();
}
