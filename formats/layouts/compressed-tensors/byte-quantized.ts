/**
 * int-quantized, float-quantized, naive-quantized: one code a byte, in a tensor still called `weight`.
 *
 *   weight              I8 or F8_E4M3 [N, K]        encodings/bytes
 *   weight_scale        model dtype, [N, G] | [N, 1] | [1] | [ceil(N / rows), ceil(K / cols)]
 *   weight_zero_point   asymmetric integers only: I8, shape of weight_scale
 *
 * Integer codes of fewer than 8 bits (w6a6, w4a8) are stored sign-extended. The three names differ in what they are
 * for: integers with quantized inputs, FP8 with quantized inputs, and the rest.
 *
 * Source: compressed-tensors 0.19 `NaiveQuantizationCompressor` and its aliases.
 * @module
 */
import { FormatError } from "../../../core/errors.ts";
import { scaleShape, type QuantScheme } from "../../../core/scheme.ts";
import { createTensor, tensorOf, toFloat32 } from "../../../core/tensor.ts";
import { fp8E4M3, int8 } from "../../encodings/bytes.ts";
import type { CodeEncoding } from "../../encodings/encoding.ts";
import type { WeightFormat } from "./format.ts";

function encodingOf({ format }: QuantScheme): CodeEncoding {
  return format.kind === "int" ? int8 : fp8E4M3;
}

function byteQuantized(name: string, kinds: readonly ("int" | "float")[], isFor: WeightFormat["isFor"]): WeightFormat {
  return {
    name,
    codesSuffix: ".weight",
    isFor,
    refuses: ({ format, granularity }) =>
      !kinds.some((kind) => kind === format.kind)
        ? `it holds ${kinds.join(" and ")} codes`
        : granularity.kind === "token"
          ? "weights have no token scales"
          : undefined,

    specs(weight, rows, cols, scaleDType) {
      const scales = scaleShape(weight.granularity, rows, cols);
      return [
        { role: "codes", dtype: encodingOf(weight).dtype, shape: [rows, cols] },
        { role: "scales", dtype: scaleDType, shape: scales },
        ...(weight.format.kind === "int" && !weight.format.symmetric ? [{ role: "zeros", dtype: "I8", shape: scales } as const] : []),
      ];
    },

    async readShape({ codes }, weight, module) {
      const { dtype } = encodingOf(weight);
      const shape = codes!.shape;
      if (codes!.dtype !== dtype || shape.length !== 2) {
        throw new FormatError(
          "format.field",
          `${codes!.name} must be ${dtype} [rows, cols] for ${name}, found ${codes!.dtype} ${JSON.stringify(shape)}`,
          {
            module,
          },
        );
      }
      return shape as [number, number];
    },

    encode(codes, zeros, weight, rows, cols) {
      const encoding = encodingOf(weight);
      const stored = createTensor(encoding.dtype, [rows, cols], encoding.encode(codes, rows, cols));
      return zeros === undefined
        ? { codes: stored }
        : { codes: stored, zeros: tensorOf(zeros, scaleShape(weight.granularity, rows, cols)) };
    },

    decode({ codes, zeros }, weight, rows, cols) {
      const isInt = weight.format.kind === "int";
      const data = isInt ? new Int8Array(rows * cols) : new Uint8Array(rows * cols);
      encodingOf(weight).decode(codes!.bytes, rows, cols, data);
      return {
        codes: data instanceof Int8Array ? { kind: "i8", data } : { kind: "u8", data },
        ...(zeros === undefined ? {} : { zeros: Int8Array.from(toFloat32(zeros)) }),
      };
    },
  };
}

export const intQuantized: WeightFormat = byteQuantized(
  "int-quantized",
  ["int"],
  (weight, hasInput) => weight.format.kind === "int" && hasInput,
);
export const floatQuantized: WeightFormat = byteQuantized(
  "float-quantized",
  ["float"],
  (weight, hasInput) => weight.format.kind === "float" && hasInput,
);
export const naiveQuantized: WeightFormat = byteQuantized("naive-quantized", ["int", "float"], () => true);
