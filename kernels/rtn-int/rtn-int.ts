/**
 * rtn-int: round to nearest with given scales and zeros, one integer code a weight.
 *
 *   t    = S(w / scale)
 *   code = clamp(rne(S(t + zero)), codeMin, codeMax)      rule.addsBeforeRounding
 *   code = clamp(rne(t) + zero, codeMin, codeMax)         otherwise
 *   out  = code − (codeMin + 2^(bits−1))                  two's complement
 *   ŵ    = (code − zero) · scale; error sums as in `kernels/error-sums.ts`
 *
 * S rounds to the arithmetic (`core/dialect.ts`), rne is half to even. One
 * kernel serves all dialects and widths, channel and group granularity.
 * @module
 */
import { roundStep, storageShift, type Arithmetic, type IntRule } from "../../core/dialect.ts";
import { clamp, roundHalfEven } from "../../core/round.ts";
import { startRun, type ErrorSums } from "../error-sums.ts";
import { checkFinite, checkRuns, forEachRun, type RunShape, type Stored } from "../runs.ts";
import { wasm } from "../generated/rtn-int.wasm.ts";
import type { Workspace } from "../load-wasm.ts";

/** What the codes mean. */
export interface RtnIntOptions {
  readonly rule: IntRule;
  /** 2 to 8. */
  readonly bits: number;
  readonly arithmetic: Arithmetic;
}

/**
 * @param x - finite, shape [rows, cols].
 * @param scales - one per run, > 0. @param zeros - one per run, in the dialect's code range; absent means 0.
 * @param out - receives two's complement codes, shape [rows, cols].
 * @param sums - the error sums are added to it.
 * @throws {InputError} `input.shape`; {NumericError} `numeric.not-finite` with the first such index.
 */
export function rtnInt(
  x: Float32Array,
  shape: RunShape,
  scales: Float32Array,
  zeros: Float32Array | undefined,
  { rule, bits, arithmetic }: RtnIntOptions,
  out: Int8Array,
  sums: ErrorSums,
): void {
  checkRuns("rtnInt", shape, x.length, scales.length);
  checkRuns("rtnInt", shape, out.length, (zeros ?? scales).length);
  checkFinite("rtnInt", x);
  const step = roundStep(arithmetic);
  const shift = storageShift(rule, bits);
  forEachRun(shape, (run, start, end) => {
    const [scale, zero, partial] = [scales[run]!, zeros?.[run] ?? 0, startRun()];
    for (let i = start; i < end; i++) {
      const quotient = Math.fround(x[i]! / scale);
      const t = step(quotient);
      const code = clamp(rule.addsBeforeRounding ? roundHalfEven(step(t + zero)) : roundHalfEven(t) + zero, rule.codeMin, rule.codeMax);
      out[i] = code - shift;
      partial.add(i - start, quotient, Math.fround(quotient - Math.fround(code - zero)));
    }
    partial.finish(sums, scale);
  });
}

type RtnInt = (
  ...args: [
    x: number,
    rows: number,
    cols: number,
    group: number,
    scales: number,
    zeros: number,
    flags: number,
    codeMin: number,
    codeMax: number,
    shift: number,
    out: number,
    sums: number,
  ]
) => void;
interface RtnIntKernel {
  readonly rtnIntBf16: RtnInt;
  readonly rtnIntF32: RtnInt;
}

/** Byte offsets in a workspace. */
export interface RtnIntPlaces {
  readonly x: number;
  readonly scales: number;
  /** 0 when the scheme has no zeros. */
  readonly zeros: number;
  readonly out: number;
  /** `SUMS_BYTES` bytes beginning with the two totals. */
  readonly sums: number;
}

/** SIMD twin. */
export function rtnIntAt(workspace: Workspace, stored: Stored, shape: RunShape, options: RtnIntOptions, places: RtnIntPlaces): void {
  const { rule, bits, arithmetic } = options;
  const kernel = workspace.kernel<RtnIntKernel>(wasm);
  (stored === "bf16" ? kernel.rtnIntBf16 : kernel.rtnIntF32)(
    places.x,
    shape.rows,
    shape.cols,
    shape.group,
    places.scales,
    places.zeros,
    Number(arithmetic === "bf16") + 2 * Number(rule.addsBeforeRounding),
    rule.codeMin,
    rule.codeMax,
    storageShift(rule, bits),
    places.out,
    places.sums,
  );
}
