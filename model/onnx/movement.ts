/**
 * Operators that move values without computing any: what they make of constants, computed when it is read.
 * @module
 */
import { elementCount } from "../../core/dtype.ts";
import { fromFloat32 } from "../../core/tensor.ts";
import { onnxBits } from "../../formats/containers/onnx/dtypes.ts";
import { DATA_TYPES } from "../../formats/containers/onnx/fields.ts";
import type { OnnxNode } from "../../formats/containers/onnx/model.ts";
import { isReadableAsFloat, makeLazyOnnxTensor, readFloat32, type OnnxTensor } from "../../formats/containers/onnx/tensor.ts";
import { intAttribute, intsAttribute } from "./attributes.ts";
import { mapTensor } from "./bodies.ts";
import { transposeBytes } from "./transpose.ts";

/** Values of the constant of integers at a slot of the node. */
export type ReadIntegers = (slot: number) => readonly number[] | undefined;

/** More indices than a shape, an axis list or a reordering of channels has. */
const MAX_INTEGERS = 65_536;

/** Values of a constant of int64 or int32 that lies in memory, such as a shape. */
export function integersOf({ dtype, bytes }: OnnxTensor): readonly number[] | undefined {
  if ((dtype !== "I64" && dtype !== "I32") || bytes === undefined) return undefined;
  const width = dtype === "I64" ? 8 : 4;
  if (bytes.byteLength > width * MAX_INTEGERS) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const at = (i: number): number => (width === 8 ? Number(view.getBigInt64(8 * i, true)) : view.getInt32(4 * i, true));
  return Array.from({ length: bytes.byteLength / width }, (_, i) => at(i));
}

/**
 * What a node of the standard domain makes of constants.
 *
 * @param tensors - those among its inputs that it moves: all of a Concat's, the first of any other operator's.
 * @param rankOfIndices - axes of a Gather's indices.
 * @returns nothing for other operators, for settings that are not constant, and for shapes and types that do not fit.
 */
export function moveTensor(
  node: OnnxNode,
  tensors: readonly OnnxTensor[],
  integers: ReadIntegers,
  output = 0,
  rankOfIndices = 1,
): OnnxTensor | undefined {
  const tensor = tensors[0]!;
  const rank = tensor.shape.length;
  switch (node.op) {
    case "Identity":
      return tensor;
    case "Cast":
      return castTensor(tensor, intAttribute(node, "to", 0));
    case "Transpose":
      return transposeTensor(tensor, intsAttribute(node, "perm") ?? Array.from({ length: rank }, (_, i) => rank - 1 - i));
    case "Reshape":
    case "Flatten":
    case "Squeeze":
    case "Unsqueeze": {
      const list = intsAttribute(node, "shape") ?? intsAttribute(node, "axes") ?? integers(1);
      // Squeeze alone may leave its axes out; axes that are there but not constant are another matter.
      if (list === undefined && (node.inputs[1] ?? "") !== "") return undefined;
      const shape = reshaped(node, tensor.shape, list);
      return shape && mapTensor(tensor, { shape }, (bytes) => bytes);
    }
    case "Slice":
      return sliceTensor(node, tensor, integers);
    case "Split":
      return splitTensor(node, tensor, integers, output);
    case "Gather": {
      const indices = integers(1);
      return indices && gatherTensor(tensor, axisOf(intAttribute(node, "axis", 0), rank), indices, rankOfIndices);
    }
    case "Concat":
      return concatTensors(tensors, axisOf(intAttribute(node, "axis", 1), rank));
    default:
      return undefined;
  }
}

function axisOf(axis: number, rank: number): number {
  return axis < 0 ? axis + rank : axis;
}

/** Some places along an axis, in the order given. */
function selectAlong(tensor: OnnxTensor, axis: number, places: readonly number[]): OnnxTensor | undefined {
  const { shape } = tensor;
  const width = onnxBits(tensor.dtype) / 8;
  const size = shape[axis];
  if (width < 1 || tensor.dtype === "STRING" || size === undefined) return undefined;
  if (places.some((place) => !(place >= 0 && place < size))) return undefined;
  const run = elementCount(shape.slice(axis + 1)) * width;
  const outer = elementCount(shape.slice(0, axis));
  const selected = shape.map((length, i) => (i === axis ? places.length : length));
  return mapTensor(tensor, { shape: selected }, (bytes) => {
    const out = new Uint8Array(outer * places.length * run);
    let at = 0;
    for (let i = 0; i < outer; i++) {
      for (const place of places) {
        const from = (i * size + place) * run;
        out.set(bytes.subarray(from, from + run), at);
        at += run;
      }
    }
    return out;
  });
}

/** Slice of every opset: bounds as attributes or as inputs (ONNX, Slice-13). */
function sliceTensor(node: OnnxNode, tensor: OnnxTensor, integers: ReadIntegers): OnnxTensor | undefined {
  const given = (slot: number): boolean => (node.inputs[slot] ?? "") !== "";
  const starts = intsAttribute(node, "starts") ?? integers(1);
  const ends = intsAttribute(node, "ends") ?? integers(2);
  if (starts === undefined || ends?.length !== starts.length) return undefined;
  const axes = intsAttribute(node, "axes") ?? (given(3) ? integers(3) : starts.map((_, i) => i));
  const steps = given(4) ? integers(4) : starts.map(() => 1);
  if (axes?.length !== starts.length || steps?.length !== starts.length) return undefined;
  let result: OnnxTensor | undefined = tensor;
  for (const [i, start] of starts.entries()) {
    const axis = axisOf(axes[i]!, tensor.shape.length);
    const places = range(start, ends[i]!, steps[i]!, tensor.shape[axis] ?? 0);
    result = places && selectAlong(result, axis, places);
    if (result === undefined) return undefined;
  }
  return result;
}

function range(start: number, end: number, step: number, size: number): readonly number[] | undefined {
  if (step === 0 || size > MAX_INTEGERS) return undefined;
  const clamp = (bound: number): number => {
    const place = bound < 0 ? bound + size : bound;
    return step > 0 ? Math.min(Math.max(place, 0), size) : Math.min(Math.max(place, -1), size - 1);
  };
  const [from, to] = [clamp(start), clamp(end)];
  return Array.from({ length: Math.max(0, Math.ceil((to - from) / step)) }, (_, i) => from + i * step);
}

/** One output of a Split: sizes as an attribute, as an input, or equal ones (ONNX, Split-18). */
function splitTensor(node: OnnxNode, tensor: OnnxTensor, integers: ReadIntegers, output: number): OnnxTensor | undefined {
  const axis = axisOf(intAttribute(node, "axis", 0), tensor.shape.length);
  const size = tensor.shape[axis];
  if (size === undefined || size > MAX_INTEGERS) return undefined;
  const isGiven = (node.inputs[1] ?? "") !== "";
  const equal = Math.ceil(size / node.outputs.length);
  const sizes =
    intsAttribute(node, "split") ?? (isGiven ? integers(1) : node.outputs.map((_, i) => Math.max(0, Math.min(equal, size - i * equal))));
  const length = sizes?.[output];
  if (sizes === undefined || length === undefined || sizes.some((part) => part < 0)) return undefined;
  if (sizes.reduce((sum, part) => sum + part, 0) !== size) return undefined;
  const start = sizes.slice(0, output).reduce((sum, part) => sum + part, 0);
  return selectAlong(
    tensor,
    axis,
    Array.from({ length }, (_, i) => start + i),
  );
}

function gatherTensor(tensor: OnnxTensor, axis: number, indices: readonly number[], rank: number): OnnxTensor | undefined {
  if (rank > 1) return undefined;
  const size = tensor.shape[axis] ?? 0;
  const selected = selectAlong(
    tensor,
    axis,
    indices.map((index) => axisOf(index, size)),
  );
  if (selected === undefined || rank === 1) return selected;
  return mapTensor(selected, { shape: selected.shape.filter((_, i) => i !== axis) }, (bytes) => bytes);
}

function concatTensors(tensors: readonly OnnxTensor[], axis: number): OnnxTensor | undefined {
  const { dtype, shape } = tensors[0]!;
  const width = onnxBits(dtype) / 8;
  if (width < 1 || dtype === "STRING" || axis < 0 || axis >= shape.length) return undefined;
  const fits = (tensor: OnnxTensor): boolean =>
    tensor.dtype === dtype && tensor.shape.length === shape.length && tensor.shape.every((size, i) => i === axis || size === shape[i]);
  if (!tensors.every(fits)) return undefined;
  const joined = shape.map((size, i) => (i === axis ? tensors.reduce((sum, tensor) => sum + tensor.shape[axis]!, 0) : size));
  const outer = elementCount(shape.slice(0, axis));
  return makeLazyOnnxTensor(dtype, joined, async () => {
    const out = new Uint8Array(elementCount(joined) * width);
    const stride = out.byteLength / Math.max(1, outer);
    let offset = 0;
    for (const tensor of tensors) {
      const bytes = await tensor.read();
      const run = bytes.byteLength / Math.max(1, outer);
      for (let i = 0; i < outer; i++) out.set(bytes.subarray(i * run, (i + 1) * run), i * stride + offset);
      offset += run;
    }
    return out;
  });
}

function castTensor(tensor: OnnxTensor, id: number): OnnxTensor | undefined {
  const dtype = [...DATA_TYPES].find(([, known]) => known === id)?.[0];
  if (dtype === tensor.dtype) return tensor;
  if ((dtype !== "F32" && dtype !== "F16" && dtype !== "BF16" && dtype !== "F64") || !isReadableAsFloat(tensor.dtype)) return undefined;
  return makeLazyOnnxTensor(dtype, tensor.shape, async () => fromFloat32(await readFloat32(tensor), tensor.shape, dtype).bytes);
}

/** The tensor with its axes in another order; nothing for packed types. */
function transposeTensor(tensor: OnnxTensor, perm: readonly number[]): OnnxTensor | undefined {
  const width = onnxBits(tensor.dtype) / 8;
  const rank = tensor.shape.length;
  if (width < 1 || perm.length !== rank || new Set(perm).size !== rank || perm.some((axis) => axis < 0 || axis >= rank)) return undefined;
  const shape = perm.map((axis) => tensor.shape[axis]!);
  return mapTensor(tensor, { shape }, (bytes) => transposeBytes(bytes, tensor.shape, perm, width));
}

/** The shape that Reshape, Flatten, Squeeze or Unsqueeze gives; nothing when it does not hold the same elements. */
function reshaped(node: OnnxNode, shape: readonly number[], list: readonly number[] | undefined): readonly number[] | undefined {
  const count = elementCount(shape);
  let result: number[];
  if (node.op === "Flatten") {
    const axis = intAttribute(node, "axis", 1);
    const split = axis < 0 ? axis + shape.length : axis;
    result = [elementCount(shape.slice(0, split)), elementCount(shape.slice(split))];
  } else if (node.op === "Squeeze") {
    const axes = new Set(list?.map((axis) => (axis < 0 ? axis + shape.length : axis)));
    result = shape.filter((size, axis) => (list === undefined ? size !== 1 : !axes.has(axis)));
  } else if (list === undefined) return undefined;
  else if (node.op === "Unsqueeze") {
    const rank = shape.length + list.length;
    const axes = new Set(list.map((axis) => (axis < 0 ? axis + rank : axis)));
    const rest = shape.values();
    result = Array.from({ length: rank }, (_, axis) => (axes.has(axis) ? 1 : (rest.next().value ?? 0)));
  } else {
    const copies = intAttribute(node, "allowzero", 0) === 0;
    result = list.map((size, axis) => (size === 0 && copies ? (shape[axis] ?? 0) : size));
    const open = result.indexOf(-1);
    if (open !== -1) result[open] = count / elementCount(result.filter((_, axis) => axis !== open));
  }
  return elementCount(result) === count && result.every((size) => Number.isInteger(size) && size >= 0) ? result : undefined;
}
