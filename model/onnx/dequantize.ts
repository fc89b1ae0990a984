/**
 * DequantizeLinear of constants: (x - zero) · scale, per tensor, per axis or in blocks.
 * @module
 */
import { elementCount } from "../../core/dtype.ts";
import { fromFloat32 } from "../../core/tensor.ts";
import { isReadableAsFloat, makeLazyOnnxTensor, readFloat32, type OnnxTensor } from "../../formats/containers/onnx/tensor.ts";

/**
 * The dequantized tensor, in the type of `scale`, computed when it is read (ONNX, DequantizeLinear-21).
 *
 * @param blockSize - 0 = no blocks.
 * @returns nothing when shapes or types do not fit.
 */
export function dequantize(
  tensor: OnnxTensor,
  scale: OnnxTensor,
  zero: OnnxTensor | undefined,
  axis: number,
  blockSize: number,
): OnnxTensor | undefined {
  const { shape } = tensor;
  const { dtype } = scale;
  if (dtype !== "F32" && dtype !== "F16" && dtype !== "BF16") return undefined;
  if (
    !isReadableAsFloat(tensor.dtype) ||
    (zero !== undefined && (!isReadableAsFloat(zero.dtype) || zero.shape.join() !== scale.shape.join()))
  ) {
    return undefined;
  }
  const at = axis < 0 ? axis + shape.length : axis;
  const indexOf = scaleIndex(shape, scale.shape, at, blockSize);
  if (indexOf === undefined) return undefined;
  return makeLazyOnnxTensor(dtype, shape, async () => {
    const [codes, scales] = [await readFloat32(tensor), await readFloat32(scale)];
    const zeros = zero === undefined ? undefined : await readFloat32(zero);
    for (let i = 0; i < codes.length; i++) {
      const index = indexOf(i);
      codes[i] = (codes[i]! - (zeros?.[index] ?? 0)) * scales[index]!;
    }
    return fromFloat32(codes, shape, dtype).bytes;
  });
}

/** Which scale goes with element `i`. */
function scaleIndex(
  shape: readonly number[],
  scales: readonly number[],
  axis: number,
  blockSize: number,
): ((i: number) => number) | undefined {
  if (elementCount(scales) === 1) return () => 0;
  const size = shape[axis];
  if (size === undefined) return undefined;
  const inner = elementCount(shape.slice(axis + 1));
  if (blockSize === 0) return scales.length === 1 && scales[0] === size ? (i) => Math.floor(i / inner) % size : undefined;
  const blocks = Math.ceil(size / blockSize);
  const expected = shape.map((length, k) => (k === axis ? blocks : length));
  if (expected.join() !== scales.join()) return undefined;
  return (i) => {
    const [outer, rest] = [Math.floor(i / (inner * size)), i % (inner * size)];
    return (outer * blocks + Math.floor(Math.floor(rest / inner) / blockSize)) * inner + (rest % inner);
  };
}
