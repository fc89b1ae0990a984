/**
 * Quantize-dequantize in a block format as nodes of a graph: `fakeQuantizeBlocks` of core/blocks, value by value.
 *
 * Every step is a power of two or an f32 operation that the definition makes too, so the values are the same bit for bit, as long as
 * the largest magnitude of a block is 0 or lies in [2⁻¹⁰⁰, 2¹⁰⁰]; blocks of smaller numbers become zeros.
 * @module
 */
import { elementFacts, type BlockFormat, type ElementFacts } from "../core/blocks/format.ts";
import { defaultRule } from "../core/blocks/quantize.ts";
import { UnsupportedError } from "../core/errors.ts";
import { E2M1, E4M3 } from "../core/float.ts";
import type { ScaleRule } from "../core/scheme.ts";
import { binade, roundToFloat } from "./float-nodes.ts";
import type { GraphBuilder } from "./graph/builder.ts";

/** Below this a block counts as zeros. */
const LEAST = 2 ** -100;
/** What stands in the place of a zero e4m3 scale. */
const ZERO_SCALE = 0.125;
const ONNX_DOUBLE = 11;

/** What blocks of activations need beside their format. */
export interface BlockPlace {
  /** Channels of the value's last axis; a block that does not divide them is shorter at the end. */
  readonly channels: number;
  readonly rule: ScaleRule | undefined;
  /** NVFP4: value F32 [1], the calibrated divisor. */
  readonly globalScale?: string;
  /** Name of the result; numbered when left out. */
  readonly output?: string;
}

/**
 * Append nodes that quantize and dequantize `value`, shape [..., channels].
 *
 * @returns the name of the result, same shape.
 * @throws {UnsupportedError} `unsupported.scheme` for a rule that only weights have.
 */
export function quantizeDequantizeBlocks(graph: GraphBuilder, value: string, format: BlockFormat, place: BlockPlace): string {
  const { channels } = place;
  const missing = (format.block - (channels % format.block)) % format.block;
  const whole = missing === 0 ? value : padded(graph, value, missing);
  const leading = graph.op("Shape", [whole], { end: -1 });
  const blocks = graph.op("Reshape", [whole, graph.op("Concat", [leading, graph.int64([-1, format.block])], { axis: 0 })]);
  const absMax = graph.op("ReduceMax", [graph.op("Abs", [blocks]), graph.int64([-1])], { keepdims: 1 });
  const rounded = format.family === "nvfp4" ? nvfp4(graph, blocks, absMax, place) : powerOfTwo(graph, blocks, absMax, format, place);
  if (missing === 0) return graph.op("Reshape", [rounded, graph.op("Shape", [value])], {}, place.output);
  const flat = graph.op("Reshape", [rounded, graph.op("Shape", [whole])]);
  return graph.op("Slice", [flat, graph.int64([0]), graph.int64([channels]), graph.int64([-1])], {}, place.output);
}

/** Zeros behind the last axis: they never raise a block's maximum. */
function padded(graph: GraphBuilder, value: string, missing: number): string {
  const shape = graph.op("Concat", [graph.op("Shape", [value], { end: -1 }), graph.int64([missing])], { axis: 0 });
  return graph.op("Concat", [value, graph.op("Expand", [graph.float32(0), shape])], { axis: -1 });
}

function powerOfTwo(
  graph: GraphBuilder,
  x: string,
  absMax: string,
  format: BlockFormat,
  { rule = defaultRule(format) }: BlockPlace,
): string {
  const facts = elementFacts(format);
  const raised = graph.op("Max", [absMax, graph.float32(LEAST)]);
  const top = binade(graph, raised);
  const floor = graph.op("Mul", [top, graph.float32(2 ** -facts.maxExponent)]);
  const times = (factor: number): string => graph.op("Mul", [floor, graph.float32(factor)]);
  const upWhere = (condition: string): string => graph.op("Where", [condition, times(2), floor]);
  const limitOf = format.element.kind === "int" ? 2 ** (format.element.bits - 1) - 1 : facts.max;
  const at = (scale: string): string => roundAt(graph, x, scale, facts, limitOf);
  switch (rule) {
    case "floor":
      return at(floor);
    case "ceil":
      return at(upWhere(graph.op("Greater", [raised, top])));
    case "rceil":
      return at(upWhere(graph.op("Greater", [raised, graph.op("Mul", [floor, graph.float32(facts.max)])])));
    case "even":
      return at(upWhere(graph.op("GreaterOrEqual", [raised, graph.op("Mul", [top, graph.float32(2 - 2 ** -(facts.roundBits + 1))])])));
    case "mse":
      return leastError(graph, x, [at(floor), at(times(2)), at(times(0.5))]);
    default:
      return rule satisfies never;
  }
}

/** Elements at a scale, as values. */
function roundAt(graph: GraphBuilder, x: string, scale: string, { float, fractionBits }: ElementFacts, limit: number): string {
  const unit = fractionBits === 0 ? scale : graph.op("Mul", [scale, graph.float32(2 ** -fractionBits)]);
  const scaled = graph.op("Div", [x, unit]);
  const clip = (value: string): string => graph.op("Clip", [value, graph.float32(-limit), graph.float32(limit)]);
  const code = float === undefined ? clip(graph.op("Round", [scaled])) : roundToFloat(graph, clip(scaled), float);
  return graph.op("Mul", [code, unit]);
}

/** Per block the first candidate with the least squared error. */
function leastError(graph: GraphBuilder, x: string, candidates: readonly string[]): string {
  const errors = candidates.map((candidate) => {
    const difference = graph.op("Cast", [graph.op("Sub", [x, candidate])], { to: ONNX_DOUBLE });
    return graph.op("ReduceSum", [graph.op("Mul", [difference, difference]), graph.int64([-1])], { keepdims: 1 });
  });
  let best = { value: candidates[0]!, error: errors[0]! };
  for (const [i, candidate] of candidates.entries()) {
    if (i === 0) continue;
    const isLess = graph.op("Less", [errors[i]!, best.error]);
    best = { value: graph.op("Where", [isLess, candidate, best.value]), error: graph.op("Where", [isLess, errors[i]!, best.error]) };
  }
  return best.value;
}

function nvfp4(graph: GraphBuilder, x: string, absMax: string, { globalScale, rule = "even" }: BlockPlace): string {
  if (rule !== "even" || globalScale === undefined) {
    throw new UnsupportedError(
      "unsupported.scheme",
      `nvfp4 activations have a calibrated divisor and scales rounded to nearest, not scale=${rule}; runtimes know no other rule`,
      { rule },
    );
  }
  const exact = graph.op("Mul", [globalScale, graph.op("Div", [absMax, graph.float32(E2M1.max)])]);
  const nearest = roundToFloat(graph, graph.op("Min", [exact, graph.float32(E4M3.max)]), E4M3);
  const isZero = graph.op("Equal", [nearest, graph.float32(0)]);
  const unit = graph.op("Div", [graph.op("Where", [isZero, graph.float32(ZERO_SCALE), nearest]), globalScale]);
  const clipped = graph.op("Clip", [graph.op("Div", [x, unit]), graph.float32(-E2M1.max), graph.float32(E2M1.max)]);
  return graph.op("Mul", [roundToFloat(graph, clipped, E2M1), unit]);
}
