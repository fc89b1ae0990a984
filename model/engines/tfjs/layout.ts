/**
 * Operators that move elements or say where they are, and change none.
 * @module
 */
import type { Call, Operator, TfTensor, Value } from "./call.ts";
import { broadcast, broadcastShapes, intValue, throughInt } from "./values.ts";

function count(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** The value under another shape of the same size. */
function reshaped(call: Call, { dtype, tensor }: Value, shape: readonly number[]): Value {
  if (count(shape) !== tensor.size) call.fail(`[${tensor.shape.join(", ")}] cannot become [${shape.join(", ")}]`, "input.shape");
  return { dtype, tensor: call.tf.reshape(tensor, [...shape]) };
}

/** 0 copies the input's dimension unless allowzero is set, -1 is what remains. */
const reshape: Operator = (call) => {
  const value = call.input(0);
  const allowZero = call.intAttribute("allowzero", 0) === 1;
  const shape = call.integers(1).map((size, i) => (size === 0 && !allowZero ? (value.tensor.shape[i] ?? 0) : size));
  const open = shape.indexOf(-1);
  const known = count(shape.filter((size) => size !== -1));
  if (open >= 0) shape[open] = known === 0 ? 0 : value.tensor.size / known;
  return reshaped(call, value, shape);
};

const flatten: Operator = (call) => {
  const value = call.input(0);
  const { shape } = value.tensor;
  const axis = call.intAttribute("axis", 1);
  const from = axis === shape.length ? axis : call.axis(axis, shape.length);
  return reshaped(call, value, [count(shape.slice(0, from)), count(shape.slice(from))]);
};

const unsqueeze: Operator = (call) => {
  const value = call.input(0);
  const axes = call.integers(1);
  const rank = value.tensor.shape.length + axes.length;
  const added = new Set(axes.map((axis) => call.axis(axis, rank)));
  const rest = [...value.tensor.shape];
  return reshaped(
    call,
    value,
    Array.from({ length: rank }, (_, i) => (added.has(i) ? 1 : rest.shift()!)),
  );
};

const squeeze: Operator = (call) => {
  const value = call.input(0);
  const { shape } = value.tensor;
  const ones = [...shape.keys()].filter((axis) => shape[axis] === 1);
  const dropped = new Set(call.integers(1, ones).map((axis) => call.axis(axis, shape.length)));
  return reshaped(
    call,
    value,
    shape.filter((_, axis) => !dropped.has(axis)),
  );
};

const transpose: Operator = (call) => {
  const value = call.input(0);
  const rank = value.tensor.shape.length;
  const order = call.intsAttribute("perm") ?? Array.from({ length: rank }, (_, i) => rank - 1 - i);
  return throughInt(call.tf, value, (tensor) => call.tf.transpose(tensor, [...order]));
};

/** Parts without elements are dropped: some backends cannot take them. */
const concat: Operator = (call) => {
  const { tf } = call;
  const first = call.input(0);
  const axis = call.axis(call.intAttribute("axis", 0), first.tensor.shape.length);
  const parts = Array.from({ length: call.count }, (_, i) => call.input(i));
  if (parts.some(({ dtype }) => dtype !== first.dtype))
    call.fail(`its inputs are ${parts.map(({ dtype }) => dtype).join(", ")}, which must be equal`);
  const filled = parts.filter(({ tensor }) => tensor.size > 0);
  if (filled.length === 0) {
    const size = parts.reduce((sum, { tensor }) => sum + tensor.shape[axis]!, 0);
    return reshaped(call, first, first.tensor.shape.with(axis, size));
  }
  const tensors = filled.map(({ tensor }) => (first.dtype === "BOOL" ? tf.cast(tensor, "int32") : tensor));
  const joined = tensors.length === 1 ? tensors[0]! : tf.concat(tensors, axis);
  return { dtype: first.dtype, tensor: first.dtype === "BOOL" ? tf.cast(joined, "bool") : joined };
};

const split: Operator = (call) => {
  const value = call.input(0);
  const { shape } = value.tensor;
  const axis = call.axis(call.intAttribute("axis", 0), shape.length);
  const size = shape[axis]!;
  const parts = call.intAttribute("num_outputs", call.node.outputs.length);
  const even = Math.ceil(size / parts);
  const sizes = call.integers(
    1,
    Array.from({ length: parts }, (_, i) => Math.max(0, Math.min(even, size - i * even))),
  );
  if (sizes.reduce((a, b) => a + b, 0) !== size)
    call.fail(`parts of ${sizes.join(" + ")} do not fill dimension ${axis} of ${size}`, "input.shape");
  let start = 0;
  return sizes.map((length) => {
    const part = sliced(call, value, new Map([[axis, { start, length, step: 1 }]]));
    start += length;
    return part;
  });
};

interface Range {
  readonly start: number;
  readonly length: number;
  readonly step: number;
}

/** The part of a value given by a range for each of some axes. */
function sliced(call: Call, value: Value, ranges: ReadonlyMap<number, Range>): Value {
  const { tf } = call;
  return throughInt(tf, value, (tensor) => {
    const begin = tensor.shape.map((_, axis) => (ranges.get(axis)?.step === 1 ? ranges.get(axis)!.start : 0));
    const size = tensor.shape.map((whole, axis) => (ranges.get(axis)?.step === 1 ? ranges.get(axis)!.length : whole));
    let result: TfTensor = tf.slice(tensor, begin, size);
    for (const [axis, { start, length, step }] of ranges) {
      if (step === 1) continue;
      const indices = Int32Array.from({ length }, (_, i) => start + i * step);
      result = tf.gather(result, tf.tensor(indices, [length], "int32"), axis);
    }
    return result;
  });
}

const slice: Operator = (call) => {
  const value = call.input(0);
  const { shape } = value.tensor;
  const [starts, ends] = [call.integers(1), call.integers(2)];
  const axes = call.integers(3, [...starts.keys()]).map((axis) => call.axis(axis, shape.length));
  const steps = call.integers(
    4,
    starts.map(() => 1),
  );
  const ranges = axes.map((axis, i): [number, Range] => {
    const [size, step] = [shape[axis]!, steps[i]!];
    if (step === 0) call.fail(`the step along axis ${axis} is 0`);
    const place = (x: number): number => Math.min(Math.max(x < 0 ? x + size : x, step < 0 ? -1 : 0), step < 0 ? size - 1 : size);
    const [start, end] = [place(starts[i]!), place(ends[i]!)];
    return [axis, { start, length: Math.max(0, Math.ceil((end - start) / step)), step }];
  });
  return sliced(call, value, new Map(ranges));
};

const expand: Operator = (call) => {
  const value = call.input(0);
  const shape = broadcastShapes(call, value.tensor.shape, call.integers(1));
  return throughInt(call.tf, value, (tensor) => broadcast(call.tf, tensor, shape));
};

const tile: Operator = (call) => throughInt(call.tf, call.input(0), (tensor) => call.tf.tile(tensor, [...call.integers(1)]));

const shapeOf: Operator = (call) => {
  const { shape } = call.input(0).tensor;
  const part = shape.slice(call.intAttribute("start", 0), call.intAttribute("end", shape.length));
  return intValue(call.tf, part, [part.length]);
};

/** Keep the upper (or lower) triangle of the last two axes; the rest is zero. */
const trilu: Operator = (call) => {
  const value = call.input(0);
  const [rows, cols] = value.tensor.shape.slice(-2) as [number, number];
  const [k] = call.integers(1, [0]) as [number];
  const upper = call.intAttribute("upper", 1) === 1;
  const kept = Int32Array.from({ length: rows * cols }, (_, n) => {
    const offset = (n % cols) - Math.floor(n / cols) - k;
    return Number(upper ? offset >= 0 : offset <= 0);
  });
  const { tf } = call;
  return throughInt(tf, value, (tensor) => {
    const mask = broadcast(tf, tf.tensor(kept, [rows, cols], "int32"), tensor.shape);
    return tf.where(tf.cast(mask, "bool"), tensor, tf.zerosLike(tensor));
  });
};

export const LAYOUT: Readonly<Record<string, Operator>> = {
  Identity: (call) => call.input(0),
  Reshape: reshape,
  Flatten: flatten,
  Unsqueeze: unsqueeze,
  Squeeze: squeeze,
  Transpose: transpose,
  Concat: concat,
  Split: split,
  Slice: slice,
  Expand: expand,
  Tile: tile,
  Trilu: trilu,
  Shape: shapeOf,
  Size: (call) => intValue(call.tf, [call.input(0).tensor.size], []),
};
