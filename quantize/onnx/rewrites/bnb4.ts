/**
 * MatMulBnb4: NF4 weights in blocks of 64 with one f32 scale each, as bitsandbytes has them (QLoRA, Dettmers et al. 2023, appendix E).
 * @module
 */
import type { OnnxModel } from "../../../formats/containers/onnx/model.ts";
import { readFloat32 } from "../../../formats/containers/onnx/tensor.ts";
import type { OnnxSite } from "../../../model/onnx/site.ts";
import { findOnnxSites } from "../../../model/onnx/sites.ts";
import { MICROSOFT } from "../edits.ts";
import { makeLazyParts } from "../lazy-parts.ts";
import { makeNode } from "../nodes.ts";
import { rowLayout, toRows } from "../row-codes.ts";
import { DONE, floatAttribute, matrixProblem, refuse, RewriteContext, type RewriteOutcome } from "./context.ts";
import { baseName, scaleBytes } from "./stored-weight.ts";
import { nodeName, withBias } from "./weight-only.ts";

/** Quantiles of a normal distribution over [-1, 1], zero among them. */
const NF4: readonly number[] = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0,
  0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
  0.7229568362236023, 1,
];
/** Between neighbouring levels. */
const LIMITS = NF4.slice(1).map((level, i) => (level + NF4[i]!) / 2);
const BLOCK = 64;
const QUANT_TYPE_NF4 = 1;

/** Every linear site of a model as MatMulBnb4; others stay as they are. */
export function quantizeToBnb4(model: OnnxModel): OnnxModel {
  const context = new RewriteContext(model);
  for (const site of findOnnxSites(model)) if (site.kind === "linear") rewriteBnb4(context, site);
  return context.edits.apply();
}

/** One site. The rows [N, K] are cut into blocks as one run of values, the last filled with zeros. */
export function rewriteBnb4(context: RewriteContext, site: OnnxSite): RewriteOutcome {
  const problem = matrixProblem(site);
  if (problem !== undefined) return refuse(problem);
  if (site.weight.tensor.dtype !== "F32" && site.weight.tensor.dtype !== "F16") return refuse(`its weight is ${site.weight.tensor.dtype}`);
  const { edits } = context;
  const { weight } = site;
  const layout = rowLayout(weight.tensor.shape, weight.channelAxis);
  const count = layout.rows * layout.cols;
  const blocks = Math.ceil(count / BLOCK);
  const alpha = floatAttribute(site, "alpha", 1);
  edits.abandon(weight);
  const names = edits.share(["bnb4", weight.source.path, weight.value, weight.channelAxis, alpha], () => {
    const half = weight.tensor.dtype === "F16";
    const parts = makeLazyParts(
      { codes: { dtype: "U8", shape: [Math.ceil(count / 2)] }, scales: { dtype: weight.tensor.dtype, shape: [blocks] } },
      async () => {
        const { codes, scales } = encodeNf4(toRows(await readFloat32(weight.tensor), layout), blocks);
        const scaled = scales.map((scale) => scale * alpha);
        return { codes, scales: half ? scaleBytes(scaled, "F16", 1) : new Uint8Array(scaled.buffer) };
      },
    );
    return {
      codes: edits.constant(weight.source.path, `${baseName(site)}_Bnb4`, parts.codes),
      scales: edits.constant(weight.source.path, `${baseName(site)}_absmax`, parts.scales),
    };
  });
  const { nodes, product } = withBias(context, site);
  const attributes = { K: layout.cols, N: layout.rows, block_size: BLOCK, quant_type: QUANT_TYPE_NF4 };
  const node = makeNode("MatMulBnb4", [site.input, names.codes, names.scales], [product], attributes, MICROSOFT);
  edits.replace(site.path, site.index, [{ ...node, name: nodeName(site) }, ...nodes]);
  return DONE;
}

/** Codes two a byte, the first in the high bits, and the largest magnitude of each block. */
export function encodeNf4(
  values: Float32Array,
  blocks: number = Math.ceil(values.length / BLOCK),
): { readonly codes: Uint8Array; readonly scales: Float32Array } {
  const codes = new Uint8Array(Math.ceil(values.length / 2));
  const scales = new Float32Array(blocks);
  for (let block = 0; block < blocks; block++) {
    const [from, to] = [block * BLOCK, Math.min(values.length, (block + 1) * BLOCK)];
    let largest = 0;
    for (let i = from; i < to; i++) largest = Math.max(largest, Math.abs(values[i]!));
    scales[block] = largest;
    const inverse = largest === 0 ? 0 : Math.fround(1 / largest);
    for (let i = from; i < to; i++) codes[i >> 1]! |= nearest(Math.fround(values[i]! * inverse)) << (i % 2 === 0 ? 4 : 0);
  }
  return { codes, scales };
}

/** Code of the nearest level; of two equally near the lower. */
function nearest(x: number): number {
  let code = 0;
  for (let step = 8; step > 0; step >>= 1) if (x > LIMITS[code + step - 1]!) code += step;
  return code;
}
