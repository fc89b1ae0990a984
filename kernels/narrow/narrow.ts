/**
 * narrow: f32 to stored 16-bit floats, ties to even.
 *
 *   out[i] = bf16(x[i])  or  f16(x[i])
 *
 * `core/tensor.ts` `fromFloat32` is the definition. NaN becomes 0x7e00 in f16
 * and keeps its upper bits, made quiet, in bf16.
 * @module
 */
import { wasm } from "../generated/narrow.wasm.ts";
import type { Workspace } from "../load-wasm.ts";

interface NarrowKernel {
  readonly narrowBf16: (x: number, out: number, count: number) => void;
  readonly narrowF16: (x: number, out: number, count: number) => void;
}

/**
 * SIMD twin over byte offsets.
 *
 * @param x - `count` f32, readable up to a multiple of 8. @param out - room for `count` rounded up to 8; may be `x` itself.
 */
export function narrowAt(workspace: Workspace, dtype: "BF16" | "F16", x: number, out: number, count: number): void {
  const kernel = workspace.kernel<NarrowKernel>(wasm);
  (dtype === "BF16" ? kernel.narrowBf16 : kernel.narrowF16)(x, out, count);
}
