/**
 * Codes and scales back to weights: w = (code − zero) · scale, in f32.
 * @module
 */
import { FormatError } from "../../core/errors.ts";
import { decodeFloat, FLOAT_FORMATS } from "../../core/float.ts";
import type { QuantizedTensor } from "../../core/quantized.ts";
import { scaleShape } from "../../core/scheme.ts";

/**
 * Dequantize a matrix [rows, cols].
 *
 * The difference is an integer, the product is rounded once to f32.
 *
 * @param groups - group of each column, for files whose columns were reordered; each in [0, groups of a row).
 * @throws {FormatError} `format.field` for a group out of range.
 */
export function dequantize(
  quantized: Pick<QuantizedTensor, "scheme" | "codes" | "scales" | "zeros">,
  rows: number,
  cols: number,
  groups?: ArrayLike<number>,
): Float32Array {
  const { scheme, codes, scales, zeros } = quantized;
  const { granularity, format } = scheme;
  const values = codeValues(format.kind === "float" ? format.format : undefined);
  const data = codes.data;
  const [blockRows, blockCols] = blockOf(granularity, rows, cols);
  const scaleCols = scaleShape(granularity, rows, cols)[1] ?? 1;
  const columnGroup = new Uint32Array(cols);
  for (let c = 0; c < cols; c++) {
    const group = groups === undefined ? Math.floor(c / blockCols) : groups[c]!;
    if (!(group >= 0 && group < scaleCols)) {
      throw new FormatError("format.field", `weight_g_idx says group ${group} for column ${c}; there are ${scaleCols} groups`, {
        column: c,
        group,
      });
    }
    columnGroup[c] = group;
  }
  const out = new Float32Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    const scaleRow = Math.floor(r / blockRows) * scaleCols;
    const row = r * cols;
    for (let c = 0; c < cols; c++) {
      const at = scaleRow + columnGroup[c]!;
      const code = values === undefined ? data[row + c]! : values[data[row + c]!]!;
      out[row + c] = (zeros === undefined ? code : code - zeros[at]!) * scales[at]!;
    }
  }
  return out;
}

/** Values of all codes of a float format; undefined for integers, which are their own value. */
function codeValues(name: keyof typeof FLOAT_FORMATS | undefined): Float32Array | undefined {
  if (name === undefined) return undefined;
  return Float32Array.from({ length: 256 }, (_, code) => decodeFloat(FLOAT_FORMATS[name], code));
}

/** Rows and columns that share one scale. */
function blockOf(granularity: QuantizedTensor["scheme"]["granularity"], rows: number, cols: number): readonly [number, number] {
  switch (granularity.kind) {
    case "tensor":
      return [rows, cols];
    case "channel":
    case "token":
      return [1, cols];
    case "group":
      return [1, granularity.size];
    case "block":
      return [granularity.rows, granularity.cols];
    default:
      return granularity satisfies never;
  }
}
