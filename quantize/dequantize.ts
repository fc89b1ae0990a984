/**
 * Codes → weights, as every reader of the artifact computes them: (code − zero) · scale in f32.
 * @module
 */
import { UnsupportedError } from "../core/errors.ts";
import { decodeFloat, FLOAT_FORMATS } from "../core/float.ts";
import type { QuantizedTensor } from "../core/quantized.ts";

/**
 * @param tensor - a matrix [rows, cols] with scales a tensor, a channel or a group of columns; channelAxis 0.
 * @returns row-major f32, fresh.
 * @throws {UnsupportedError} `unsupported.scheme` for packed codes, tiles and other axes.
 */
export function dequantize({ shape, channelAxis, scheme, codes, scales, zeros }: QuantizedTensor): Float32Array {
  const { format, granularity } = scheme;
  if (codes.kind === "packed" || channelAxis !== 0 || granularity.kind === "block" || shape.length !== 2) {
    throw new UnsupportedError("unsupported.scheme", "dequantize takes unpacked matrices with scales along rows", { scheme, shape });
  }
  const [rows, cols] = [shape[0]!, shape[1]!];
  const size = granularity.kind === "group" ? granularity.size : cols;
  const groups = Math.ceil(cols / size);
  const table =
    format.kind === "float" ? Float32Array.from({ length: 256 }, (_, code) => decodeFloat(FLOAT_FORMATS[format.format], code)) : undefined;
  const out = new Float32Array(rows * cols);
  for (let row = 0, i = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++, i++) {
      const group = granularity.kind === "tensor" ? 0 : row * groups + Math.floor(col / size);
      const code = codes.data[i]!;
      out[i] = (table === undefined ? code - (zeros?.[group] ?? 0) : table[code]!) * scales[group]!;
    }
  }
  return out;
}
