/**
 * Bias correction: what rounding a convolution's weight does to the mean of its outputs is taken off its bias (Nagel et al. 2019, section 4.2).
 * @module
 */
import { makeLazyOnnxTensor, readFloat32, type OnnxTensor } from "../../../formats/containers/onnx/tensor.ts";
import type { OnnxConstant, OnnxSite } from "../../../model/onnx/site.ts";
import type { Moments } from "../conv-moments.ts";
import { rowLayout, type RowCodes, type RowLayout } from "../row-codes.ts";
import type { RewriteContext } from "./context.ts";

/** How much each weight of a row matters to the squared error of its output; nothing where rows differ in what they read. */
export function importanceOf({ square }: Moments, { groups, weight }: OnnxSite, { cols }: RowLayout): Float32Array | undefined {
  if (groups !== 1) return undefined;
  const taps = cols / weight.tensor.shape[1]!;
  return Float32Array.from({ length: cols }, (_, k) => square[Math.floor(k / taps)]!);
}

/**
 * Expected change of each output channel: Σ (ŵ - w) · mean of what meets it.
 *
 * @param values - rows of the weight, shape [rows, cols].
 * @param codes - of all rows; one scale each, or one for all.
 */
export function expectedShift(values: Float32Array, { codes, scales, zeros }: RowCodes, site: OnnxSite, { mean }: Moments): Float32Array {
  const { rows, cols } = rowLayout(site.weight.tensor.shape, 0);
  const perGroup = site.weight.tensor.shape[1]!;
  const taps = cols / perGroup;
  const rowsOfGroup = rows / site.groups;
  return Float32Array.from({ length: rows }, (_, row) => {
    const at = scales.length === 1 ? 0 : row;
    const first = Math.floor(row / rowsOfGroup) * perGroup;
    let shift = 0;
    for (let k = 0; k < cols; k++) {
      const i = row * cols + k;
      shift += ((codes[i]! - zeros[at]!) * scales[at]! - values[i]!) * mean[first + Math.floor(k / taps)]!;
    }
    return shift;
  });
}

/** The site reads its bias less `shift`; one without a bias gets one. @returns the new bias. */
export function correctBias(context: RewriteContext, site: OnnxSite, shift: OnnxTensor): OnnxConstant & { readonly slot: number } {
  const { edits } = context;
  const { bias, weight, path } = site;
  const tensor = makeLazyOnnxTensor("F32", shift.shape, async () => {
    const shifts = await readFloat32(shift);
    const values = bias === undefined ? new Float32Array(shifts.length) : await readFloat32(bias.tensor);
    const corrected = values.map((value, c) => value - shifts[c]!);
    return new Uint8Array(corrected.buffer);
  });
  if (bias !== undefined) edits.abandon(bias);
  const value = edits.constant(path, `${bias?.value ?? weight.value}_corrected`, tensor);
  edits.read(path, site.index, 2, value);
  return { tensor, value, stored: tensor, source: { kind: "initializer", name: value, path }, chain: [], isDequantized: false, slot: 2 };
}
