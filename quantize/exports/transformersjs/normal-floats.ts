/**
 * NF4 weights behind com.microsoft::MatMulBnb4, the form of bitsandbytes (QLoRA, arXiv 2305.14314, appendix E):
 * 16 levels at quantiles of the normal distribution, one absolute maximum a block of 64 weights.
 * @module
 */
import { readFloat32 } from "../../../formats/containers/onnx/tensor.ts";
import type { OnnxSite } from "../../../model/onnx/site.ts";
import { makeLazyParts } from "../../onnx/lazy-parts.ts";
import { makeNode } from "../../onnx/nodes.ts";
import { DONE, floatAttribute, matrixProblem, refuse, type RewriteContext, type RewriteOutcome } from "../../onnx/rewrites/context.ts";
import { nodeName, withBias } from "../../onnx/rewrites/weight-only.ts";

const LEVELS = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0,
  0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
  0.7229568362236023, 1,
];
/** Between neighbouring levels. */
const LIMITS = LEVELS.slice(1).map((level, i) => (level + LEVELS[i]!) / 2);
const BLOCK = 64;
const NF4 = 1;

/**
 * MatMul or Gemm → MatMulBnb4. Weights lie as [outputs, inputs]; blocks run on over the ends of rows, two codes a byte with the first above.
 */
export function rewriteNormalFloats(context: RewriteContext, site: OnnxSite): RewriteOutcome {
  const { weight, path, index, input } = site;
  const problem = matrixProblem(site);
  if (problem !== undefined) return refuse(problem);
  if (floatAttribute(site, "alpha", 1) !== 1) return refuse("its alpha is not 1");
  const { edits } = context;
  const rows = weight.tensor.shape[weight.channelAxis]!;
  const cols = weight.tensor.shape[1 - weight.channelAxis]!;
  const count = rows * cols;
  edits.abandon(weight);
  const names = edits.share(["nf4", weight.source.path, weight.value, weight.channelAxis], () => {
    const specs = {
      codes: { dtype: "U8", shape: [Math.ceil(count / 2)] },
      absmax: { dtype: "F32", shape: [Math.ceil(count / BLOCK)] },
    } as const;
    const parts = makeLazyParts(specs, async () => {
      const values = await readFloat32(weight.tensor);
      return encodeNormalFloats(weight.channelAxis === 0 ? values : transposed(values, cols, rows));
    });
    return {
      codes: edits.constant(weight.source.path, `${weight.value}_Bnb4`, parts.codes),
      absmax: edits.constant(weight.source.path, `${weight.value}_absmax`, parts.absmax),
    };
  });
  const { nodes, product } = withBias(context, site);
  const attributes = { K: cols, N: rows, block_size: BLOCK, quant_type: NF4 };
  const node = makeNode("MatMulBnb4", [input, names.codes, names.absmax], [product], attributes, "com.microsoft");
  edits.replace(path, index, [{ ...node, name: nodeName(site) }, ...nodes]);
  return DONE;
}

/** Codes two a byte, the first in the high half, and the largest magnitude of each block. */
export function encodeNormalFloats(values: Float32Array): { readonly codes: Uint8Array; readonly absmax: Uint8Array } {
  const codes = new Uint8Array(Math.ceil(values.length / 2));
  const absmax = new Float32Array(Math.ceil(values.length / BLOCK));
  for (let block = 0; block < absmax.length; block++) {
    const end = Math.min(values.length, (block + 1) * BLOCK);
    let largest = 0;
    for (let i = block * BLOCK; i < end; i++) largest = Math.max(largest, Math.abs(values[i]!));
    absmax[block] = largest;
    const factor = largest === 0 ? 0 : 1 / largest;
    for (let i = block * BLOCK; i < end; i++) codes[i >> 1]! |= nearest(values[i]! * factor) << (i % 2 === 0 ? 4 : 0);
  }
  return { codes, absmax: new Uint8Array(absmax.buffer) };
}

/** Index of the nearest level. */
function nearest(x: number): number {
  let code = 0;
  for (let step = 8; step > 0; step >>= 1) if (x > LIMITS[code + step - 1]!) code += step;
  return code;
}

function transposed(values: Float32Array, rows: number, cols: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) for (let col = 0; col < cols; col++) out[col * rows + row] = values[row * cols + col]!;
  return out;
}
