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
  const nodes =
    scheme.activation === "token"
      ? tokenProduct(context, site, quantizeTokens(context, site, opset), stored, product)
      : integerProduct(context, site, quantizeTensor(context, site), stored, product);
  edits.replace(site.path, site.index, [...nodes, ...bias]);
  return DONE;
}

interface QuantizedInput {
  readonly codes: string;
  readonly scale: string;
  readonly zero: string;
}

interface TokenInput extends QuantizedInput {
  /** Constant 1. */
  readonly one: string;
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

/** u8 codes around 128, scale max|x| / 127 of each token; the rounding itself is left to a QuantizeLinear of scale 1. */
function quantizeTokens({ edits }: RewriteContext, { path, index, input }: OnnxSite, opset: number): TokenInput {
  return edits.share(["tokens", path, input], () => {
    const constants = edits.share(["token constants", path], () => ({
      zero: edits.constant(path, "token_zero_point", integer("U8", 128)),
      levels: edits.constant(path, "token_levels", floats([127])),
      floor: edits.constant(path, "token_floor", floats([2 ** -100])),
      one: edits.constant(path, "token_one", floats([1])),
      axes: opset >= REDUCE_INPUT_OPSET ? edits.constant(path, "token_axes", int64s([-1])) : undefined,
    }));
    const name = (part: string): string => edits.fresh(`${input}_${part}`);
    const [high, low, negative, held] = [name("high"), name("low"), name("negative"), name("held")];
    const [inverse, scale, spread, codes] = [name("inverse"), name("token_scale"), name("spread"), name("quantized")];
    const reduce = (op: string, output: string): OnnxNode =>
      constants.axes === undefined
        ? makeNode(op, [input], [output], { axes: [-1], keepdims: 1 })
        : makeNode(op, [input, constants.axes], [output], { keepdims: 1 });
    edits.before(path, index, [
      reduce("ReduceMax", high),
      reduce("ReduceMin", low),
      makeNode("Neg", [low], [negative]),
      // A token of zeros must not be divided by zero.
      makeNode("Max", [high, negative, constants.floor], [held]),
      makeNode("Div", [constants.levels, held], [inverse]),
      makeNode("Div", [held, constants.levels], [scale]),
      makeNode("Mul", [input, inverse], [spread]),
      makeNode("QuantizeLinear", [spread, constants.one, constants.zero], [codes]),
    ]);
    return { codes, scale, zero: constants.zero, one: constants.one };
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

/**
 * com.microsoft::MatMulIntegerToFloat with activation scale 1 → · scale of each token. (MatMulInteger, Cast and Mul with a scale a
 * token would be fused to the same operator with the first token's scale for all.)
 */
function tokenProduct(
  { edits }: RewriteContext,
  site: OnnxSite,
  input: TokenInput,
  weight: StoredWeight,
  product: string,
): readonly OnnxNode[] {
  const unscaled = edits.fresh(`${site.output}_unscaled`);
  const inputs = [input.codes, weight.codes, input.one, weight.scale, input.zero, ...(weight.zero === undefined ? [] : [weight.zero])];
  return [
    { ...makeNode("MatMulIntegerToFloat", inputs, [unscaled], {}, MICROSOFT), name: nodeName(site) },
    makeNode("Mul", [unscaled, input.scale], [product]),
  ];
}
