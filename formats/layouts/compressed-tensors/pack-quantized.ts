/**
 * pack-quantized: integer codes of 1 to 8 bits in 32-bit words; weight-only schemes.
 *
 *   weight_packed       I32 [N, ceil(K · b / 32)]   encodings/int-packed
 *   weight_shape        I64 [2] = [N, K]
 *   weight_scale        model dtype, [N, G] | [N, 1] | [1]
 *   weight_zero_point   asymmetric only: I32 [ceil(N · b / 32), G], packed down the rows; I8 [1] for one scale a tensor
 *   weight_g_idx        I32 [K]: group of each column (old act-order files; read, never written)
 *
 * Source: compressed-tensors 0.19 `PackedQuantizationCompressor`.
 * @module
 */
import { FormatError, UnsupportedError } from "../../../core/errors.ts";
import { codeBits, scaleShape, type QuantScheme } from "../../../core/scheme.ts";
import { createTensor, tensorOf, toFloat32 } from "../../../core/tensor.ts";
import { legacyWords, packColumns, packedWords, packRows, unpackColumns, unpackRows } from "../../encodings/int-packed.ts";
import type { WeightFormat } from "./format.ts";

const isAsymmetric = ({ format }: QuantScheme): boolean => format.kind === "int" && !format.symmetric;
/** One zero point for a whole tensor is not packed (`PACK_ZP_STRATS`). */
const packsZeros = ({ granularity }: QuantScheme): boolean => granularity.kind !== "tensor";

export const packQuantized: WeightFormat = {
  name: "pack-quantized",
  codesSuffix: ".weight_packed",
  isFor: (weight, hasInput) => weight.format.kind === "int" && !hasInput,
  refuses: ({ format, granularity }) =>
    format.kind !== "int"
      ? "it holds integer codes only"
      : granularity.kind === "block" || granularity.kind === "token"
        ? `it has no ${granularity.kind} scales`
        : undefined,

  specs(weight, rows, cols, scaleDType) {
    const bits = codeBits(weight.format);
    const scales = scaleShape(weight.granularity, rows, cols);
    const zeros = packsZeros(weight)
      ? ({ role: "zeros", dtype: "I32", shape: [packedWords(rows, bits), scales[1]!] } as const)
      : ({ role: "zeros", dtype: "I8", shape: [1] } as const);
    return [
      { role: "codes", dtype: "I32", shape: [rows, packedWords(cols, bits)] },
      { role: "scales", dtype: scaleDType, shape: scales },
      { role: "shape", dtype: "I64", shape: [2] },
      ...(isAsymmetric(weight) ? [zeros] : []),
    ];
  },

  async readShape({ codes, shape, scales }, weight, module) {
    const bits = codeBits(weight.format);
    const words = codes!.shape;
    if (codes!.dtype !== "I32" || words.length !== 2) {
      throw new FormatError("format.field", `${codes!.name} must be I32 [rows, words], found ${codes!.dtype} ${JSON.stringify(words)}`, {
        module,
      });
    }
    const [rows, rowWords] = words as [number, number];
    let cols: number;
    if (shape === undefined) {
      // Groups fix the width where the words alone leave the last few columns open.
      const { granularity } = weight;
      cols = granularity.kind === "group" ? (scales?.shape[1] ?? 0) * granularity.size : Math.floor((rowWords * 32) / bits);
    } else {
      if (!["I64", "I32"].includes(shape.dtype) || shape.shape.length !== 1 || shape.shape[0] !== 2) {
        throw new FormatError("format.field", `${shape.name} must be I64 [2], found ${shape.dtype} ${JSON.stringify(shape.shape)}`, {
          module,
        });
      }
      const [n, k] = toFloat32(await shape.read());
      cols = k!;
      if (n !== rows || !Number.isSafeInteger(cols) || cols < 1) {
        throw new FormatError("format.field", `${shape.name} says [${n}, ${k}], but ${codes!.name} has ${rows} rows`, { module });
      }
    }
    if (packedWords(cols, bits) === rowWords) return [rows, cols];
    if (legacyWords(cols, bits) === rowWords) {
      throw new UnsupportedError(
        "unsupported.encoding",
        `${codes!.name}: ${rowWords} words a row for ${cols} columns of ${bits} bits is the packing of releases before dense packing (dense: ${packedWords(cols, bits)}); ` +
          `save it again with a current compressed-tensors`,
        { module, bits, words: rowWords },
      );
    }
    throw new FormatError(
      "format.field",
      `${codes!.name} has ${rowWords} words a row; ${cols} columns of ${bits} bits take ${packedWords(cols, bits)}`,
      {
        module,
      },
    );
  },

  encode(codes, zeros, weight, rows, cols) {
    const bits = codeBits(weight.format);
    const signed = codes instanceof Int8Array ? codes : new Int8Array(codes.buffer, codes.byteOffset, codes.length);
    const shape = tensorOf(BigInt64Array.from([BigInt(rows), BigInt(cols)]), [2]);
    const packed = createTensor("I32", [rows, packedWords(cols, bits)], packRows(signed, rows, cols, bits));
    if (zeros === undefined) return { codes: packed, shape };
    if (!packsZeros(weight)) return { codes: packed, shape, zeros: tensorOf(zeros, [1]) };
    const groups = zeros.length / rows;
    return { codes: packed, shape, zeros: createTensor("I32", [packedWords(rows, bits), groups], packColumns(zeros, rows, groups, bits)) };
  },

  decode({ codes, zeros }, weight, rows, cols) {
    const bits = codeBits(weight.format);
    const data = new Int8Array(rows * cols);
    unpackRows(codes!.bytes, rows, cols, bits, data);
    const result = { codes: { kind: "i8", data } } as const;
    if (zeros === undefined) return result;
    if (!packsZeros(weight)) return { ...result, zeros: Int8Array.from(toFloat32(zeros)) };
    const groups = scaleShape(weight.granularity, rows, cols)[1]!;
    const unpacked = new Int8Array(rows * groups);
    unpackColumns(zeros.bytes, rows, groups, bits, unpacked);
    return { ...result, zeros: unpacked };
  },
};
