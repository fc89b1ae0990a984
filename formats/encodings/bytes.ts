/**
 * One code a byte.
 *
 *   int8        byte = code, two's complement; narrower codes (e.g. 6 or 4 bits) are sign-extended
 *   fp8-e4m3    byte = bit pattern: sign, 4 exponent bits (bias 7), 3 mantissa bits; 0x7E = 448, 0x7F and 0xFF = NaN
 *
 * Source: compressed-tensors 0.19 `naive_quantized` (torch.int8, torch.float8_e4m3fn); OCP OFP8 v1.0 §5.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import type { CodeEncoding } from "./encoding.ts";

function oneByte(name: string, source: string, dtype: "I8" | "F8_E4M3"): CodeEncoding {
  const check = (what: string, found: number, rows: number, cols: number): void => {
    if (found !== rows * cols) {
      throw new InputError("input.shape", `${name}: ${what} has ${found} elements, expected [${rows}, ${cols}]`, { found, rows, cols });
    }
  };
  return {
    name,
    source,
    dtype,
    bits: 8,
    storedCols: (cols) => cols,
    encode(codes, rows, cols) {
      check("codes", codes.length, rows, cols);
      return new Uint8Array(codes.buffer, codes.byteOffset, codes.length).slice();
    },
    decode(bytes, rows, cols, out) {
      check("bytes", bytes.length, rows, cols);
      check("out", out.length, rows, cols);
      out.set(bytes);
    },
  };
}

export const int8: CodeEncoding = oneByte("int8", "compressed-tensors 0.19 int-quantized", "I8");
export const fp8E4M3: CodeEncoding = oneByte("fp8-e4m3", "compressed-tensors 0.19 float-quantized", "F8_E4M3");
