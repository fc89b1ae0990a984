/**
 * Engine: something that runs graphs. Engines know nothing of models.
 * @module
 */
import type { DType } from "../../core/dtype.ts";
import type { Graph } from "../graph/graph.ts";

/** A tensor in host memory, typed. BOOL is a Uint8Array of 0 and 1; I64 a BigInt64Array. */
export interface HostTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array | BigInt64Array | Uint8Array | Int8Array | Uint16Array | Float64Array;
}

/** Values by name. */
export type Values = Readonly<Record<string, HostTensor>>;

export interface CompiledGraph {
  /** The outputs that `run` returns. */
  readonly outputs: readonly string[];
  /**
   * @param feeds - every graph input and weight slot, by name; extra names are ignored.
   *   Feeds are not copied where the engine allows it, so they must not change during the run.
   * @throws {InputError} `input.value` naming a feed that is missing, `input.dtype` / `input.shape` one that does not fit.
   */
  run(feeds: Values): Promise<Values>;
  release(): Promise<void>;
}

/** How a graph is compiled. */
export interface CompileOptions {
  /** Values to return instead of `graph.outputs`: any value of the graph may be tapped. */
  readonly outputs?: readonly string[];
}

export interface Engine {
  /** "onnxruntime" | "onnxruntime-web" | "tfjs" | "integer". */
  readonly name: string;
  /** What is behind it, e.g. "onnxruntime-node 1.30.0, 2 threads". */
  readonly description: string;
  /** Operators it runs: "Gemm", or "com.microsoft::MatMulNBits". */
  readonly operators: ReadonlySet<string>;
  /**
   * Compile once, run often. Equal graphs (same structure and output list) share one compiled form inside the engine.
   *
   * @throws {UnsupportedError} `unsupported.operator` naming the operators it lacks.
   */
  compile(graph: Graph, options?: CompileOptions): Promise<CompiledGraph>;
  close(): Promise<void>;
}
