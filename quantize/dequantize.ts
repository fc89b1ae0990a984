/**
 * Codes → weights, as every reader of the artifact computes them: (code − zero) · scale in f32.
 * @module
 */
import { blockFormatOf } from "../core/blocks/format.ts";
import { dequantizeBlocks } from "../core/blocks/quantize.ts";
import { UnsupportedError } from "../core/errors.ts";
import { decodeFloat, FLOAT_FORMATS } from "../core/float.ts";
import type { QuantizedTensor } from "../core/quantized.ts";

/**
 * @param tensor - a matrix [rows, cols] with scales a tensor, a channel or a group of columns; channelAxis 0.
 * @param out - receives the weights, row-major; default: fresh.
 * @returns `out`.
 * @throws {UnsupportedError} `unsupported.scheme` for packed codes, tiles and other axes.
 */
export function dequantize(
  tensor: QuantizedTensor,
  out: Float32Array = new Float32Array(tensor.shape.reduce((product, size) => product * size, 1)),
): Float32Array {
  const { shape, channelAxis, scheme, codes, scales, zeros } = tensor;
  if (blockFormatOf(scheme) !== undefined) {
    out.set(dequantizeBlocks(tensor));
    return out;
  }
  const { format, granularity } = scheme;
  if (codes.kind === "packed" || channelAxis !== 0 || granularity.kind === "block" || shape.length !== 2) {
    throw new UnsupportedError("unsupported.scheme", "dequantize takes unpacked matrices with scales along rows", { scheme, shape });
  }
  const [rows, cols] = [shape[0]!, shape[1]!];
  const size = granularity.kind === "group" ? granularity.size : cols;
  const table =
    format.kind === "float" ? Float32Array.from({ length: 256 }, (_, code) => decodeFloat(FLOAT_FORMATS[format.format], code)) : undefined;
  const { data } = codes;
  for (let row = 0, i = 0, run = 0; row < rows; row++) {
    for (let first = 0; first < cols; first += size, run++) {
      const index = granularity.kind === "tensor" ? 0 : run;
      const scale = scales[index]!;
      const zero = zeros?.[index] ?? 0;
      const end = i + Math.min(size, cols - first);
      if (table === undefined) for (; i < end; i++) out[i] = (data[i]! - zero) * scale;
      else for (; i < end; i++) out[i] = table[data[i]!]! * scale;
    }
  }
  return out;
}
