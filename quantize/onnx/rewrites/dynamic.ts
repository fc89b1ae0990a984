/**
 * Dynamic form: activations become 8-bit codes when the model runs, weights are 8-bit codes on disk, and MatMulInteger multiplies them.
 * @module
 */
import type { OnnxNode } from "../../../formats/containers/onnx/model.ts";
import type { OnnxSite } from "../../../model/onnx/site.ts";
import { MICROSOFT } from "../edits.ts";
import { makeNode } from "../nodes.ts";
import { DONE, floatAttribute, matrixProblem, refuse, type RewriteContext, type RewriteOutcome } from "./context.ts";
import { storeAxisWeight, type StoredWeight } from "./stored-weight.ts";
import { tokenProduct, type TokenRange } from "./tokens.ts";
import { nodeName, withBias } from "./weight-only.ts";

/** How a product becomes an integer product. */
export interface DynamicScheme {
  /**
   * One scale an input, or one a token: slower, and what outliers of single tokens ask for. A token's codes lie around zero (`token`) or from
   * its least to its largest value (`token-range`).
   */
  readonly activation: "tensor" | "token" | "token-range";
  /** Scales a token: what the input never goes below, at most 0. */
  readonly floor?: number;
  readonly unsignedWeights: boolean;
  readonly perChannel: boolean;
  /** 7-bit weights, see {@link AxisWeightScheme}. */
  readonly reduced: boolean;
  /** Signed weights: see {@link AxisWeightScheme}; codes of tokens then end where no pair of products leaves 16 bits. */
  readonly pairSum?: number;
  readonly search: boolean;
}

/** First opset with DynamicQuantizeLinear. */
const DYNAMIC_OPSET = 11;
const MAX_CODE = 255;
/** Largest sum that 16 signed bits hold. */
const MAX_PAIR = 2 ** 15 - 1;

/**
 * MatMul, Gemm, FusedMatMul → DynamicQuantizeLinear, MatMulInteger, and the scales behind it: the graph that onnxruntime's own
 * quantize_dynamic writes and its optimizer fuses. Values that several sites read are quantized once. Activations are unsigned:
 * products of two signed factors are several times slower in onnxruntime.
 */
export function rewriteDynamic(context: RewriteContext, site: OnnxSite, scheme: DynamicScheme): RewriteOutcome {
  const problem = matrixProblem(site);
  if (problem !== undefined) return refuse(problem);
  if (site.weight.tensor.dtype !== "F32") return refuse(`its weight is ${site.weight.tensor.dtype}; DynamicQuantizeLinear takes F32 only`);
  const opset = context.opset(site.path);
  const perToken = scheme.activation !== "tensor";
  if (perToken && opset < DYNAMIC_OPSET) return refuse(`scales a token need opset ${DYNAMIC_OPSET}, the model has ${opset}`);
  const { edits } = context;
  const range = rangeOf(scheme);
  const stored = storeAxisWeight(
    context,
    site,
    {
      bits: 8,
      unsigned: scheme.unsignedWeights,
      symmetric: true,
      perChannel: scheme.perChannel,
      search: scheme.search,
      reduced: scheme.reduced,
      asFactor: true,
      ...(scheme.pairSum !== undefined && !scheme.unsignedWeights && { pairSum: scheme.pairSum }),
      ...(perToken && range.kind === "full" && { sums: true }),
    },
    floatAttribute(site, "alpha", 1),
  );
  const { nodes: bias, product } = withBias(context, site);
  if (opset < DYNAMIC_OPSET) {
    const inputs = [site.input, stored.codes, stored.scale, ...(stored.zero === undefined ? [] : [stored.zero])];
    edits.replace(site.path, site.index, [
      { ...makeNode("DynamicQuantizeMatMul", inputs, [product], {}, MICROSOFT), name: nodeName(site) },
      ...bias,
    ]);
    return DONE;
  }
  const nodes = perToken
    ? tokenProduct(context, site, stored, { range, top: topCode(scheme), output: product })
    : integerProduct(context, site, quantizeTensor(context, site), stored, product);
  edits.replace(site.path, site.index, [...nodes, ...bias]);
  return DONE;
}

function rangeOf({ activation, floor }: DynamicScheme): TokenRange {
  if (activation !== "token-range") return { kind: "symmetric" };
  return floor === undefined ? { kind: "full" } : { kind: "above", floor };
}

function topCode({ unsignedWeights, pairSum }: DynamicScheme): number {
  return unsignedWeights || pairSum === undefined ? MAX_CODE : Math.min(MAX_CODE, Math.floor(MAX_PAIR / pairSum));
}

interface QuantizedInput {
  readonly codes: string;
  readonly scale: string;
  readonly zero: string;
}

function quantizeTensor({ edits }: RewriteContext, { path, index, input }: OnnxSite): QuantizedInput {
  return edits.share(["dynamic", path, input], () => {
    const names = {
      codes: edits.fresh(`${input}_quantized`),
      scale: edits.fresh(`${input}_scale`),
      zero: edits.fresh(`${input}_zero_point`),
    };
    edits.before(path, index, [makeNode("DynamicQuantizeLinear", [input], [names.codes, names.scale, names.zero])]);
    return names;
  });
}

/** MatMulInteger → Cast → · (activation scale · weight scale). */
function integerProduct(
  { edits }: RewriteContext,
  site: OnnxSite,
  input: QuantizedInput,
  weight: StoredWeight,
  product: string,
): readonly OnnxNode[] {
  const { output } = site;
  const [sums, wide, scale] = ["integer", "float", "scales"].map((part) => edits.fresh(`${output}_${part}`)) as [string, string, string];
  const inputs = [input.codes, weight.codes, input.zero, ...(weight.zero === undefined ? [] : [weight.zero])];
  return [
    { ...makeNode("MatMulInteger", inputs, [sums]), name: nodeName(site) },
    makeNode("Cast", [sums], [wide], { to: 1 }),
    makeNode("Mul", [input.scale, weight.scale], [scale]),
    makeNode("Mul", [wide, scale], [product]),
  ];
}
