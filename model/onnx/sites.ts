/**
 * Finds the sites of an ONNX model: in the main graph, in branches and loop bodies, and in functions.
 * @module
 */
import type { OnnxDType } from "../../formats/containers/onnx/dtypes.ts";
import type { OnnxModel, OnnxNode } from "../../formats/containers/onnx/model.ts";
import { intAttribute } from "./attributes.ts";
import { bodiesOf, type PlacedBody } from "./bodies.ts";
import { ConstantResolver } from "./resolve.ts";
import type { OnnxConstant, OnnxSite, OnnxSiteKind, OnnxSiteOp, QuantizedOnnxSite } from "./site.ts";

/** One constant input that an operator takes as a weight. */
interface WeightRule {
  readonly kind: OnnxSiteKind;
  readonly domain: string;
  readonly slot: number;
  /** Input that meets the weight; -1 when it is inside the operator. */
  readonly input: number;
  readonly bias?: number;
  /** Fewest and most axes of the weight. */
  readonly ranks: readonly [number, number];
  /** Axes from the end (negative) or the front. */
  readonly axes: (node: OnnxNode) => { readonly channel: number; readonly input?: number };
}

const STANDARD = "";
const MICROSOFT = "com.microsoft";

const transposed = (node: OnnxNode): { channel: number; input: number } =>
  intAttribute(node, "transB", 0) === 0 ? { channel: -1, input: -2 } : { channel: -2, input: -1 };
const recurrent = (slot: number): WeightRule => ({
  kind: "recurrent",
  domain: STANDARD,
  slot,
  input: slot === 1 ? 0 : -1,
  ranks: [3, 3],
  axes: () => ({ channel: 1, input: 2 }),
});

const RULES: ReadonlyMap<OnnxSiteOp, readonly WeightRule[]> = new Map([
  [
    "MatMul",
    [
      { kind: "linear", domain: STANDARD, slot: 1, input: 0, ranks: [2, 8], axes: () => ({ channel: -1, input: -2 }) },
      { kind: "linear", domain: STANDARD, slot: 0, input: 1, ranks: [2, 8], axes: () => ({ channel: -2, input: -1 }) },
    ],
  ],
  ["Gemm", [{ kind: "linear", domain: STANDARD, slot: 1, input: 0, bias: 2, ranks: [2, 2], axes: transposed }]],
  ["FusedMatMul", [{ kind: "linear", domain: MICROSOFT, slot: 1, input: 0, ranks: [2, 8], axes: transposed }]],
  ["Conv", [{ kind: "conv", domain: STANDARD, slot: 1, input: 0, bias: 2, ranks: [3, 5], axes: () => ({ channel: 0, input: 1 }) }]],
  [
    "ConvTranspose",
    [{ kind: "conv", domain: STANDARD, slot: 1, input: 0, bias: 2, ranks: [3, 5], axes: () => ({ channel: 1, input: 0 }) }],
  ],
  ["Gather", [{ kind: "embedding", domain: STANDARD, slot: 0, input: 1, ranks: [2, 2], axes: () => ({ channel: 0 }) }]],
  ["LSTM", [recurrent(1), recurrent(2)]],
  ["GRU", [recurrent(1), recurrent(2)]],
  ["RNN", [recurrent(1), recurrent(2)]],
  [
    "Attention",
    [{ kind: "attention", domain: MICROSOFT, slot: 1, input: 0, bias: 2, ranks: [2, 2], axes: () => ({ channel: 1, input: 0 }) }],
  ],
] satisfies readonly (readonly [OnnxSiteOp, readonly WeightRule[]])[]);

/** Operators whose weights are quantized already. */
const QUANTIZED_OPS: ReadonlySet<string> = new Set([
  "MatMulInteger",
  "ConvInteger",
  "QLinearMatMul",
  "QLinearConv",
  "MatMulNBits",
  "MatMulBnb4",
  "MatMulFpQ4",
  "MatMulIntegerToFloat",
  "DynamicQuantizeMatMul",
  "DynamicQuantizeLSTM",
  "QGemm",
  "QAttention",
  "QMoE",
  "GatherBlockQuantized",
]);

const FLOATS: ReadonlySet<OnnxDType> = new Set<OnnxDType>(["F32", "F16", "BF16", "F64"]);

/** Every site with a float weight, in order of the nodes: main graph, graphs inside it, functions. */
export function findOnnxSites(model: OnnxModel): readonly OnnxSite[] {
  const found = visit(model).sites;
  const names = nameSites(found);
  return found.map((site, i) => ({ ...site, name: names[i]! }));
}

/** Every node whose weight is quantized already. */
export function findQuantizedSites(model: OnnxModel): readonly QuantizedOnnxSite[] {
  return visit(model).quantized;
}

function visit(model: OnnxModel): { readonly sites: readonly OnnxSite[]; readonly quantized: readonly QuantizedOnnxSite[] } {
  const sites: OnnxSite[] = [];
  const quantized: QuantizedOnnxSite[] = [];
  const resolvers = new Map<PlacedBody, ConstantResolver>();
  for (const body of bodiesOf(model)) {
    const resolver = new ConstantResolver(body, body.outer && resolvers.get(body.outer));
    resolvers.set(body, resolver);
    for (const [index, node] of body.nodes.entries()) {
      const { path } = body;
      const name = node.name === "" ? (node.outputs[0] ?? "") : node.name;
      if (QUANTIZED_OPS.has(node.op)) quantized.push({ name, op: node.op, path, node });
      for (const site of sitesOfNode(node, index, path, resolver)) {
        if (site.weight.isDequantized) quantized.push({ name, op: node.op, path, node });
        else sites.push(site);
      }
    }
  }
  return { sites, quantized };
}

/** Whether a node is of an operator that sites are made of. */
export function canHoldWeight({ op, domain }: OnnxNode): boolean {
  return RULES.get(op as OnnxSiteOp)?.some((rule) => rule.domain === domain) === true;
}

function sitesOfNode(node: OnnxNode, index: number, path: string, resolver: ConstantResolver): readonly OnnxSite[] {
  const op = node.op as OnnxSiteOp;
  const sites: OnnxSite[] = [];
  for (const rule of RULES.get(op) ?? []) {
    if (rule.domain !== node.domain) continue;
    const weight = resolver.resolve(node.inputs[rule.slot] ?? "");
    const input = rule.input === -1 ? "" : (node.inputs[rule.input] ?? "");
    if (weight === undefined || !FLOATS.has(weight.tensor.dtype)) continue;
    // A product of two constants is a constant, not a layer.
    if (input !== "" && resolver.resolve(input) !== undefined) continue;
    const rank = weight.tensor.shape.length;
    if (rank < rule.ranks[0] || rank > rule.ranks[1] || weight.tensor.byteLength === 0) continue;
    if (op === "Gather" && intAttribute(node, "axis", 0) !== 0) continue;
    const { channel, input: inputAxis } = rule.axes(node);
    const bias = rule.bias === undefined ? undefined : resolver.resolve(node.inputs[rule.bias] ?? "");
    sites.push({
      name: "",
      kind: rule.kind,
      op,
      path,
      node,
      index,
      weight: {
        ...weight,
        slot: rule.slot,
        channelAxis: channel < 0 ? channel + rank : channel,
        ...(inputAxis !== undefined && { inputAxis: inputAxis < 0 ? inputAxis + rank : inputAxis }),
      },
      input,
      output: node.outputs[0] ?? "",
      ...(bias && { bias: { ...bias, slot: rule.bias! } }),
      groups: rule.kind === "conv" ? intAttribute(node, "group", 1) : 1,
      observable: path === "",
    });
  }
  return sites;
}

/** A name for each site: see {@link OnnxSite.name}. */
function nameSites(sites: readonly OnnxSite[]): readonly string[] {
  const readers = new Map<string, number>();
  const storage = ({ source }: OnnxConstant): string => JSON.stringify([source.path, source.name]);
  for (const { weight } of sites) readers.set(storage(weight), (readers.get(storage(weight)) ?? 0) + 1);
  const wanted = sites.map(({ weight, node, output, path }) => {
    const isOwn = weight.source.kind === "initializer" && readers.get(storage(weight)) === 1;
    const name = isOwn ? weight.source.name : node.name === "" ? output : node.name;
    return path === "" || isOwn ? name : `${path}/${name}`;
  });
  const taken = new Set<string>();
  return wanted.map((name) => {
    let unique = name;
    for (let i = 2; taken.has(unique); i++) unique = `${name}#${i}`;
    taken.add(unique);
    return unique;
  });
}
