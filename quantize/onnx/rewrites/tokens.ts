/**
 * Activations that become 8-bit codes with one scale a token, when the model runs, and the products with them.
 * @module
 */
import type { OnnxNode } from "../../../formats/containers/onnx/model.ts";
import type { OnnxSite } from "../../../model/onnx/site.ts";
import { MICROSOFT } from "../edits.ts";
import { floats, integer, int64s, makeNode } from "../nodes.ts";
import type { RewriteContext } from "./context.ts";
import type { StoredWeight } from "./stored-weight.ts";
import { nodeName } from "./weight-only.ts";

/** Where the codes of a token lie. */
export type TokenRange =
  /** Around 128, scale max|x| / 127. */
  | { readonly kind: "symmetric" }
  /** From the token's least value to its largest. */
  | { readonly kind: "full" }
  /** From `floor` (at most 0), which the operator in front promises, to the token's largest value. */
  | { readonly kind: "above"; readonly floor: number };

/** Reduce operators take their axes as an input from here on (ReduceMax; ReduceSum did earlier). */
const REDUCE_INPUT_OPSET = 18;
/** Smallest step: a token of equal values must not be divided by zero. */
const MIN_STEP = 2 ** -100;
/** Share of the codes that lies below zero when `floor` does: 16 of 255. */
const BELOW_ZERO = 16 / 255;

interface TokenCodes {
  readonly codes: string;
  /** Step of each token. */
  readonly step: string;
  /** Scalar; absent: code 0 is the token's `low`. */
  readonly zero?: string;
  readonly low?: string;
  /** Constant 1. */
  readonly one: string;
}

/**
 * Nodes of a product with one activation scale a token.
 *
 * @param top - largest code: 255, or less where pairs of products with signed weights must fit 16 bits.
 */
export function tokenProduct(
  context: RewriteContext,
  site: OnnxSite,
  weight: StoredWeight,
  { range, top, output }: { readonly range: TokenRange; readonly top: number; readonly output: string },
): readonly OnnxNode[] {
  const { edits } = context;
  const input = edits.share(["tokens", site.path, site.input, range, top], () => quantizeTokens(context, site, range, top));
  const name = (part: string): string => edits.fresh(`${site.output}_${part}`);
  const unscaled = name("unscaled");
  const zeros = weight.zero === undefined ? [] : [weight.zero];
  // MatMulInteger, Cast and Mul with a scale a token would be fused to this operator with the first token's scale for all.
  const zero = input.zero === undefined && zeros.length === 0 ? [] : [input.zero ?? ""];
  const inputs = [input.codes, weight.codes, input.one, weight.scale, ...zero, ...zeros];
  const product = { ...makeNode("MatMulIntegerToFloat", inputs, [unscaled], {}, MICROSOFT), name: nodeName(site) };
  if (input.low === undefined) return [product, makeNode("Mul", [unscaled, input.step], [output])];
  const [scaled, offset] = [name("scaled"), name("offset")];
  return [
    product,
    makeNode("Mul", [unscaled, input.step], [scaled]),
    makeNode("Mul", [input.low, weight.sums!], [offset]),
    makeNode("Add", [scaled, offset], [output]),
  ];
}

function quantizeTokens(context: RewriteContext, { path, index, input }: OnnxSite, range: TokenRange, top: number): TokenCodes {
  const { edits } = context;
  const constant = (base: string, value: number): string =>
    edits.share(["token constant", path, base, value], () => edits.constant(path, `token_${base}`, floats([value])));
  const code = (value: number): string =>
    edits.share(["token code", path, value], () => edits.constant(path, `token_code_${value}`, integer("U8", value)));
  const name = (part: string): string => edits.fresh(`${input}_${part}`);
  const reduce = reducer(context, path, input);
  const one = constant("one", 1);
  const floor = constant("least_step", MIN_STEP);
  const [codes, step, inverse, spread] = [name("quantized"), name("token_scale"), name("inverse"), name("spread")];
  const finish = (value: string, zero: number): readonly OnnxNode[] => [
    makeNode("Div", [one, step], [inverse]),
    makeNode("Mul", [value, inverse], [spread]),
    // The rounding itself, to the nearest code and half to even.
    makeNode("QuantizeLinear", [spread, one, code(zero)], [codes]),
  ];
  switch (range.kind) {
    case "symmetric": {
      const [high, low, negative, held] = [name("high"), name("low"), name("negative"), name("held")];
      const zero = Math.floor(top / 2) + 1;
      edits.before(path, index, [
        reduce("ReduceMax", high),
        reduce("ReduceMin", low),
        makeNode("Neg", [low], [negative]),
        makeNode("Max", [high, negative, floor], [held]),
        makeNode("Div", [held, constant("levels", top - zero)], [step]),
        ...finish(input, zero),
      ]);
      return { codes, step, zero: code(zero), one };
    }
    case "full": {
      const [high, low, span, share, above] = [name("high"), name("low"), name("span"), name("share"), name("above")];
      edits.before(path, index, [
        reduce("ReduceMax", high),
        reduce("ReduceMin", low),
        makeNode("Sub", [high, low], [span]),
        makeNode("Mul", [span, constant("share", 1 / top)], [share]),
        makeNode("Max", [share, floor], [step]),
        makeNode("Sub", [input, low], [above]),
        ...finish(above, 0),
      ]);
      return { codes, step, low, one };
    }
    case "above": {
      const [high, share] = [name("high"), name("share")];
      const zero = range.floor < 0 ? Math.floor(BELOW_ZERO * top) : 0;
      edits.before(path, index, [
        reduce("ReduceMax", high),
        makeNode("Mul", [high, constant("share", 1 / (top - zero))], [share]),
        makeNode("Max", [share, zero === 0 ? floor : constant("least_step", -range.floor / zero)], [step]),
        ...finish(input, zero),
      ]);
      return { codes, step, zero: code(zero), one };
    }
    default:
      return range satisfies never;
  }
}

/** Reductions over the last axis, which stays with length 1. */
function reducer(context: RewriteContext, path: string, input: string): (op: string, output: string) => OnnxNode {
  const { edits } = context;
  if (context.opset(path) < REDUCE_INPUT_OPSET) return (op, output) => makeNode(op, [input], [output], { axes: [-1], keepdims: 1 });
  const axes = edits.share(["token axes", path], () => edits.constant(path, "token_axes", int64s([-1])));
  return (op, output) => makeNode(op, [input, axes], [output], { keepdims: 1 });
}
