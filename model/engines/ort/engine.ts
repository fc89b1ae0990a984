/**
 * An engine over ONNX Runtime's JavaScript interface, native or WASM.
 *
 * Weights are fed as graph inputs, so a graph compiles to a small session without weights,
 * and equal graphs share one session whichever block they come from.
 * @module
 */
import type { InferenceSession, Tensor as OrtTensor } from "onnxruntime-common";
import { InputError, QuantError, UnsupportedError } from "../../../core/errors.ts";
import type { Graph } from "../../graph/graph.ts";
import type { CompiledGraph, CompileOptions, Engine, Values } from "../engine.ts";
import { checkFeeds } from "../feeds.ts";
import { assertOperators } from "../operators.ts";
import { ORT_OPERATORS } from "./operators.ts";
import { SessionCache, type SessionLease } from "./sessions.ts";
import { fromOrt, toOrt } from "./tensors.ts";

/** What we use of onnxruntime-node and onnxruntime-web. */
export interface OrtRuntime {
  readonly InferenceSession: {
    create(model: Uint8Array, options?: InferenceSession.SessionOptions): Promise<InferenceSession>;
    /** From a file, which may have external data beside it; native only. */
    create(path: string, options?: InferenceSession.SessionOptions): Promise<InferenceSession>;
  };
  readonly Tensor: typeof OrtTensor;
}

export interface OrtEngineOptions {
  readonly name: string;
  readonly description: string;
  readonly runtime: OrtRuntime;
  readonly session: InferenceSession.SessionOptions;
  /** Whether the runtime opens files itself. */
  readonly isNative?: boolean;
}

/** Assemble an engine from a loaded runtime. */
export function createOrtEngine({ name, description, runtime, session, isNative = false }: OrtEngineOptions): Engine {
  const sessions = new SessionCache(
    (model) => runtime.InferenceSession.create(model, session),
    isNative ? (path) => runtime.InferenceSession.create(path, session) : undefined,
  );
  return {
    name,
    description,
    operators: ORT_OPERATORS,
    async compile(graph: Graph, { outputs = graph.outputs }: CompileOptions = {}): Promise<CompiledGraph> {
      // A file may use operators of the runtime that are in no table of ours; it says itself what it lacks.
      if (graph.whole === undefined) assertOperators(name, ORT_OPERATORS, graph);
      const wanted = [...new Set(outputs)];
      const lease = await explain(name, graph, () => sessions.acquire(graph, wanted));
      return new CompiledSession(name, runtime, graph, wanted, lease);
    },
    close: () => sessions.close(),
  };
}

class CompiledSession implements CompiledGraph {
  readonly outputs: readonly string[];
  readonly #engine: string;
  readonly #runtime: OrtRuntime;
  readonly #graph: Graph;
  #lease: SessionLease | undefined;

  constructor(engine: string, runtime: OrtRuntime, graph: Graph, outputs: readonly string[], lease: SessionLease) {
    this.outputs = outputs;
    this.#engine = engine;
    this.#runtime = runtime;
    this.#graph = graph;
    this.#lease = lease;
  }

  async run(feeds: Values): Promise<Values> {
    const lease = this.#lease;
    if (lease === undefined) throw new InputError("input.value", `graph ${this.#graph.name} was released and cannot run again`);
    const inputs = Object.fromEntries(checkFeeds(this.#graph, feeds).map(([name, tensor]) => [name, toOrt(this.#runtime, name, tensor)]));
    const results = await explain(this.#engine, this.#graph, () => lease.session.run(inputs, this.outputs));
    return Object.fromEntries(this.outputs.map((name) => [name, fromOrt(name, results[name]!)]));
  }

  async release(): Promise<void> {
    const lease = this.#lease;
    this.#lease = undefined;
    await lease?.release();
  }
}

/** Run `action`; what the runtime throws becomes an error of ours that names the graph (its own text names the node). */
async function explain<T>(engine: string, graph: Graph, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    if (cause instanceof QuantError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    const node = graph.nodes.find(
      ({ name }) => reason.includes(`'${name}'`) || reason.includes(`(${name})`) || reason.includes(`"${name}"`),
    );
    const where = `graph ${graph.name}${node === undefined ? "" : `, node ${node.name}`}`;
    const details = { engine, graph: graph.name, node: node?.name, reason };
    if (/NOT_IMPLEMENTED|not a registered function|Could not find an implementation/.test(reason)) {
      throw new UnsupportedError("unsupported.operator", `engine ${engine} has no kernel for ${where}: ${reason}`, details, { cause });
    }
    throw new InputError("input.value", `engine ${engine} could not run ${where}: ${reason}`, details, { cause });
  }
}
