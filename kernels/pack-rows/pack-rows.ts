/**
 * pack-rows: two's complement codes to one little-endian bit stream a row.
 *
 *   u = code + 2^(bits−1), bits [c·bits, (c+1)·bits) of row r's stream hold u[r, c]
 *
 * The bit order is that of `core/pack.ts`; each row takes `stride` bytes, the
 * rest of which is 0 (compressed-tensors pads rows to 32-bit words).
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { packBits, packedLength } from "../../core/pack.ts";
import { wasm } from "../generated/pack-rows.wasm.ts";
import type { Workspace } from "../load-wasm.ts";

/**
 * @param codes - shape [rows, cols], each in [−2^(bits−1), 2^(bits−1) − 1].
 * @param bits - 1 to 8. @param stride - bytes per row, at least `packedLength(cols, bits)`.
 * @param out - receives rows · stride bytes.
 * @throws {InputError} `input.shape` when a length does not fit.
 */
export function packRows(codes: Int8Array, rows: number, cols: number, bits: number, out: Uint8Array, stride: number): void {
  if (codes.length !== rows * cols || out.length !== rows * stride || stride < packedLength(cols, bits)) {
    throw new InputError(
      "input.shape",
      `packRows: ${codes.length} codes must be ${rows} × ${cols}, and out (${out.length}) ${rows} rows of ${stride} bytes, at least ${packedLength(cols, bits)} each`,
      { rows, cols, bits, stride },
    );
  }
  for (let r = 0; r < rows; r++) {
    const unsigned = Array.from(codes.subarray(r * cols, (r + 1) * cols), (code) => code + 2 ** (bits - 1));
    packBits(unsigned, bits, out.subarray(r * stride, (r + 1) * stride));
  }
}

interface PackRowsKernel {
  readonly packRows: (x: number, rows: number, cols: number, bits: number, out: number, stride: number) => void;
}

/** SIMD twin over byte offsets. */
export function packRowsAt(workspace: Workspace, x: number, rows: number, cols: number, bits: number, out: number, stride: number): void {
  workspace.kernel<PackRowsKernel>(wasm).packRows(x, rows, cols, bits, out, stride);
}
