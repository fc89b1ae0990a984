/**
 * Rounding to small floats as nodes of a graph, exact in f32.
 * @module
 */
import type { FloatFormat } from "../core/float.ts";
import type { GraphBuilder } from "./graph/builder.ts";

/**
 * The power of two at or below a positive value, without logarithms: for u = 2⁻²⁴ and q = (2²³ + 1) · a, the difference
 * q − (1 − u) q is the unit in the first place of a (Rump, Ogita, Oishi, "Accurate floating-point summation
 * part I", SIAM J. Sci. Comput. 31, 2008, algorithm 3.6). For 2⁻¹²⁶ ≤ a < 2¹⁰⁴.
 */
export function binade(graph: GraphBuilder, a: string): string {
  const q = graph.op("Mul", [a, graph.float32(2 ** 23 + 1)]);
  return graph.op("Sub", [q, graph.op("Mul", [q, graph.float32(1 - 2 ** -24)])]);
}

/** Nearest value of a small float format, ties to even, for |x| ≤ max; below the smallest normal number the step stays. */
export function roundToFloat(graph: GraphBuilder, x: string, { bias, mantissaBits }: FloatFormat): string {
  const magnitude = graph.op("Max", [graph.op("Abs", [x]), graph.float32(2 ** (1 - bias))]);
  const step = graph.op("Mul", [binade(graph, magnitude), graph.float32(2 ** -mantissaBits)]);
  return graph.op("Mul", [graph.op("Round", [graph.op("Div", [x, step])]), step]);
}
