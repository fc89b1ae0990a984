/**
 * Operators that look elements up, or write them, at computed places.
 *
 * Places are worked out on the host; the elements themselves move by one gather on the backend, which keeps gradients.
 * @module
 */
import type { Call, Operator, Value } from "./call.ts";
import { intValue, throughInt } from "./values.ts";

function count(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** An index counted from the front. */
function wrap(call: Call, index: number, size: number): number {
  if (index >= -size && index < size) return index < 0 ? index + size : index;
  return call.fail(`index ${index} is outside the ${size} elements of its axis`);
}

/** Elements of a value by flat place, in a new shape. */
function pick(call: Call, value: Value, places: Int32Array, shape: readonly number[]): Value {
  const { tf } = call;
  if (places.length === 0) return throughInt(tf, value, (tensor) => tf.zeros([...shape], tensor.dtype));
  return throughInt(tf, value, (tensor) =>
    tf.reshape(tf.gather(tf.reshape(tensor, [-1]), tf.tensor(places, [places.length], "int32")), [...shape]),
  );
}

const gather: Operator = (call) => {
  const { tf } = call;
  const value = call.input(0);
  const { shape } = value.tensor;
  const axis = call.axis(call.intAttribute("axis", 0), shape.length);
  const indices = Int32Array.from(call.integers(1), (index) => wrap(call, index, shape[axis]!));
  const result = [...shape.slice(0, axis), ...call.input(1).tensor.shape, ...shape.slice(axis + 1)];
  if (count(result) === 0) return pick(call, value, new Int32Array(0), result);
  return throughInt(tf, value, (tensor) => tf.reshape(tf.gather(tensor, tf.tensor(indices, [indices.length], "int32"), axis), result));
};

/** For each element of `indices`, the flat place in a tensor of `shape` whose coordinate on `axis` is that element. */
function placesAlong(
  call: Call,
  shape: readonly number[],
  axis: number,
  indices: readonly number[],
  indexShape: readonly number[],
): Int32Array {
  if (indexShape.length !== shape.length)
    call.fail(`its indices have ${indexShape.length} dimensions, its data ${shape.length}`, "input.shape");
  const coordinates = indexShape.map(() => 0);
  return Int32Array.from(indices, (index) => {
    let place = 0;
    for (let i = 0; i < shape.length; i++) place = place * shape[i]! + (i === axis ? wrap(call, index, shape[i]!) : coordinates[i]!);
    for (let i = coordinates.length - 1; i >= 0 && ++coordinates[i]! === indexShape[i]; i--) coordinates[i] = 0;
    return place;
  });
}

const gatherElements: Operator = (call) => {
  const value = call.input(0);
  const { shape } = value.tensor;
  const indexShape = call.input(1).tensor.shape;
  const axis = call.axis(call.intAttribute("axis", 0), shape.length);
  return pick(call, value, placesAlong(call, shape, axis, call.integers(1), indexShape), indexShape);
};

/** data with updates[j] written at places[j]; of two writes to one place the later stays. */
function written(call: Call, places: Int32Array): Value {
  const { tf } = call;
  const [data, updates] = [call.input(0), call.input(2)];
  if (data.dtype !== updates.dtype) call.fail(`its data are ${data.dtype}, its updates ${updates.dtype}`);
  if (updates.tensor.size !== places.length) {
    call.fail(`it has ${updates.tensor.size} updates for ${places.length} places`, "input.shape");
  }
  const reduction = call.stringAttribute("reduction", "none");
  if (reduction !== "none") call.unsupported(`reduction="${reduction}"`);
  if (places.length === 0) return data;
  const sources = Int32Array.from({ length: data.tensor.size }, (_, i) => i);
  for (const [j, place] of places.entries()) sources[place] = data.tensor.size + j;
  const cast = (value: Value) => tf.reshape(value.dtype === "BOOL" ? tf.cast(value.tensor, "int32") : value.tensor, [-1]);
  const both = tf.concat([cast(data), cast(updates)]);
  const joined: Value = { dtype: data.dtype, tensor: data.dtype === "BOOL" ? tf.cast(both, "bool") : both };
  return pick(call, joined, sources, data.tensor.shape);
}

const scatterElements: Operator = (call) => {
  const { shape } = call.input(0).tensor;
  const axis = call.axis(call.intAttribute("axis", 0), shape.length);
  return written(call, placesAlong(call, shape, axis, call.integers(1), call.input(1).tensor.shape));
};

/** Flat places that rows of coordinates point at: each row names the leading axes and covers all of the rest. */
function placesByRow(call: Call, shape: readonly number[]): Int32Array {
  const indexShape = call.input(1).tensor.shape;
  const depth = indexShape.at(-1) ?? call.fail("its indices are a scalar", "input.shape");
  const indices = call.integers(1);
  const span = count(shape.slice(depth));
  const places = new Int32Array((indices.length / depth) * span);
  for (let row = 0; row < indices.length / depth; row++) {
    let start = 0;
    for (let i = 0; i < depth; i++) start = start * shape[i]! + wrap(call, indices[row * depth + i]!, shape[i]!);
    for (let i = 0; i < span; i++) places[row * span + i] = start * span + i;
  }
  return places;
}

const gatherND: Operator = (call) => {
  if (call.intAttribute("batch_dims", 0) !== 0) call.unsupported("batch_dims");
  const value = call.input(0);
  const { shape } = value.tensor;
  const indexShape = call.input(1).tensor.shape;
  return pick(call, value, placesByRow(call, shape), [...indexShape.slice(0, -1), ...shape.slice(indexShape.at(-1))]);
};

const scatterND: Operator = (call) => written(call, placesByRow(call, call.input(0).tensor.shape));

/** [rank, n]: the coordinates of every element that is not zero, in order. */
const nonZero: Operator = (call) => {
  const { tensor } = call.input(0);
  const places = [...tensor.dataSync().entries()].filter(([, value]) => Boolean(value)).map(([place]) => place);
  const rank = Math.max(1, tensor.shape.length);
  const coordinates = new Int32Array(rank * places.length);
  for (const [j, flat] of places.entries()) {
    let rest = flat;
    for (let axis = tensor.shape.length - 1; axis >= 0; axis--) {
      coordinates[axis * places.length + j] = rest % tensor.shape[axis]!;
      rest = Math.floor(rest / tensor.shape[axis]!);
    }
  }
  return intValue(call.tf, coordinates, [rank, places.length]);
};

const oneHot: Operator = (call) => {
  const { tf } = call;
  const indexShape = call.input(0).tensor.shape;
  const [depth] = [...call.input(1).tensor.dataSync()] as [number];
  const axis = call.axis(call.intAttribute("axis", -1), indexShape.length + 1);
  const inner = count(indexShape.slice(axis));
  const chosen = new Int32Array(count(indexShape) * depth);
  for (const [i, index] of [...call.input(0).tensor.dataSync()].entries()) {
    if (index < -depth || index >= depth) continue;
    chosen[Math.floor(i / inner) * depth * inner + (index < 0 ? index + depth : index) * inner + (i % inner)] = 1;
  }
  const shape = [...indexShape.slice(0, axis), depth, ...indexShape.slice(axis)];
  const values = call.input(2);
  if (chosen.length === 0) return { dtype: values.dtype, tensor: tf.zeros(shape, values.tensor.dtype) };
  return pick(call, values, chosen, shape);
};

/** Largest (or smallest) k along an axis, in order; of equals the lower index first. */
const topK: Operator = (call) => {
  const value = call.input(0);
  const { shape } = value.tensor;
  const [k] = call.integers(1) as [number];
  const axis = call.axis(call.intAttribute("axis", -1), shape.length);
  const sign = call.intAttribute("largest", 1) === 1 ? 1 : -1;
  const size = shape[axis]!;
  if (k < 0 || k > size) call.fail(`k = ${k} of ${size} elements`, "input.shape");
  const data = value.tensor.dataSync();
  const inner = count(shape.slice(axis + 1));
  const result = shape.with(axis, k);
  const indices = new Int32Array(count(result));
  for (let line = 0; line < data.length / size; line++) {
    const [outer, column] = [Math.floor(line / inner), line % inner];
    const at = (i: number): number => data[(outer * size + i) * inner + column]!;
    const order = Array.from({ length: size }, (_, i) => i).toSorted((a, b) => sign * (at(b) - at(a)) || a - b);
    for (let i = 0; i < k; i++) indices[(outer * k + i) * inner + column] = order[i]!;
  }
  return [pick(call, value, placesAlong(call, shape, axis, [...indices], result), result), intValue(call.tf, indices, result)];
};

export const INDEXING: Readonly<Record<string, Operator>> = {
  Gather: gather,
  GatherElements: gatherElements,
  GatherND: gatherND,
  ScatterElements: scatterElements,
  ScatterND: scatterND,
  NonZero: nonZero,
  OneHot: oneHot,
  TopK: topK,
};
