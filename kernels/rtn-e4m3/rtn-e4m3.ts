/**
 * rtn-e4m3: weights over their scale, as OCP FP8 e4m3 codes.
 *
 *   code = e4m3(clamp(S(w / scale), −448, 448)), ties to even
 *   ŵ    = value(code) · scale; error sums as in `kernels/error-sums.ts`
 *
 * S rounds to the arithmetic (`core/dialect.ts`). Zero keeps its sign.
 * @module
 */
import { floatCodeOf, type Arithmetic } from "../../core/dialect.ts";
import { decodeFloat, E4M3 } from "../../core/float.ts";
import { startRun, type ErrorSums } from "../error-sums.ts";
import { checkFinite, checkRuns, forEachRun, type RunShape, type Stored } from "../runs.ts";
import { wasm } from "../generated/rtn-e4m3.wasm.ts";
import type { Workspace } from "../load-wasm.ts";
import type { RtnIntPlaces } from "../rtn-int/rtn-int.ts";

/**
 * @param x - finite, shape [rows, cols]. @param scales - one per run, > 0.
 * @param out - receives e4m3 codes, shape [rows, cols].
 * @param sums - the error sums are added to it.
 * @throws {InputError} `input.shape`; {NumericError} `numeric.not-finite` with the first such index.
 */
export function rtnE4m3(
  x: Float32Array,
  shape: RunShape,
  scales: Float32Array,
  arithmetic: Arithmetic,
  out: Uint8Array,
  sums: ErrorSums,
): void {
  checkRuns("rtnE4m3", shape, x.length, scales.length);
  checkRuns("rtnE4m3", shape, out.length, scales.length);
  checkFinite("rtnE4m3", x);
  forEachRun(shape, (run, start, end) => {
    const [scale, partial] = [scales[run]!, startRun()];
    for (let i = start; i < end; i++) {
      const code = floatCodeOf(E4M3, x[i]!, scale, arithmetic);
      out[i] = code;
      const quotient = Math.fround(x[i]! / scale);
      partial.add(i - start, quotient, Math.fround(quotient - decodeFloat(E4M3, code)));
    }
    partial.finish(sums, scale);
  });
}

type RtnE4m3 = (x: number, rows: number, cols: number, group: number, scales: number, bf16: number, out: number, sums: number) => void;
interface RtnE4m3Kernel {
  readonly rtnE4m3Bf16: RtnE4m3;
  readonly rtnE4m3F32: RtnE4m3;
}

/** SIMD twin. */
export function rtnE4m3At(
  workspace: Workspace,
  stored: Stored,
  { rows, cols, group }: RunShape,
  arithmetic: Arithmetic,
  { x, scales, out, sums }: Omit<RtnIntPlaces, "zeros">,
): void {
  const kernel = workspace.kernel<RtnE4m3Kernel>(wasm);
  (stored === "bf16" ? kernel.rtnE4m3Bf16 : kernel.rtnE4m3F32)(x, rows, cols, group, scales, Number(arithmetic === "bf16"), out, sums);
}
