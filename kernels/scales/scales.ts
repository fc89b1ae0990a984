/**
 * scales: ranges of runs to scales and zero points, in a dialect.
 *
 *   scales[run], zeros[run] = parametersOf(rule, low[run], high[run])
 *
 * `core/dialect.ts` holds the formula.
 * @module
 */
import { parametersOf, storageEpsilon, type IntRule, type ParameterPrecision } from "../../core/dialect.ts";
import { InputError, NumericError } from "../../core/errors.ts";
import { wasm } from "../generated/scales.wasm.ts";
import type { Region, Workspace } from "../load-wasm.ts";

/**
 * @param low - smallest values, finite; a symmetric rule may get the magnitudes twice. @param high - largest values.
 * @param scales - receives scales, rounded to `precision.storage`. @param zeros - receives zero points in the dialect's code range.
 * @throws {InputError} `input.shape`; {NumericError} `numeric.not-finite` when a scale overflows its storage dtype.
 */
export function scalesOf(
  rule: IntRule,
  low: Float32Array,
  high: Float32Array,
  precision: ParameterPrecision,
  scales: Float32Array,
  zeros?: Float32Array,
): void {
  if (high.length !== low.length || scales.length !== low.length || (zeros ?? scales).length !== low.length) {
    throw new InputError(
      "input.shape",
      `scalesOf: ${low.length} minima, ${high.length} maxima and ${scales.length} scales must be as many`,
    );
  }
  for (let run = 0; run < low.length; run++) {
    const { scale, zero } = parametersOf(rule, low[run]!, high[run]!, precision);
    if (!Number.isFinite(scale)) {
      throw new NumericError(
        "numeric.not-finite",
        `scale ${run} of the range ${low[run]} to ${high[run]} does not fit ${precision.storage ?? "F32"}; store scales in F32 or BF16`,
        { run },
      );
    }
    scales[run] = scale;
    if (zeros !== undefined) zeros[run] = zero;
  }
}

/** A rule as the kernel takes it: 12 f32 in a region of the workspace, and flags. */
export interface RuleBlock {
  readonly at: number;
  readonly flags: number;
}

/** Bytes `writeRule` needs. */
export const RULE_BYTES = 48;

/** Puts a rule into a region of at least `RULE_BYTES`. */
export function writeRule(workspace: Workspace, region: Region, rule: IntRule, precision: ParameterPrecision): RuleBlock {
  const storage = precision.storage ?? "F32";
  if (storage !== "F32" && storage !== "BF16" && storage !== "F16") {
    throw new InputError("input.dtype", `scales are stored as F32, BF16 or F16, not ${storage}`, { storage });
  }
  const { emptySpan, spanFloor, unitSpan, divisor, scaleMin, scaleMax, zeroMin, zeroMax, codeMin } = rule;
  workspace
    .f32(region)
    .set([emptySpan, spanFloor, unitSpan, divisor, scaleMin, scaleMax, zeroMin, zeroMax, codeMin, storageEpsilon(storage)]);
  const flags =
    Number(rule.symmetric) +
    2 * Number(rule.includesZero) +
    4 * Number(rule.oneSided) +
    8 * Number(rule.zeroIsCode) +
    16 * Number(precision.arithmetic === "bf16") +
    32 * Number(storage === "BF16") +
    64 * Number(storage === "F16");
  return { at: region.at, flags };
}

interface ScalesKernel {
  readonly scalesOf: (low: number, high: number, runs: number, rule: number, flags: number, scales: number, zeros: number) => number;
}

/** WASM twin over byte offsets. @param zeros - 0 when not wanted. @returns how many scales are not finite. */
export function scalesAt(
  workspace: Workspace,
  rule: RuleBlock,
  low: number,
  high: number,
  runs: number,
  scales: number,
  zeros: number,
): number {
  return workspace.kernel<ScalesKernel>(wasm).scalesOf(low, high, runs, rule.at, rule.flags, scales, zeros);
}
