/**
 * Activation functions by the names config.json uses (transformers `ACT2FN`).
 * @module
 */
import type { GraphBuilder } from "../graph/builder.ts";
import type { ConfigReader } from "./config.ts";

type Write = (graph: GraphBuilder, x: string) => string;

const silu: Write = (graph, x) => graph.op("Mul", [x, graph.op("Sigmoid", [x])]);
const gelu: Write = (graph, x) => graph.op("Gelu", [x]);
const geluTanh: Write = (graph, x) => graph.op("Gelu", [x], { approximate: "tanh" });

const ACTIVATIONS = {
  silu,
  swish: silu,
  gelu,
  gelu_python: gelu,
  gelu_new: geluTanh,
  gelu_fast: geluTanh,
  gelu_accurate: geluTanh,
  gelu_pytorch_tanh: geluTanh,
  gelu_python_tanh: geluTanh,
  quick_gelu: (graph, x) => graph.op("Mul", [x, graph.op("Sigmoid", [graph.op("Mul", [x, graph.float32(1.702)])])]),
  relu: (graph, x) => graph.op("Relu", [x]),
  relu2: (graph, x) => {
    const positive = graph.op("Relu", [x]);
    return graph.op("Mul", [positive, positive]);
  },
  sigmoid: (graph, x) => graph.op("Sigmoid", [x]),
  tanh: (graph, x) => graph.op("Tanh", [x]),
  linear: (graph, x) => graph.op("Identity", [x]),
} as const satisfies Record<string, Write>;

export type ActivationName = keyof typeof ACTIVATIONS;

/** @throws {FormatError} `format.config` naming the known functions. */
export function readActivation(config: ConfigReader, key: string, fallback: ActivationName): ActivationName {
  const name = config.text(key, fallback);
  if (Object.hasOwn(ACTIVATIONS, name)) return name as ActivationName;
  return config.fail(key, `one of ${Object.keys(ACTIVATIONS).join(", ")}`);
}

/** @returns value of the input's shape. */
export function activate(graph: GraphBuilder, name: ActivationName, x: string): string {
  return ACTIVATIONS[name](graph, x);
}
