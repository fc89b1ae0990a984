/**
 * Reductions and running sums.
 * @module
 */
import type { Call, Operator, Tf, TfTensor } from "./call.ts";
import { intValue } from "./values.ts";

/** Axes from the second input (opset 18) or the attribute before it; none means all, or no reduction at all when the node says so. */
function axesOf(call: Call, rank: number): number[] | undefined {
  const given = call.optional(1) === undefined ? call.intsAttribute("axes") : call.integers(1);
  if (given !== undefined && given.length > 0) return given.map((axis) => call.axis(axis, rank));
  return call.intAttribute("noop_with_empty_axes", 0) === 1 ? undefined : Array.from({ length: rank }, (_, i) => i);
}

type Step = (tf: Tf, x: TfTensor, axes: number[], keep: boolean) => TfTensor;

/** @param onIntegers - folds integers on the host, where no 24-bit mantissa limits them. */
function reduction(step: Step, onIntegers?: (sum: number, x: number) => number): Operator {
  return (call) => {
    const { dtype, tensor } = call.input(0);
    const axes = axesOf(call, tensor.shape.length);
    const keep = call.intAttribute("keepdims", 1) === 1;
    if (axes === undefined) return { dtype, tensor };
    if (dtype === "F32")
      return {
        dtype,
        tensor: axes.length === 0 ? step(call.tf, call.tf.reshape(tensor, [1]), [0], false) : step(call.tf, tensor, axes, keep),
      };
    if (onIntegers === undefined || dtype === "BOOL") return call.fail(`it does not reduce ${dtype} here`);
    return reduceIntegers(call, axes, keep, onIntegers);
  };
}

function reduceIntegers(call: Call, axes: readonly number[], keep: boolean, fold: (sum: number, x: number) => number) {
  const { dtype, tensor } = call.input(0);
  const reduced = new Set(axes);
  const { shape } = tensor;
  const kept = [...shape.keys()].filter((axis) => !reduced.has(axis));
  const ordered = shape.length < 2 ? tensor : call.tf.transpose(tensor, [...kept, ...reduced]);
  const data = ordered.dataSync<"int32">();
  const outer = kept.reduce((product, axis) => product * shape[axis]!, 1);
  const inner = data.length / outer;
  const result = Int32Array.from({ length: outer }, (_, i) => data.subarray(i * inner, (i + 1) * inner).reduce((a, b) => fold(a, b)));
  const target = keep ? shape.map((size, axis) => (reduced.has(axis) ? 1 : size)) : kept.map((axis) => shape[axis]!);
  return intValue(call.tf, result, target, dtype);
}

const cumSum: Operator = (call) => {
  const { dtype, tensor } = call.input(0);
  const [position] = call.integers(1) as [number];
  const axis = call.axis(position, tensor.shape.length);
  const exclusive = call.intAttribute("exclusive", 0) === 1;
  const reverse = call.intAttribute("reverse", 0) === 1;
  return { dtype, tensor: call.tf.cumsum(tensor, axis, exclusive, reverse) };
};

/** Index of the first largest (or smallest) element along an axis. */
function extremum(sign: 1 | -1): Operator {
  return (call) => {
    const { tensor } = call.input(0);
    const { shape } = tensor;
    if (call.intAttribute("select_last_index", 0) === 1) call.unsupported("select_last_index");
    const axis = call.axis(call.intAttribute("axis", 0), shape.length);
    const found = call.tf.cast(sign === 1 ? call.tf.argMax(tensor, axis) : call.tf.argMin(tensor, axis), "int32");
    const kept = call.intAttribute("keepdims", 1) === 1 ? shape.with(axis, 1) : shape.toSpliced(axis, 1);
    return { dtype: "I64", tensor: call.tf.reshape(found, kept) };
  };
}

export const REDUCTIONS: Readonly<Record<string, Operator>> = {
  ReduceSum: reduction(
    (tf, x, axes, keep) => tf.sum(x, axes, keep),
    (a, b) => a + b,
  ),
  ReduceMax: reduction((tf, x, axes, keep) => tf.max(x, axes, keep), Math.max),
  ReduceMin: reduction((tf, x, axes, keep) => tf.min(x, axes, keep), Math.min),
  ReduceMean: reduction((tf, x, axes, keep) => tf.mean(x, axes, keep)),
  ReduceSumSquare: reduction((tf, x, axes, keep) => tf.sum(tf.mul(x, x), axes, keep)),
  ReduceL1: reduction((tf, x, axes, keep) => tf.sum(tf.abs(x), axes, keep)),
  ReduceL2: reduction((tf, x, axes, keep) => tf.sqrt(tf.sum(tf.mul(x, x), axes, keep))),
  CumSum: cumSum,
  ArgMax: extremum(1),
  ArgMin: extremum(-1),
};
