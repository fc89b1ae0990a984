/**
 * Static form: QuantizeLinear and DequantizeLinear pairs with calibrated scales around operators, which runtimes fuse into integer ones.
 * @module
 */
import { roundHalfEven } from "../../../core/round.ts";
import { readFloat32 } from "../../../formats/containers/onnx/tensor.ts";
import type { OnnxNode } from "../../../formats/containers/onnx/model.ts";
import type { OnnxSite } from "../../../model/onnx/site.ts";
import { MICROSOFT } from "../edits.ts";
import { makeLazyParts } from "../lazy-parts.ts";
import { floats, integer, makeNode } from "../nodes.ts";
import type { OutputScales } from "../outputs.ts";
import type { ActivationScale } from "../scales.ts";
import type { TwinScale } from "../twin.ts";
import { DONE, floatAttribute, refuse, type RewriteContext, type RewriteOutcome } from "./context.ts";
import { correctBias } from "./correct-bias.ts";
import { baseName, dequantizeNode, storeAxisWeight, type AxisWeightScheme, type StoredWeight } from "./stored-weight.ts";
import { rewriteNBits, type NBitsScheme } from "./weight-only.ts";

/** How a site with constant activation scales is stored. */
export interface StaticScheme {
  readonly activationBits: 8 | 16;
  readonly weight: { readonly kind: "axis"; readonly scheme: AxisWeightScheme } | { readonly kind: "nbits"; readonly scheme: NBitsScheme };
}

/** First opsets of QuantizeLinear with 8 and with 16 bits. */
const QUANTIZE_OPSET = { 8: 10, 16: 21 } as const;

/**
 * The pair behind a value, one for all its readers.
 *
 * @returns name of the value rounded to its codes.
 */
export function quantizeValue(context: RewriteContext, path: string, value: string, { scale, zero, bits }: ActivationScale): string {
  const { edits } = context;
  return edits.share(["static", path, value], () => {
    const [codes, output] = [edits.fresh(`${value}_quantized`), edits.fresh(`${value}_dequantized`)];
    const scaleName = edits.constant(path, `${value}_scale`, floats([scale]));
    const zeroName = edits.constant(path, `${value}_zero_point`, integer(bits === 8 ? "U8" : "U16", zero));
    const domain = context.opset(path) >= QUANTIZE_OPSET[bits] ? "" : MICROSOFT;
    const nodes = [
      makeNode("QuantizeLinear", [value, scaleName, zeroName], [codes], {}, domain),
      makeNode("DequantizeLinear", [codes, scaleName, zeroName], [output], {}, domain),
    ];
    const producer = context.producer(path, value);
    if (producer === undefined) edits.before(path, 0, nodes);
    else edits.after(path, producer, nodes);
    return output;
  });
}

/**
 * The sum of both sides of a value, each rounded at its own step.
 *
 * @returns its name.
 */
export function quantizeTwin(context: RewriteContext, path: string, value: string, { negative, positive }: TwinScale): string {
  const { edits } = context;
  return edits.share(["twin", path, value], () => {
    const domain = context.opset(path) >= QUANTIZE_OPSET[8] ? "" : MICROSOFT;
    const name = (part: string): string => edits.fresh(`${value}_${part}`);
    const rounded = (
      side: string,
      part: string,
      { scale, zero }: ActivationScale,
    ): { readonly nodes: OnnxNode[]; readonly output: string } => {
      const [codes, output] = [name(`${part}_quantized`), name(`${part}_dequantized`)];
      const inputs = [
        edits.constant(path, `${value}_${part}_scale`, floats([scale])),
        edits.constant(path, `${value}_${part}_zero_point`, integer("U8", zero)),
      ];
      const nodes = [
        makeNode("QuantizeLinear", [side, ...inputs], [codes], {}, domain),
        makeNode("DequantizeLinear", [codes, ...inputs], [output], {}, domain),
      ];
      return { nodes, output };
    };
    const [above, below, output] = [name("above"), name("below"), name("twin")];
    const upper = rounded(above, "positive", positive);
    const lower = rounded(below, "negative", negative);
    const nodes = [
      makeNode("Relu", [value], [above]),
      makeNode("Sub", [value, above], [below]),
      ...upper.nodes,
      ...lower.nodes,
      makeNode("Add", [upper.output, lower.output], [output]),
    ];
    const producer = context.producer(path, value);
    if (producer === undefined) edits.before(path, 0, nodes);
    else edits.after(path, producer, nodes);
    return output;
  });
}

/** Codes for the results of sites and what follows them: every reader in the main graph gets the rounded value. */
export function quantizeOutputs(context: RewriteContext, outputs: OutputScales): void {
  for (const [value, root] of outputs) {
    const scale = context.scales.get(root);
    if (scale !== undefined) context.edits.rename("", value, quantizeValue(context, "", value, scale));
  }
}

/** MatMul, Gemm, Conv, ConvTranspose between pairs: codes of the input by its calibrated scale, of the weight, and of a bias in 32 bits. */
export function rewriteStatic(context: RewriteContext, site: OnnxSite, scheme: StaticScheme): RewriteOutcome {
  const { edits } = context;
  const { path, index, input, weight } = site;
  const range = context.scales.get(input);
  if (range === undefined) return refuse(`its input ${input} was not seen in calibration`);
  const twin = context.twins.get(input);
  const value = twin === undefined ? quantizeValue(context, path, input, range) : quantizeTwin(context, path, input, twin);
  if (scheme.weight.kind === "nbits") return rewriteNBits(context, site, scheme.weight.scheme, value);
  const opset = context.opset(path);
  const stored = storeAxisWeight(context, site, scheme.weight.scheme);
  const name = edits.share(["dequantized", path, stored.codes], () => {
    const output = edits.fresh(`${baseName(site)}_dequantized`);
    const node = dequantizeNode(stored, output, opset, 8, weight.tensor.dtype);
    if ("reason" in node) throw new TypeError(node.reason);
    edits.before(path, index, [node]);
    return output;
  });
  edits.read(path, index, site.node.inputs.indexOf(input), value);
  edits.read(path, index, weight.slot, name);
  // Behind two scales the product stays float, and so does its bias.
  const biased = stored.shiftTensor === undefined ? site : { ...site, bias: correctBias(context, site, stored.shiftTensor) };
  if (twin === undefined && holdsIntegerBias(biased)) quantizeBias(context, biased, stored, range);
  return DONE;
}

/** Whether the operator's fused form takes its bias as codes: those of a grouped ConvTranspose would not line up with its channels. */
function holdsIntegerBias(site: OnnxSite): boolean {
  const { op, bias, weight } = site;
  if (bias === undefined || (op !== "Gemm" && op !== "Conv")) return false;
  if (op === "Gemm" && (floatAttribute(site, "alpha", 1) !== 1 || floatAttribute(site, "beta", 1) !== 1)) return false;
  const { shape } = bias.tensor;
  return shape.length === 1 && shape[0] === weight.tensor.shape[weight.channelAxis] && bias.tensor.dtype === "F32";
}

/** Bias codes of 32 bits at scale (input scale · weight scale), channel by channel. */
function quantizeBias(context: RewriteContext, site: OnnxSite, weight: StoredWeight, { scale: step }: ActivationScale): void {
  const { edits } = context;
  const bias = site.bias!;
  const { path, index } = site;
  edits.abandon(bias);
  const count = bias.tensor.shape[0]!;
  const perChannel = weight.axis !== undefined;
  const scaleShape = perChannel ? [count] : [];
  const parts = makeLazyParts({ codes: { dtype: "I32", shape: [count] }, scale: { dtype: "F32", shape: scaleShape } }, async () => {
    const values = await readFloat32(bias.tensor);
    const scales = (await readFloat32(weight.scaleTensor)).map((scale) => scale * step);
    const codes = Int32Array.from(values, (value, i) => {
      const scale = scales[perChannel ? i : 0]!;
      return scale === 0 ? 0 : Math.max(-(2 ** 31), Math.min(2 ** 31 - 1, roundHalfEven(value / scale)));
    });
    return { codes: new Uint8Array(codes.buffer), scale: new Uint8Array(scales.buffer) };
  });
  const at = bias.source.path;
  const stored: StoredWeight = {
    codes: edits.constant(at, `${bias.value}_quantized`, parts.codes),
    scale: edits.constant(at, `${bias.value}_scale`, parts.scale),
    scaleTensor: parts.scale,
    ...(perChannel && { axis: 0 }),
  };
  const output = edits.fresh(`${bias.value}_dequantized`);
  const node = dequantizeNode(stored, output, context.opset(path), 8, "F32");
  if ("reason" in node) throw new TypeError(node.reason);
  edits.before(path, index, [node]);
  edits.read(path, index, bias.slot, output);
}
