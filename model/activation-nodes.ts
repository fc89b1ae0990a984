/**
 * Quantize-dequantize of an activation as nodes of a graph, in standard ONNX
 * operators: what a runtime with integer or FP8 kernels computes, value by value.
 *
 * The dialects are the rows of numbers of `core/dialect.ts`. Scales are f32
 * whatever the dtype of the model, as engines run in f32.
 * @module
 */
import { blockFormatOf } from "../core/blocks/format.ts";
import { intRule, type IntRule } from "../core/dialect.ts";
import { UnsupportedError } from "../core/errors.ts";
import { FLOAT_FORMATS } from "../core/float.ts";
import { schemeName, type NumberFormat, type QuantScheme } from "../core/scheme.ts";
import { tensorOf } from "../core/tensor.ts";
import { quantizeDequantizeBlocks } from "./block-nodes.ts";
import { roundToFloat } from "./float-nodes.ts";
import type { GraphBuilder } from "./graph/builder.ts";
import type { Graph, GraphNode } from "./graph/graph.ts";

/** Scale of a run of zeros: any positive number gives zeros back, so the smallest normal f32 stands for every dialect's own. */
const SMALLEST_SCALE = 2 ** -126;

/** Where `quantizeDequantize` finds what the scheme alone does not say. */
export interface QuantizationPlace {
  /**
   * A value whose first axis counts the samples of the batch: dynamic per-tensor scales are taken over one sample each,
   * whether the quantized value is [samples, tokens, channels] or [samples · tokens, channels].
   */
  readonly samples?: string;
  /** Channels of the value; blocks of a format need it. */
  readonly channels?: number;
  /** Name of the result; numbered when left out. */
  readonly output?: string;
}

/**
 * Append nodes that quantize and dequantize `value`, shape [..., channels], f32.
 *
 * @param staticScale - value of shape [1]: unit activation per code; static schemes need it.
 * @param staticZero - value of shape [1]: the code that means 0; static asymmetric schemes need it.
 * @returns the name of the dequantized value, same shape.
 * @throws {UnsupportedError} `unsupported.scheme` for a scheme that is not one of: int 2 to 16 bits or a small float,
 *   per token, per tensor or per group dynamic, per tensor static, in a dialect that has it.
 * @throws {InputError} `input.option` for another width.
 */
export function quantizeDequantize(
  graph: GraphBuilder,
  value: string,
  scheme: QuantScheme,
  staticScale?: string,
  staticZero?: string,
  place: QuantizationPlace = {},
): string {
  const block = blockFormatOf(scheme);
  if (block !== undefined) {
    if (place.channels === undefined) throw unsupported(scheme, "the number of channels is not known");
    return quantizeDequantizeBlocks(graph, value, block, {
      channels: place.channels,
      rule: scheme.scaleRule,
      ...(staticScale !== undefined && { globalScale: staticScale }),
      ...(place.output !== undefined && { output: place.output }),
    });
  }
  assertIntOrFloat(scheme);
  if (scheme.timing === "static") {
    if (staticScale === undefined) throw unsupported(scheme, "a static scheme needs a stored scale");
    return roundOnGrid(graph, value, scheme, { scale: staticScale, ...(staticZero !== undefined && { zero: staticZero }) }, place.output);
  }
  const rows = scaleRows(graph, value, scheme, place.samples);
  const grid = dynamicGrid(graph, rows, scheme);
  if (rows === value) return roundOnGrid(graph, value, scheme, grid, place.output);
  const rounded = roundOnGrid(graph, rows, scheme, grid);
  return graph.op("Reshape", [rounded, graph.op("Shape", [value])], {}, place.output);
}

/** @throws {UnsupportedError} `unsupported.scheme` saying why `scheme` cannot quantize activations. */
export function assertActivationScheme(scheme: QuantScheme): void {
  if (blockFormatOf(scheme) === undefined) assertIntOrFloat(scheme);
  else if (scheme.timing === "static") throw unsupported(scheme, "scales of blocks are computed from each input");
}

function assertIntOrFloat(scheme: QuantScheme): asserts scheme is IntOrFloat {
  const { format, granularity, timing, dialect } = scheme;
  if (format.kind !== "int" && format.kind !== "float") throw unsupported(scheme, "only int and small float formats run");
  const shared = timing === "static" ? granularity.kind === "tensor" : ["token", "tensor", "group"].includes(granularity.kind);
  if (!shared) {
    throw unsupported(scheme, `${timing} scales per ${granularity.kind}; token, tensor and group run dynamic, tensor runs static`);
  }
  if (format.kind === "float") return;
  const rule = intRule(dialect, format.bits, format.symmetric);
  if (rule.oneSided) throw unsupported(scheme, "its scale depends on signs, a rule for weights; compressed-tensors or sq-fake run");
  if (!rule.zeroIsCode) throw unsupported(scheme, "its zero point is not a code, a rule for weights; compressed-tensors or awq run");
}

function unsupported(scheme: QuantScheme, why: string): UnsupportedError {
  const name = schemeName(scheme);
  return new UnsupportedError("unsupported.scheme", `cannot quantize activations as ${name} (${scheme.dialect}): ${why}`, { scheme });
}

/** `value` shaped so that numbers sharing a scale are the last axis. */
function scaleRows(graph: GraphBuilder, value: string, scheme: QuantScheme, samples: string | undefined): string {
  const { granularity } = scheme;
  if (granularity.kind === "token") return value;
  if (granularity.kind === "group") {
    const leading = graph.op("Shape", [value], { end: -1 });
    return graph.op("Reshape", [value, graph.op("Concat", [leading, graph.int64([-1, granularity.size])], { axis: 0 })]);
  }
  if (samples === undefined) throw unsupported(scheme, "no value says how many samples a batch holds, so no scale per sample exists");
  const count = graph.op("Shape", [samples], SAMPLE_AXIS);
  return graph.op("Reshape", [value, graph.op("Concat", [count, graph.int64([-1])], { axis: 0 })]);
}

const SAMPLE_AXIS = { start: 0, end: 1 } as const;

/** Whether a scale in `graph` spans the tokens of a sample; only such scales ask for the first axis alone. */
export function hasScalesPerSample(graph: Graph): boolean {
  const is = (node: GraphNode, name: "start" | "end"): boolean => {
    const attribute = node.attributes[name];
    return attribute?.kind === "int" && attribute.value === SAMPLE_AXIS[name];
  };
  return graph.nodes.some((node) => node.op === "Shape" && is(node, "start") && is(node, "end"));
}

/** A scheme that `assertActivationScheme` let through. */
interface IntOrFloat extends QuantScheme {
  readonly format: Extract<NumberFormat, { readonly kind: "int" | "float" }>;
}

interface Grid {
  readonly scale: string;
  readonly zero?: string;
}

/** Scales (and zeros) [..., 1] from the last axis of `rows`: `parametersOf` in core/dialect.ts, in f32. */
function dynamicGrid(graph: GraphBuilder, rows: string, { format, dialect }: IntOrFloat): Grid {
  const last = graph.int64([-1]);
  if (format.kind === "float" || format.symmetric) {
    const rule = format.kind === "float" ? undefined : intRule(dialect, format.bits, true);
    const absMax = graph.op("ReduceMax", [graph.op("Abs", [rows]), last], { keepdims: 1 });
    const span = raise(graph, absMax, rule?.spanFloor ?? 0);
    const divisor = format.kind === "float" ? FLOAT_FORMATS[format.format].max : rule!.divisor;
    return { scale: positiveScale(graph, graph.op("Div", [span, graph.float32(divisor)]), rule) };
  }
  const rule = intRule(dialect, format.bits, false);
  const reduce = (op: "ReduceMin" | "ReduceMax", widen: "Min" | "Max"): string => {
    const extreme = graph.op(op, [rows, last], { keepdims: 1 });
    return rule.includesZero ? graph.op(widen, [extreme, graph.float32(0)]) : extreme;
  };
  const low = reduce("ReduceMin", "Min");
  const span = raise(graph, graph.op("Sub", [reduce("ReduceMax", "Max"), low]), rule.spanFloor);
  const scale = positiveScale(graph, graph.op("Div", [span, graph.float32(rule.divisor)]), rule);
  const zero = graph.op("Sub", [graph.float32(rule.codeMin), graph.op("Div", [low, scale])]);
  return { scale, zero: graph.op("Round", [graph.op("Clip", [zero, graph.float32(rule.zeroMin), graph.float32(rule.zeroMax)])]) };
}

function positiveScale(graph: GraphBuilder, scale: string, rule: IntRule | undefined): string {
  if (rule === undefined) return raise(graph, scale, SMALLEST_SCALE);
  const floor = rule.spanFloor > 0 ? rule.scaleMin : Math.max(rule.scaleMin, SMALLEST_SCALE);
  return lower(graph, raise(graph, scale, floor), rule.scaleMax);
}

function raise(graph: GraphBuilder, x: string, low: number): string {
  // Spans and scales are never negative.
  return low === 0 ? x : graph.op("Max", [x, graph.float32(low)]);
}

function lower(graph: GraphBuilder, x: string, high: number): string {
  return high === Infinity ? x : graph.op("Min", [x, graph.float32(high)]);
}

/** Round `x` to the codes of `grid` and multiply back: `codeOf` in core/dialect.ts, then (code − zero) · scale. */
function roundOnGrid(graph: GraphBuilder, x: string, { format, timing, dialect }: IntOrFloat, grid: Grid, output?: string): string {
  const scaled = graph.op("Div", [x, grid.scale]);
  const clip = (value: string, low: number, high: number): string => graph.op("Clip", [value, graph.float32(low), graph.float32(high)]);
  if (format.kind === "float") {
    const target = FLOAT_FORMATS[format.format];
    return graph.op("Mul", [roundToFloat(graph, clip(scaled, -target.max, target.max), target), grid.scale], {}, output);
  }
  const rule = intRule(dialect, format.bits, format.symmetric);
  const { zero } = grid;
  if (zero === undefined) {
    const code = graph.op("Round", [scaled]);
    // A value's own absmax lands on the highest code: nothing to clamp.
    const inside = timing === "dynamic" && rule.divisor <= rule.codeMax;
    return graph.op("Mul", [inside ? code : clip(code, rule.codeMin, rule.codeMax), grid.scale], {}, output);
  }
  const code = rule.addsBeforeRounding
    ? graph.op("Round", [graph.op("Add", [scaled, zero])])
    : graph.op("Add", [graph.op("Round", [scaled]), zero]);
  return graph.op("Mul", [graph.op("Sub", [clip(code, rule.codeMin, rule.codeMax), zero]), grid.scale], {}, output);
}

/** An f32 tensor of shape [1], for static scales and zeros. */
export function scalarTensor(value: number): ReturnType<typeof tensorOf> {
  return tensorOf(Float32Array.of(value), [1]);
}
