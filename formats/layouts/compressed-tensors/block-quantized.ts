/**
 * mxfp4-pack-quantized, mxfp8-quantized, nvfp4-pack-quantized: small floats with a scale a block.
 *
 *   weight_packed         U8 [N, K / 2]        two e2m1 codes a byte, even column in the low nibble       (mxfp4, nvfp4)
 *   weight                F8_E4M3 [N, K]       one code a byte                                              (mxfp8)
 *   weight_scale          U8 [N, K / 32]       E8M0: 2^(byte - 127)                                         (mxfp4, mxfp8)
 *                         F8_E4M3 [N, K / 16]                                                               (nvfp4)
 *   weight_global_scale   F32 [1]              divisor: w = code * (weight_scale / weight_global_scale)    (nvfp4)
 *   input_global_scale    F32 [1]              the same of activations, when they are quantized            (nvfp4)
 *
 * Source: compressed-tensors 0.19 `MXFP4PackedCompressor`, `MXFP8QuantizationCompressor`, `NVFP4PackedCompressor`.
 * @module
 */
import { blockFormatOf, type BlockFormat } from "../../../core/blocks/format.ts";
import { decodeScales, encodeScales } from "../../../core/blocks/quantize.ts";
import { FormatError, InputError } from "../../../core/errors.ts";
import { scaleShape, type QuantScheme } from "../../../core/scheme.ts";
import { createTensor, tensorOf, toFloat32 } from "../../../core/tensor.ts";
import { packElements, unpackElements } from "../../encodings/blocks.ts";
import type { WeightFormat } from "./format.ts";

function blockQuantized(name: string, formatName: string): WeightFormat {
  const isNvfp4 = formatName === "nvfp4";
  const packs = formatName !== "mxfp8-e4m3";
  const [codesDType, scalesDType] = [packs ? "U8" : "F8_E4M3", isNvfp4 ? "F8_E4M3" : "U8"] as const;
  const formatOf = (weight: QuantScheme): BlockFormat | undefined => {
    const format = blockFormatOf(weight);
    return format?.name === formatName ? format : undefined;
  };
  const block = isNvfp4 ? 16 : 32;
  const storedCols = (cols: number): number => (packs ? cols / 2 : cols);
  return {
    name,
    codesSuffix: packs ? ".weight_packed" : ".weight",
    isFor: (weight) => formatOf(weight) !== undefined,
    refuses: (weight) => (formatOf(weight) === undefined ? `it holds ${formatName} in blocks of ${block}` : undefined),

    specs: (weight, rows, cols) => [
      { role: "codes", dtype: codesDType, shape: [rows, storedCols(cols)] },
      { role: "scales", dtype: scalesDType, shape: scaleShape(weight.granularity, rows, cols) },
      ...(isNvfp4 ? [{ role: "global-scale", dtype: "F32", shape: [1] } as const] : []),
    ],

    async readShape({ codes }, _, module) {
      const shape = codes!.shape;
      const cols = (shape[1] ?? 0) * (packs ? 2 : 1);
      if (codes!.dtype !== codesDType || shape.length !== 2 || cols % block !== 0) {
        throw new FormatError(
          "format.field",
          `${codes!.name} must be ${codesDType} [rows, ${packs ? "cols / 2" : "cols"}] with cols a multiple of ${block} for ${name}, ` +
            `found ${codes!.dtype} ${JSON.stringify(shape)}`,
          { module },
        );
      }
      return [shape[0]!, cols];
    },

    encode(codes, _, weight, rows, cols) {
      const bytes = packElements(codes, rows, cols, packs ? 4 : 8);
      return { codes: createTensor(codesDType, [rows, storedCols(cols)], bytes) };
    },

    decode({ codes }, weight, rows, cols) {
      return { codes: { kind: "u8", data: unpackElements(codes!.bytes, rows, cols, packs ? 4 : 8) } };
    },

    blocks: {
      encodeScales({ scales, globalScale }, rows, cols, module) {
        const count = (rows * cols) / block;
        if (scales.length !== count) {
          throw new InputError("input.shape", `${module}: ${scales.length} scales, expected [${rows}, ${cols / block}]`, {
            module,
            found: scales.length,
            expected: count,
          });
        }
        const format = { name: formatName, family: isNvfp4 ? "nvfp4" : "mx", element: { kind: "float", format: "e2m1" }, block } as const;
        const bytes = encodeScales(format, scales);
        const kept = decodeScales(format, bytes);
        const at = scales.findIndex((scale, i) => !(scale === kept[i]));
        if (at >= 0) {
          throw new InputError(
            "input.value",
            `${module}: scale ${scales[at]} at ${at} is no ${isNvfp4 ? "e4m3 number" : "power of two"} that ${name} holds`,
            {
              module,
              at,
            },
          );
        }
        const stored = createTensor(scalesDType, [rows, cols / block], bytes);
        if (!isNvfp4) return { scales: stored };
        if (globalScale === undefined || !(globalScale > 0 && globalScale < Infinity)) {
          throw new InputError("input.no-data", `${module}: nvfp4 needs a global scale that is positive and finite, got ${globalScale}`, {
            module,
          });
        }
        return { scales: stored, "global-scale": tensorOf(Float32Array.of(globalScale), [1]) };
      },

      decodeScales(parts, module) {
        const format = { name: formatName, family: isNvfp4 ? "nvfp4" : "mx", element: { kind: "float", format: "e2m1" }, block } as const;
        const scales = decodeScales(format, parts.scales!.bytes);
        if (!isNvfp4) return { scales };
        const globalScale = toFloat32(parts["global-scale"]!)[0]!;
        if (globalScale > 0 && globalScale < Infinity) return { scales, globalScale };
        throw new FormatError("format.field", `${module}.weight_global_scale is ${globalScale}; it must be positive and finite`, {
          module,
          globalScale,
        });
      },
    },
  };
}

export const mxfp4PackQuantized: WeightFormat = blockQuantized("mxfp4-pack-quantized", "mxfp4");
export const mxfp8Quantized: WeightFormat = blockQuantized("mxfp8-quantized", "mxfp8-e4m3");
export const nvfp4PackQuantized: WeightFormat = blockQuantized("nvfp4-pack-quantized", "nvfp4");
