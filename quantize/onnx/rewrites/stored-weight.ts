/**
 * A site's weight as integers, put into the model once however many nodes read it.
 * @module
 */
import type { OnnxDType } from "../../../formats/containers/onnx/dtypes.ts";
import type { OnnxNode } from "../../../formats/containers/onnx/model.ts";
import { readFloat32, type OnnxTensor } from "../../../formats/containers/onnx/tensor.ts";
import { fromFloat32 } from "../../../core/tensor.ts";
import type { OnnxSite } from "../../../model/onnx/site.ts";
import { MICROSOFT } from "../edits.ts";
import { makeLazyParts, type PartSpec } from "../lazy-parts.ts";
import { makeNode } from "../nodes.ts";
import {
  fromRows,
  packRows,
  quantizeRows,
  rowLayout,
  toRows,
  toSigned,
  type RowCodes,
  type RowDialect,
  type RowLayout,
} from "../row-codes.ts";
import type { RewriteContext } from "./context.ts";
import { expectedShift, importanceOf } from "./correct-bias.ts";

/** How a weight that keeps its layout is stored. */
export interface AxisWeightScheme {
  readonly bits: 2 | 4 | 8;
  /** Codes from 0 with a zero point in the middle, for runtimes that multiply unsigned weights only. */
  readonly unsigned: boolean;
  readonly symmetric: boolean;
  /** One scale an output channel, or one for all. */
  readonly perChannel: boolean;
  readonly search: boolean;
  /** Use 7 of 8 bits: pairs of products then fit the 16-bit sums of processors without VNNI. */
  readonly reduced?: boolean;
  /** Neighbours along the input axis add up to at most this many codes: their products with unsigned codes then fit 16-bit sums. */
  readonly pairSum?: number;
  /** Also store what each output channel's weights add up to. */
  readonly sums?: boolean;
  /** Scales in the rank of the weight, for codes that a Mul scales: see {@link productNodes}. */
  readonly asProduct?: boolean;
  /** Store a matrix as [inputs, outputs] whatever it is in the model: what MatMulInteger multiplies by. */
  readonly asFactor?: boolean;
}

/** Names of the values that stand for a weight. */
export interface StoredWeight {
  readonly codes: string;
  readonly scale: string;
  /** Absent: 0. */
  readonly zero?: string;
  /** F32 sums of the weights that the codes stand for, one an output channel. */
  readonly sums?: string;
  readonly scaleTensor: OnnxTensor;
  /** What the outputs' means move by, channel by channel, where their inputs were measured. */
  readonly shiftTensor?: OnnxTensor;
  /** Axis of scales; absent: one scale. */
  readonly axis?: number;
  /** Weights a scale along `axis`. */
  readonly block?: number;
}

/** Types of codes. */
export function codeDType(bits: 2 | 4 | 8, unsigned: boolean): OnnxDType {
  if (bits === 8) return unsigned ? "U8" : "I8";
  if (bits === 4) return unsigned ? "U4" : "I4";
  return unsigned ? "U2" : "I2";
}

/**
 * Codes in the layout of the weight, one scale a channel or a tensor.
 *
 * @param factor - multiplies the scales (a Gemm's alpha).
 */
export function storeAxisWeight(context: RewriteContext, site: OnnxSite, scheme: AxisWeightScheme, factor = 1): StoredWeight {
  const { edits } = context;
  const { weight } = site;
  const moments = context.moments.get(site.name);
  edits.abandon(weight);
  return edits.share(["axis", weight.source.path, weight.value, weight.channelAxis, scheme, factor], () => {
    const { bits, perChannel } = scheme;
    const isSigned = !scheme.unsigned && scheme.symmetric;
    const { shape, dtype } = weight.tensor;
    const asFactor = scheme.asFactor === true;
    const storedShape = asFactor && weight.channelAxis === 0 ? [shape[1]!, shape[0]!] : shape;
    const axis = perChannel ? (asFactor ? 1 : weight.channelAxis) : undefined;
    const layout = rowLayout(shape, perChannel || asFactor ? weight.channelAxis : undefined);
    const storedLayout = asFactor ? rowLayout(storedShape, 1) : layout;
    const flat = perChannel ? [layout.rows] : [];
    const scaleShape = scheme.asProduct === true && perChannel ? shape.map((size, i) => (i === weight.channelAxis ? size : 1)) : flat;
    const codes = codeDType(bits, !isSigned);
    const specs: { readonly [Part in AxisPart]?: PartSpec } & Readonly<Record<"codes" | "scale", PartSpec>> = {
      codes: { dtype: codes, shape: storedShape },
      scale: { dtype, shape: scaleShape },
      ...(!isSigned && { zero: { dtype: codes, shape: scaleShape } }),
      ...(scheme.sums === true && { sums: { dtype, shape: [layout.rows] } }),
      ...(moments && { shift: { dtype: "F32", shape: [site.weight.tensor.shape[site.weight.channelAxis]!] } }),
    };
    const compute = async (): Promise<Record<AxisPart, Uint8Array>> => {
      const dialect: RowDialect = scheme.symmetric ? "absmax" : "affine";
      const rows = toRows(await readFloat32(weight.tensor), layout);
      const [count, width] = perChannel ? [layout.rows, layout.cols] : [1, rows.length];
      const importance = moments && perChannel ? importanceOf(moments, site, layout) : undefined;
      const result = quantizeRows(rows, count, width, {
        bits: scheme.reduced === true ? 7 : bits,
        group: width,
        dialect,
        search: scheme.search,
        ...(importance && { importance }),
        ...(scheme.pairSum !== undefined && { pairs: { sum: scheme.pairSum, width: layout.cols } }),
      });
      context.measured(site.name, result);
      const placed = fromRows(result.codes, storedLayout);
      const used = scheme.reduced === true ? 7 : bits;
      const pack = (values: Uint8Array): Uint8Array => packRows(isSigned ? toSigned(values, used) : values, values.length, bits, 0);
      const sums = scheme.sums === true ? scaleBytes(rowSums(result, layout), dtype, factor) : new Uint8Array();
      const shift = moments === undefined ? new Uint8Array() : scaleBytes(expectedShift(rows, result, site, moments), "F32", 1);
      return { codes: pack(placed), scale: scaleBytes(result.scales, dtype, factor), zero: pack(result.zeros), sums, shift };
    };
    const parts = makeLazyParts(specs, compute);
    const { path } = weight.source;
    const put = (part: string, tensor: OnnxTensor): string => edits.constant(path, `${baseName(site)}_${part}`, tensor);
    return {
      codes: put("quantized", parts.codes),
      scale: put("scale", parts.scale),
      ...(parts.zero && { zero: put("zero_point", parts.zero) }),
      ...(parts.sums && { sums: put("sums", parts.sums) }),
      scaleTensor: parts.scale,
      ...(parts.shift && { shiftTensor: parts.shift }),
      ...(axis !== undefined && { axis }),
    };
  });
}

type AxisPart = "codes" | "scale" | "zero" | "sums" | "shift";

/** Sums of the decoded rows; rows of one scale share it. */
function rowSums({ codes, scales, zeros }: RowCodes, { rows, cols }: RowLayout): Float32Array {
  const shared = scales.length === 1;
  return Float32Array.from({ length: rows }, (_, row) => {
    const group = shared ? 0 : row;
    let sum = 0;
    for (let col = 0; col < cols; col++) sum += codes[row * cols + col]! - zeros[group]!;
    return sum * scales[group]!;
  });
}

/** How a weight is stored in blocks along its input axis. */
export interface BlockScheme {
  readonly bits: 2 | 4 | 8;
  readonly block: number;
  readonly symmetric: boolean;
  readonly search: boolean;
}

/** Codes in the layout of the weight [.., K, N] or [N, K], one scale a block along K. Opset 21 and its like. */
export function storeBlockedWeight(context: RewriteContext, site: OnnxSite, scheme: BlockScheme): StoredWeight {
  const { edits } = context;
  const { weight } = site;
  edits.abandon(weight);
  return edits.share(["block", weight.source.path, weight.value, weight.channelAxis, scheme], () => {
    const { bits, block } = scheme;
    const { shape, dtype } = weight.tensor;
    const axis = weight.inputAxis!;
    const layout = rowLayout(shape, weight.channelAxis);
    const groups = Math.ceil(layout.cols / block);
    const scaleShape = shape.map((size, i) => (i === axis ? groups : size));
    const scaleLayout = rowLayout(scaleShape, weight.channelAxis);
    const codes = codeDType(bits, !scheme.symmetric);
    const specs: Record<"codes" | "scale" | "zero", PartSpec> = {
      codes: { dtype: codes, shape },
      scale: { dtype, shape: scaleShape },
      zero: { dtype: codes, shape: scaleShape },
    };
    const compute = async (): Promise<Record<"codes" | "scale" | "zero", Uint8Array>> => {
      const result = await quantizeBlocks(context, site, layout, scheme);
      const pack = (values: Uint8Array): Uint8Array => packRows(scheme.symmetric ? toSigned(values, bits) : values, values.length, bits, 0);
      return {
        codes: pack(fromRows(result.codes, layout)),
        scale: scaleBytes(fromRows(result.scales, scaleLayout), dtype, 1),
        zero: pack(fromRows(result.zeros, scaleLayout)),
      };
    };
    const parts = scheme.symmetric
      ? { ...makeLazyParts({ codes: specs.codes, scale: specs.scale }, compute), zero: undefined }
      : makeLazyParts(specs, compute);
    const { path } = weight.source;
    return {
      codes: edits.constant(path, `${baseName(site)}_quantized`, parts.codes),
      scale: edits.constant(path, `${baseName(site)}_scale`, parts.scale),
      ...(parts.zero && { zero: edits.constant(path, `${baseName(site)}_zero_point`, parts.zero) }),
      scaleTensor: parts.scale,
      axis,
      block,
    };
  });
}

/** Rows in blocks; symmetric ones by the extreme value, as MatMulNBits has them. */
export async function quantizeBlocks(context: RewriteContext, site: OnnxSite, layout: RowLayout, scheme: BlockScheme): Promise<RowCodes> {
  const { bits, block, symmetric, search } = scheme;
  const rows = toRows(await readFloat32(site.weight.tensor), layout);
  const result = quantizeRows(rows, layout.rows, layout.cols, { bits, group: block, dialect: symmetric ? "extreme" : "affine", search });
  context.measured(site.name, result);
  return result;
}

/** Scales in the weight's type. */
export function scaleBytes(scales: Float32Array, dtype: OnnxDType, factor: number): Uint8Array {
  const values = factor === 1 ? scales : scales.map((scale) => scale * factor);
  if (dtype === "F16") return fromFloat32(values, [values.length], "F16").bytes;
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength).slice();
}

/** What new values of a site are called after. */
export function baseName({ weight }: OnnxSite): string {
  return weight.value;
}

/**
 * Signed codes as floats, times their scales: what DequantizeLinear does, in operators that onnxruntime computes once, when it loads the model.
 * DequantizeLinear it computes at every run, and kernels that pack constant weights cannot.
 */
export function productNodes({ codes, scale }: StoredWeight, output: string, fresh: (base: string) => string): readonly OnnxNode[] {
  const float = fresh(`${output}_codes`);
  return [makeNode("Cast", [codes], [float], { to: 1 }), makeNode("Mul", [float, scale], [output])];
}

/** First opset whose DequantizeLinear has what the weight needs. */
function neededOpset({ axis, block }: StoredWeight, bits: number, dtype: OnnxDType): number {
  if (bits === 2) return 25;
  if (block !== undefined || bits === 4) return 21;
  if (dtype === "F16") return 19;
  return axis === undefined ? 10 : 13;
}

/**
 * A DequantizeLinear that gives a stored weight back: the standard operator where the opset has this form of it, else onnxruntime's,
 * which knows every form but blocks of bits below 4.
 *
 * @returns the node, or why no operator can.
 */
export function dequantizeNode(
  stored: StoredWeight,
  output: string,
  opset: number,
  bits: number,
  dtype: OnnxDType,
): OnnxNode | { readonly reason: string } {
  const needed = neededOpset(stored, bits, dtype);
  const inputs = [stored.codes, stored.scale, ...(stored.zero === undefined ? [] : [stored.zero])];
  const { axis, block } = stored;
  const attributes = { ...(axis !== undefined && { axis }), ...(block !== undefined && { block_size: block }) };
  if (opset >= needed) return makeNode("DequantizeLinear", inputs, [output], attributes);
  if (needed === 25 || block !== undefined) {
    return {
      reason: `DequantizeLinear of ${bits} bits${block === undefined ? "" : " in blocks"} needs opset ${needed}, the model has ${opset}`,
    };
  }
  return makeNode("DequantizeLinear", inputs, [output], attributes, MICROSOFT);
}
