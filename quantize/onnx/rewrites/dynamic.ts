/**
 * Dynamic form: activations become 8-bit codes when the model runs, weights are 8-bit codes on disk, and MatMulInteger multiplies them.
 * @module
 */
import type { OnnxNode } from "../../../formats/containers/onnx/model.ts";
import type { OnnxSite } from "../../../model/onnx/site.ts";
import { MICROSOFT } from "../edits.ts";
import { floats, integer, int64s, makeNode } from "../nodes.ts";
import { DONE, floatAttribute, matrixProblem, refuse, type RewriteContext, type RewriteOutcome } from "./context.ts";
import { storeAxisWeight, type StoredWeight } from "./stored-weight.ts";
import { nodeName, withBias } from "./weight-only.ts";

/** How a product becomes an integer product. */
export interface DynamicScheme {
  /** One scale an input, or one a token: slower, and what outliers of single tokens ask for. */
  readonly activation: "tensor" | "token";
  readonly unsignedWeights: boolean;
  readonly perChannel: boolean;
  /** 7-bit weights, see {@link AxisWeightScheme}. */
  readonly reduced: boolean;
  readonly search: boolean;
}

/** First opset with DynamicQuantizeLinear. */
const DYNAMIC_OPSET = 11;
/** Reduce operators take their axes as an input from here on (ReduceMax; ReduceSum did earlier). */
const REDUCE_INPUT_OPSET = 18;

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
  if (scheme.activation === "token" && opset < DYNAMIC_OPSET)
    return refuse(`scales a token need opset ${DYNAMIC_OPSET}, the model has ${opset}`);
  const { edits } = context;
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
  const input = scheme.activation === "token" ? quantizeTokens(context, site, opset) : quantizeTensor(context, site);
  edits.replace(site.path, site.index, [...integerProduct(context, site, input, stored, product), ...bias]);
  return DONE;
}

interface QuantizedInput {
  readonly codes: string;
  readonly scale: string;
  readonly zero: string;
  readonly perToken: boolean;
}

function quantizeTensor({ edits }: RewriteContext, { path, index, input }: OnnxSite): QuantizedInput {
  return edits.share(["dynamic", path, input], () => {
    const names = {
      codes: edits.fresh(`${input}_quantized`),
      scale: edits.fresh(`${input}_scale`),
      zero: edits.fresh(`${input}_zero_point`),
      perToken: false,
    };
    edits.before(path, index, [makeNode("DynamicQuantizeLinear", [input], [names.codes, names.scale, names.zero])]);
    return names;
  });
}

/** u8 codes around 128, scale max|x| / 127 of each token. */
function quantizeTokens({ edits }: RewriteContext, { path, index, input }: OnnxSite, opset: number): QuantizedInput {
  return edits.share(["tokens", path, input], () => {
    const constants = edits.share(["token constants", path], () => ({
      zero: edits.constant(path, "token_zero_point", integer("U8", 128)),
      offset: edits.constant(path, "token_offset", floats([128])),
      levels: edits.constant(path, "token_levels", floats([127])),
      floor: edits.constant(path, "token_floor", floats([2 ** -100])),
      axes: opset >= REDUCE_INPUT_OPSET ? edits.constant(path, "token_axes", int64s([-1])) : undefined,
    }));
    const name = (part: string): string => edits.fresh(`${input}_${part}`);
    const [size, largest, held, scale, quotient, whole, shifted, codes] = [
      "size",
      "largest",
      "held",
      "scale",
      "quotient",
      "whole",
      "shifted",
      "quantized",
    ].map(name) as [string, string, string, string, string, string, string, string];
    const reduce =
      constants.axes === undefined
        ? makeNode("ReduceMax", [size], [largest], { axes: [-1], keepdims: 1 })
        : makeNode("ReduceMax", [size, constants.axes], [largest], { keepdims: 1 });
    edits.before(path, index, [
      makeNode("Abs", [input], [size]),
      reduce,
      // A token of zeros must not be divided by zero.
      makeNode("Max", [largest, constants.floor], [held]),
      makeNode("Div", [held, constants.levels], [scale]),
      makeNode("Div", [input, scale], [quotient]),
      makeNode("Round", [quotient], [whole]),
      makeNode("Add", [whole, constants.offset], [shifted]),
      makeNode("Cast", [shifted], [codes], { to: 2 }),
    ]);
    return { codes, scale, zero: constants.zero, perToken: true };
  });
}

/**
 * MatMulInteger → Cast → · (activation scale · weight scale). Scales a token are multiplied one after the other: onnxruntime
 * fuses the product of both into MatMulIntegerToFloat, which reads one activation scale only.
 */
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
  const start = [{ ...makeNode("MatMulInteger", inputs, [sums]), name: nodeName(site) }, makeNode("Cast", [sums], [wide], { to: 1 })];
  if (input.perToken) return [...start, makeNode("Mul", [wide, weight.scale], [scale]), makeNode("Mul", [scale, input.scale], [product])];
  return [...start, makeNode("Mul", [input.scale, weight.scale], [scale]), makeNode("Mul", [wide, scale], [product])];
}
