/**
 * Weight-only forms: MatMulNBits, DequantizeLinear in front of any operator, integer embedding tables.
 * @module
 */
import type { OnnxNode } from "../../../formats/containers/onnx/model.ts";
import { readFloat32 } from "../../../formats/containers/onnx/tensor.ts";
import type { OnnxSite } from "../../../model/onnx/site.ts";
import { MICROSOFT } from "../edits.ts";
import { makeLazyParts, type PartSpec } from "../lazy-parts.ts";
import { floats, makeNode } from "../nodes.ts";
import { packRows, quantizeRows, rowLayout, type RowCodes } from "../row-codes.ts";
import { halfTensor } from "./float16.ts";
import { DONE, floatAttribute, matrixProblem, refuse, type RewriteContext, type RewriteOutcome } from "./context.ts";
import { correctBias } from "./correct-bias.ts";
import {
  baseName,
  dequantizeNode,
  productNodes,
  quantizeBlocks,
  scaleBytes,
  storeAxisWeight,
  storeBlockedWeight,
  type AxisWeightScheme,
  type BlockScheme,
} from "./stored-weight.ts";

/** MatMulNBits as asked for. */
export interface NBitsScheme extends BlockScheme {
  readonly bits: 2 | 4 | 8;
  /** 4: the kernel may round activations to int8; left out, it decides. */
  readonly accuracyLevel?: number;
}

/** Blocks that MatMulNBits takes. */
export const NBITS_BLOCKS: readonly number[] = [16, 32, 64, 128, 256];

/**
 * MatMul, Gemm or FusedMatMul → com.microsoft::MatMulNBits, the scales and codes as onnxruntime's own quantizer writes them
 * when nothing is searched for.
 *
 * @param input - value in the place of the site's own input.
 */
export function rewriteNBits(context: RewriteContext, site: OnnxSite, scheme: NBitsScheme, input: string = site.input): RewriteOutcome {
  const problem = matrixProblem(site) ?? typeProblem(site);
  if (problem !== undefined) return refuse(problem);
  const { edits } = context;
  const { weight, path } = site;
  const { bits, block, symmetric } = scheme;
  const layout = rowLayout(weight.tensor.shape, weight.channelAxis);
  const groups = Math.ceil(layout.cols / block);
  const { dtype } = weight.tensor;
  const alpha = floatAttribute(site, "alpha", 1);
  edits.abandon(weight);
  const names = edits.share(["nbits", weight.source.path, weight.value, weight.channelAxis, scheme, alpha], () => {
    const specs: Record<"codes" | "scales" | "zeros", PartSpec> = {
      codes: { dtype: "U8", shape: [layout.rows, groups, (block * bits) / 8] },
      scales: { dtype, shape: [layout.rows * groups] },
      zeros: { dtype: "U8", shape: [layout.rows * Math.ceil((groups * bits) / 8)] },
    };
    const compute = async (): Promise<Record<"codes" | "scales" | "zeros", Uint8Array>> => {
      const result = await quantizeBlocks(context, site, layout, scheme);
      const padded = padBlocks(result.codes, layout.rows, layout.cols, groups * block);
      return {
        codes: packRows(padded, block * groups, bits, 0),
        scales: scaleBytes(result.scales, dtype, alpha),
        zeros: packRows(result.zeros, groups, bits, 2 ** (bits - 1)),
      };
    };
    const parts = symmetric
      ? { ...makeLazyParts({ codes: specs.codes, scales: specs.scales }, compute), zeros: undefined }
      : makeLazyParts(specs, compute);
    const base = `${baseName(site)}_Q${bits}`;
    return {
      codes: edits.constant(weight.source.path, base, parts.codes),
      scales: edits.constant(weight.source.path, `${base}_scales`, parts.scales),
      ...(parts.zeros && { zeros: edits.constant(weight.source.path, `${base}_zero_points`, parts.zeros) }),
    };
  });
  const inputs = [input, names.codes, names.scales, ...(names.zeros === undefined ? [] : [names.zeros])];
  const attributes = {
    K: layout.cols,
    N: layout.rows,
    bits,
    block_size: block,
    ...(scheme.accuracyLevel !== undefined && { accuracy_level: scheme.accuracyLevel }),
  };
  const { nodes, product } = withBias(context, site);
  edits.replace(path, site.index, [
    { ...makeNode("MatMulNBits", inputs, [product], attributes, MICROSOFT), name: nodeName(site) },
    ...nodes,
  ]);
  return DONE;
}

/** The name the site's node had, so that profiles and patterns still find it. */
export function nodeName({ node }: OnnxSite): string {
  return node.name === "" ? `${node.outputs[0]!}_${node.op}` : node.name;
}

function typeProblem({ weight }: OnnxSite): string | undefined {
  const { dtype } = weight.tensor;
  return dtype === "F32" || dtype === "F16" ? undefined : `its weight is ${dtype}, and only F32 and F16 have kernels`;
}

/** Codes of rows, each row filled with zeros to `width`. */
function padBlocks(codes: Uint8Array, rows: number, cols: number, width: number): Uint8Array {
  if (cols === width) return codes;
  const out = new Uint8Array(rows * width);
  for (let row = 0; row < rows; row++) out.set(codes.subarray(row * cols, (row + 1) * cols), row * width);
  return out;
}

/**
 * What follows the product of a Gemm: its bias, times beta.
 *
 * @returns the nodes, and the value the product must be called.
 */
export function withBias(context: RewriteContext, site: OnnxSite): { readonly nodes: readonly OnnxNode[]; readonly product: string } {
  const { node, output } = site;
  const bias = node.op === "Gemm" ? (node.inputs[2] ?? "") : "";
  const beta = floatAttribute(site, "beta", 1);
  if (bias === "" || beta === 0) return { nodes: [], product: output };
  const { edits } = context;
  const product = edits.fresh(`${output}_product`);
  if (beta === 1) return { nodes: [makeNode("Add", [product, bias], [output])], product };
  const factor = edits.constant(site.path, `${output}_beta`, floats([beta]));
  const scaled = edits.fresh(`${output}_bias`);
  return { nodes: [makeNode("Mul", [bias, factor], [scaled]), makeNode("Add", [product, scaled], [output])], product };
}

/** The site reads its weight through a DequantizeLinear: smaller on disk, the same operator in float. */
export function rewriteDequantize(context: RewriteContext, site: OnnxSite, scheme: AxisWeightScheme | BlockScheme): RewriteOutcome {
  const { edits } = context;
  const { weight, path, index } = site;
  const { dtype } = weight.tensor;
  const problem = typeProblem(site);
  if (problem !== undefined) return refuse(problem);
  if ("block" in scheme && weight.inputAxis === undefined) return refuse("its weight has no input axis to cut into blocks");
  // A stored weight that is then not used would stay in the model: the form is checked before.
  const opset = context.opset(path);
  const needs = "block" in scheme ? (scheme.bits === 2 ? 25 : 21) : scheme.bits === 2 ? 25 : 0;
  if (opset < needs) {
    const form = `${scheme.bits} bits${"block" in scheme ? " in blocks" : ""}`;
    return refuse(`DequantizeLinear of ${form} needs opset ${needs}, the model has ${opset}`);
  }
  const value = edits.share(["dequantized", path, weight.value, weight.channelAxis, scheme], () => {
    const stored = "block" in scheme ? storeBlockedWeight(context, site, scheme) : storeAxisWeight(context, site, scheme);
    const output = edits.fresh(`${baseName(site)}_dequantized`);
    if ("asProduct" in scheme && scheme.asProduct) {
      edits.before(
        path,
        index,
        productNodes(stored, output, (base) => edits.fresh(base)),
      );
      return { output, stored };
    }
    const node = dequantizeNode(stored, output, opset, scheme.bits, dtype);
    if ("reason" in node) return node;
    // In front of the first reader of this body; sites come in order.
    edits.before(path, index, [node]);
    return { output, stored };
  });
  if ("reason" in value) return refuse(value.reason);
  edits.abandon(weight);
  edits.read(path, index, weight.slot, value.output);
  if (value.stored.shiftTensor !== undefined) correctBias(context, site, value.stored.shiftTensor);
  return DONE;
}

/** The site reads its weight through a Cast from float16: half the bytes, next to no error. */
export function rewriteHalf(context: RewriteContext, site: OnnxSite): RewriteOutcome {
  const { edits } = context;
  const { weight, path, index } = site;
  if (weight.tensor.dtype !== "F32") return refuse(`its weight is ${weight.tensor.dtype} already`);
  edits.abandon(weight);
  const value = edits.share(["half", path, weight.source.path, weight.value], () => {
    const half = edits.constant(weight.source.path, `${baseName(site)}_float16`, halfTensor(weight.tensor));
    const output = edits.fresh(`${baseName(site)}_float32`);
    edits.before(path, index, [makeNode("Cast", [half], [output], { to: 1 })]);
    return output;
  });
  edits.read(path, index, weight.slot, value);
  return DONE;
}

/** How an embedding table is stored. */
export interface EmbeddingScheme {
  readonly bits: 4 | 8;
  readonly symmetric: boolean;
  /** 4 bits: weights a scale, along a row. */
  readonly block: number;
  readonly search: boolean;
}

/**
 * Gather from a table → Gather from an int8 table and from its scales, one a row, multiplied: any runtime has the operators and only
 * the rows asked for are widened. 4 bits: com.microsoft::GatherBlockQuantized.
 */
export function rewriteEmbedding(context: RewriteContext, site: OnnxSite, scheme: EmbeddingScheme): RewriteOutcome {
  const problem = typeProblem(site);
  if (problem !== undefined) return refuse(problem);
  return scheme.bits === 8 ? gatherRows(context, site, scheme) : gatherBlocks(context, site, scheme);
}

function gatherRows(context: RewriteContext, site: OnnxSite, { symmetric, search }: EmbeddingScheme): RewriteOutcome {
  const { edits } = context;
  const { weight, path, input, output } = site;
  const { shape, dtype } = weight.tensor;
  const [rows, cols] = [shape[0]!, shape[1]!];
  edits.abandon(weight);
  const names = edits.share(["rows", weight.source.path, weight.value, symmetric, search], () => {
    const codes: PartSpec = { dtype: symmetric ? "I8" : "U8", shape };
    const perRow: PartSpec = { dtype, shape: [rows, 1] };
    const compute = async (): Promise<Record<"codes" | "scale" | "offset", Uint8Array>> => {
      const result = await embeddingRows(context, site, symmetric, search);
      const shift = result.scales.map((scale, row) => -result.zeros[row]! * scale);
      return {
        codes: symmetric ? result.codes.map((code) => (code - 128) & 255) : result.codes,
        scale: scaleBytes(result.scales, dtype, 1),
        offset: scaleBytes(shift, dtype, 1),
      };
    };
    const parts = symmetric
      ? { ...makeLazyParts({ codes, scale: perRow }, compute), offset: undefined }
      : makeLazyParts({ codes, scale: perRow, offset: perRow }, compute);
    const at = weight.source.path;
    return {
      codes: edits.constant(at, `${baseName(site)}_quantized`, parts.codes),
      scale: edits.constant(at, `${baseName(site)}_scale`, parts.scale),
      ...(parts.offset && { offset: edits.constant(at, `${baseName(site)}_offset`, parts.offset) }),
    };
  });
  const [codes, floatCodes, scale] = ["codes", "float", "scale"].map((part) => edits.fresh(`${output}_${part}`)) as [
    string,
    string,
    string,
  ];
  const nodes = [
    { ...makeNode("Gather", [names.codes, input], [codes], { axis: 0 }), name: nodeName(site) },
    makeNode("Cast", [codes], [floatCodes], { to: dtype === "F16" ? 10 : 1 }),
    makeNode("Gather", [names.scale, input], [scale], { axis: 0 }),
  ];
  if (names.offset === undefined) nodes.push(makeNode("Mul", [floatCodes, scale], [output]));
  else {
    const [product, offset] = ["scaled", "offset"].map((part) => edits.fresh(`${output}_${part}`)) as [string, string];
    nodes.push(
      makeNode("Mul", [floatCodes, scale], [product]),
      makeNode("Gather", [names.offset, input], [offset], { axis: 0 }),
      makeNode("Add", [product, offset], [output]),
    );
  }
  edits.replace(path, site.index, nodes);
  return cols < 8 ? { done: true, note: "its rows are so short that their scales weigh as much as they save" } : DONE;
}

async function embeddingRows(context: RewriteContext, site: OnnxSite, symmetric: boolean, search: boolean): Promise<RowCodes> {
  const [rows, cols] = [site.weight.tensor.shape[0]!, site.weight.tensor.shape[1]!];
  const dialect = symmetric ? "absmax" : "affine";
  const result = quantizeRows(await readFloat32(site.weight.tensor), rows, cols, { bits: 8, group: cols, dialect, search });
  context.measured(site.name, result);
  return result;
}

function gatherBlocks(context: RewriteContext, site: OnnxSite, { block, symmetric, search }: EmbeddingScheme): RewriteOutcome {
  const { edits } = context;
  const { weight, path, input, output } = site;
  const { shape, dtype } = weight.tensor;
  const [rows, cols] = [shape[0]!, shape[1]!];
  if (cols % block !== 0) return refuse(`blocks of ${block} do not divide its rows of ${cols}`);
  edits.abandon(weight);
  const names = edits.share(["gather-blocks", weight.source.path, weight.value, block, symmetric, search], () => {
    const groups = cols / block;
    const specs: Record<"codes" | "scales" | "zeros", PartSpec> = {
      codes: { dtype: "U8", shape: [rows, cols / 2] },
      scales: { dtype, shape: [rows, groups] },
      zeros: { dtype: "U8", shape: [rows, Math.ceil(groups / 2)] },
    };
    const compute = async (): Promise<Record<"codes" | "scales" | "zeros", Uint8Array>> => {
      const result = await quantizeBlocks(context, site, rowLayout(shape, 0), { bits: 4, block, symmetric, search });
      return {
        codes: packRows(result.codes, cols, 4, 0),
        scales: scaleBytes(result.scales, dtype, 1),
        zeros: packRows(result.zeros, groups, 4, 8),
      };
    };
    const parts = symmetric
      ? { ...makeLazyParts({ codes: specs.codes, scales: specs.scales }, compute), zeros: undefined }
      : makeLazyParts(specs, compute);
    const at = weight.source.path;
    return {
      codes: edits.constant(at, `${baseName(site)}_Q4`, parts.codes),
      scales: edits.constant(at, `${baseName(site)}_Q4_scales`, parts.scales),
      ...(parts.zeros && { zeros: edits.constant(at, `${baseName(site)}_Q4_zero_points`, parts.zeros) }),
    };
  });
  const inputs = [names.codes, input, names.scales, ...(names.zeros === undefined ? [] : [names.zeros])];
  const attributes = { bits: 4, block_size: block, gather_axis: 0, quantize_axis: 1 };
  edits.replace(path, site.index, [{ ...makeNode("GatherBlockQuantized", inputs, [output], attributes, MICROSOFT), name: nodeName(site) }]);
  return DONE;
}
