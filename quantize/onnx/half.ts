/**
 * Float16 as a job: measured where there is data, planned, converted, reported.
 * @module
 */
import type { OnnxModel } from "../../formats/containers/onnx/model.ts";
import { measureHalfRanges } from "./half-ranges.ts";
import type { ObserveOptions } from "./observe.ts";
import { planFloat16, type HalfPlan } from "./rewrites/float16-plan.ts";
import { convertToFloat16, floatValuesOf } from "./rewrites/float16.ts";
import type { OnnxSamples } from "./samples.ts";

/** Operators named in a note. */
const NAMED = 5;

/**
 * The model in float16, operators that it has no room for left in float32.
 *
 * @throws as `measureHalfRanges`.
 */
export async function rewriteToFloat16(
  model: OnnxModel,
  samples: OnnxSamples,
  options: ObserveOptions,
): Promise<{ readonly model: OnnxModel; readonly notes: readonly string[] }> {
  const values = samples.length === 0 ? [] : floatValuesOf(model);
  const ranges = values.length === 0 ? undefined : await measureHalfRanges(model, values, samples, options);
  const plan = await planFloat16(model, { ranges });
  return { model: convertToFloat16(model, plan), notes: notesOf(plan, samples.length > 0) };
}

function notesOf({ kept }: HalfPlan, isMeasured: boolean): readonly string[] {
  const notes: string[] = [];
  if (kept.length > 0) {
    const named = kept.slice(0, NAMED).map(({ name, op, reason }) => `${op} ${name} (${reason})`);
    const rest = kept.length > NAMED ? `, and ${kept.length - NAMED} more` : "";
    notes.push(`${kept.length} operators stay in float32, because float16 ends at 65504: ${named.join(", ")}${rest}`);
  }
  if (!isMeasured)
    notes.push(
      "weights were checked against float16, values between operators could not be: with --data <inputs.npz> they are measured, and operators beyond 65504 stay in float32",
    );
  return notes;
}
