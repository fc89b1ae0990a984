/**
 * Which tensors a quantized weight becomes, one table read in both directions.
 *
 *   <module>.weight.codes          rows of codes, blocks and groups along columns
 *       I8 [rows, cols]            8-bit integers and mantissas, two's complement
 *       I16 [rows, cols]           16-bit ones
 *       U8 [rows, ceil(cols·b/8)]  other widths, a little-endian bit stream a row: mantissas in two's complement, integers
 *                                  with float scales as offset binary (code + 2^(b−1)), float elements as bit patterns
 *       F8_E4M3, F8_E5M2 [rows, cols]
 *   <module>.weight.scales         U8 [rows, ceil(cols/block)], E8M0: 2^(byte − 127), 255 = NaN   (BFP, MX)
 *                                  F8_E4M3, the same shape                                        (NVFP4)
 *                                  F32, BF16 or F16 in the shape of the granularity               (plain schemes)
 *   <module>.weight.global_scale   F32 [1]: divisor of the scales                                 (NVFP4)
 *   <module>.weight.zeros          F32 in the shape of the scales                                 (asymmetric integers)
 *
 * Weights: plain (code − zero) · scale; mantissas code · 2^(byte − 127 − (b − 2)); elements element · 2^(byte − 127); NVFP4
 * element · (scale / global_scale), all in f32. rows are output channels, cols all other axes; a weight stored [in, out]
 * (channel_axis 1) has its codes turned likewise.
 * @module
 */
import { blockFormatOf } from "../../../core/blocks/format.ts";
import { decodeScales, dequantizeBlocks, encodeScales } from "../../../core/blocks/quantize.ts";
import { elementCount, type DType } from "../../../core/dtype.ts";
import { FormatError, InputError, UnsupportedError } from "../../../core/errors.ts";
import { packedLength } from "../../../core/pack.ts";
import type { QuantizedTensor } from "../../../core/quantized.ts";
import { codeBits, scaleShape, schemeName, type QuantScheme } from "../../../core/scheme.ts";
import { createTensor, fromFloat32, tensorOf, toFloat32, type Tensor } from "../../../core/tensor.ts";
import { packElements, unpackElements, unpackMantissas } from "../../encodings/blocks.ts";
import { dequantize } from "../dequantize.ts";

export type StoredRole = "codes" | "scales" | "global-scale" | "zeros";

/** Names after the module's. */
export const SUFFIXES: Readonly<Record<StoredRole, string>> = {
  codes: ".weight.codes",
  scales: ".weight.scales",
  "global-scale": ".weight.global_scale",
  zeros: ".weight.zeros",
};

/** A weight as it is stored: rows are output channels. */
export interface StoredShape {
  readonly rows: number;
  readonly cols: number;
}

export interface StoredSpec {
  readonly role: StoredRole;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** How codes of a scheme lie in a tensor. */
type CodeForm = { readonly kind: "bytes"; readonly dtype: DType } | { readonly kind: "stream"; readonly offset: number };

const FLOAT_DTYPES: ReadonlyMap<string, DType> = new Map([
  ["e4m3", "F8_E4M3"],
  ["e5m2", "F8_E5M2"],
]);
const SCALE_DTYPES: ReadonlyMap<string, DType> = new Map([
  ["f32", "F32"],
  ["bf16", "BF16"],
  ["f16", "F16"],
  ["e8m0", "U8"],
  ["e4m3", "F8_E4M3"],
]);

/** Why a weight scheme has no place here, or undefined. */
export function refusalOf(scheme: QuantScheme): string | undefined {
  const { format, granularity, timing, scale } = scheme;
  if (timing === "dynamic") return "weights cannot be dynamic";
  if (granularity.kind === "token") return "weights have no token scales";
  if (format.kind === "codebook") return "codebooks are not stored";
  if (format.kind === "float" && (format.format === "f16" || format.format === "bf16")) return `${format.format} is a dtype of its own`;
  if (!SCALE_DTYPES.has(scale)) return `scale type ${scale} names no dtype`;
  const isBlock = blockFormatOf(scheme) !== undefined;
  if (!isBlock && (scale === "e8m0" || scale === "e4m3" || format.kind === "bfp")) {
    return `${schemeName(scheme)} with ${scale} scales is no block format`;
  }
  if (format.kind === "int" && (format.bits < 2 || format.bits > 16)) return `int${format.bits} is not stored; 2 to 16 bits are`;
  return undefined;
}

function formOf(scheme: QuantScheme): CodeForm {
  const { format } = scheme;
  const bits = codeBits(format);
  if (format.kind === "float") {
    const dtype = FLOAT_DTYPES.get(format.format);
    return dtype === undefined ? { kind: "stream", offset: 0 } : { kind: "bytes", dtype };
  }
  if (bits === 8) return { kind: "bytes", dtype: "I8" };
  if (bits === 16) return { kind: "bytes", dtype: "I16" };
  return { kind: "stream", offset: blockFormatOf(scheme) === undefined ? 2 ** (bits - 1) : 0 };
}

/** Shape of the scales as stored: block formats may end rows in a shorter block, as groups do. */
const scalesShape = ({ granularity }: QuantScheme, { rows, cols }: StoredShape): readonly number[] => scaleShape(granularity, rows, cols);
const isAsymmetric = ({ format }: QuantScheme): boolean => format.kind === "int" && !format.symmetric;

/** @throws {UnsupportedError} `unsupported.scheme` for what {@link refusalOf} names. */
export function storedSpecs(module: string, scheme: QuantScheme, shape: StoredShape): readonly StoredSpec[] {
  const refused = refusalOf(scheme);
  if (refused !== undefined) {
    throw new UnsupportedError("unsupported.scheme", `bitwright directories cannot hold ${module} (${schemeName(scheme)}): ${refused}`, {
      module,
      scheme: schemeName(scheme),
    });
  }
  const { rows, cols } = shape;
  const form = formOf(scheme);
  const codes: StoredSpec =
    form.kind === "bytes"
      ? { role: "codes", dtype: form.dtype, shape: [rows, cols] }
      : { role: "codes", dtype: "U8", shape: [rows, packedLength(cols, codeBits(scheme.format))] };
  const scales: StoredSpec = { role: "scales", dtype: SCALE_DTYPES.get(scheme.scale)!, shape: scalesShape(scheme, shape) };
  return [
    codes,
    scales,
    ...(scheme.scale === "e4m3" ? [{ role: "global-scale", dtype: "F32", shape: [1] } as const] : []),
    ...(isAsymmetric(scheme) ? [{ role: "zeros", dtype: "F32", shape: scales.shape } as const] : []),
  ];
}

/**
 * Bytes of a quantized weight.
 *
 * @param quantized - codes row-major [rows, cols], rows being output channels; integers i8, i16, or u8 counted from 0 with their zeros.
 * @throws {InputError} `input.shape`, `input.value`; {UnsupportedError} as {@link storedSpecs}.
 */
export function encodeStored(module: string, quantized: QuantizedTensor, shape: StoredShape): ReadonlyMap<StoredRole, Tensor> {
  const { scheme, codes, scales, zeros, globalScale } = quantized;
  const specs = storedSpecs(module, scheme, shape);
  const { rows, cols } = shape;
  if (codes.kind === "packed" || codes.data.length !== rows * cols) {
    throw new InputError("input.shape", `${module}: ${codes.kind} codes (${codes.data.length}) must be ${rows} × ${cols}, not packed`, {
      module,
      rows,
      cols,
    });
  }
  const tensors = new Map<StoredRole, Tensor>();
  for (const spec of specs) {
    if (spec.role === "codes") tensors.set("codes", encodeCodes(scheme, codes.data, shape, spec));
    else if (spec.role === "scales") {
      if (scales.length !== elementCount(spec.shape)) {
        throw new InputError("input.shape", `${module}: ${scales.length} scales, expected ${JSON.stringify(spec.shape)}`, { module });
      }
      tensors.set("scales", encodeScaleBytes(module, scheme, scales, spec));
    } else if (spec.role === "global-scale") {
      if (globalScale === undefined || !(globalScale > 0 && globalScale < Infinity)) {
        throw new InputError("input.no-data", `${module}: NVFP4 needs a global scale that is positive and finite, got ${globalScale}`, {
          module,
        });
      }
      tensors.set("global-scale", tensorOf(Float32Array.of(globalScale), [1]));
    } else {
      if (zeros?.length !== scales.length) {
        throw new InputError("input.shape", `${module}: ${zeros?.length ?? "no"} zero points for ${scales.length} scales`, { module });
      }
      const offset = codes.kind === "u8" ? 2 ** (codeBits(scheme.format) - 1) : 0;
      tensors.set(
        "zeros",
        tensorOf(
          zeros.map((zero) => zero - offset),
          spec.shape,
        ),
      );
    }
  }
  return tensors;
}

function encodeCodes(
  scheme: QuantScheme,
  data: Int8Array | Int16Array | Uint8Array,
  { rows, cols }: StoredShape,
  { dtype, shape }: StoredSpec,
): Tensor {
  const bits = codeBits(scheme.format);
  const isInt = scheme.format.kind !== "float";
  const form = formOf(scheme);
  // u8 codes of integers count from 0.
  const start = isInt && data instanceof Uint8Array ? 2 ** (bits - 1) : 0;
  if (form.kind === "stream" && form.offset > 0) {
    const unsigned = Int16Array.from(data, (code) => code - start);
    const shifted = packElements(unsigned, rows, cols, bits);
    return createTensor(dtype, shape, flipSigns(shifted, rows, cols, bits));
  }
  const plain = start === 0 ? data : Int16Array.from(data, (code) => code - start);
  return createTensor(dtype, shape, packElements(plain, rows, cols, bits));
}

/** Two's complement ↔ offset binary: the highest bit of every code. */
function flipSigns(bytes: Uint8Array, rows: number, cols: number, bits: number): Uint8Array {
  const rowBytes = packedLength(cols, bits);
  const out = bytes.slice();
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const at = c * bits + bits - 1;
      const index = r * rowBytes + (at >> 3);
      out[index] = out[index]! ^ (1 << (at & 7));
    }
  }
  return out;
}

function encodeScaleBytes(module: string, scheme: QuantScheme, scales: Float32Array, { dtype, shape }: StoredSpec): Tensor {
  const block = blockFormatOf(scheme);
  if (block === undefined) {
    const stored = fromFloat32(scales, shape, dtype);
    const kept = toFloat32(stored);
    const at = scales.findIndex((scale, i) => scale !== kept[i]);
    if (at < 0) return { ...stored, bytes: stored.bytes.slice() };
    throw new InputError(
      "input.value",
      `${module}: scale ${scales[at]} at ${at} is not a ${dtype} number; round scales before codes are chosen`,
      { module, at },
    );
  }
  const bytes = encodeScales(block, scales);
  const kept = decodeScales(block, bytes);
  const at = scales.findIndex((scale, i) => !Object.is(scale, kept[i]));
  if (at < 0) return createTensor(dtype, shape, bytes);
  throw new InputError("input.value", `${module}: scale ${scales[at]} at ${at} is none that ${block.name} holds`, { module, at });
}

/** The inverse of {@link encodeStored}; tensors have been checked against {@link storedSpecs}. @throws {FormatError} `format.field` for a divisor that is not positive. */
export function decodeStored(
  module: string,
  scheme: QuantScheme,
  { rows, cols }: StoredShape,
  tensors: ReadonlyMap<StoredRole, Tensor>,
): QuantizedTensor {
  const block = blockFormatOf(scheme);
  const stored = tensors.get("scales")!;
  const base = {
    shape: [rows, cols],
    channelAxis: 0,
    scheme,
    codes: decodeCodes(scheme, tensors.get("codes")!.bytes, rows, cols),
    scales: block === undefined ? toFloat32(stored).slice() : decodeScales(block, stored.bytes),
  };
  const zeros = tensors.get("zeros");
  if (zeros !== undefined) return { ...base, zeros: toFloat32(zeros).slice() };
  const divisor = tensors.get("global-scale");
  if (divisor === undefined) return base;
  const globalScale = toFloat32(divisor)[0]!;
  if (globalScale > 0 && globalScale < Infinity) return { ...base, globalScale };
  throw new FormatError("format.field", `${module}${SUFFIXES["global-scale"]} is ${globalScale}; it must be positive and finite`, {
    module,
    globalScale,
  });
}

function decodeCodes(scheme: QuantScheme, bytes: Uint8Array, rows: number, cols: number): QuantizedTensor["codes"] {
  const bits = codeBits(scheme.format);
  if (scheme.format.kind === "float") return { kind: "u8", data: unpackElements(bytes, rows, cols, bits) };
  const form = formOf(scheme);
  const plain = form.kind === "stream" && form.offset > 0 ? flipSigns(bytes, rows, cols, bits) : bytes;
  const data = unpackMantissas(plain, rows, cols, bits);
  return data instanceof Int8Array ? { kind: "i8", data } : { kind: "i16", data };
}

/** Weights of a stored tensor, [rows, cols]. */
export function weightsOf(quantized: QuantizedTensor): Float32Array {
  if (blockFormatOf(quantized.scheme) !== undefined) return dequantizeBlocks(quantized);
  return dequantize(quantized, quantized.shape[0]!, quantized.shape[1]!);
}
