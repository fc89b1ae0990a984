/**
 * Decisions → rewritten model.
 * @module
 */
import type { OnnxModel } from "../../formats/containers/onnx/model.ts";
import { rewriteSite, type ChosenSite } from "./actions.ts";
import type { OnnxDecisions } from "./decide.ts";
import { RewriteContext, type RewriteOptions } from "./rewrites/context.ts";
import { quantizeOutputs } from "./rewrites/static.ts";

export interface Rewritten {
  readonly model: OnnxModel;
  /** What the weights' errors were, once the model's tensors have been read. */
  readonly context: RewriteContext;
  /** What became of each site. */
  readonly choices: readonly ChosenSite[];
}

/** Apply an action a site, then codes for outputs. */
export function applyActions(
  {
    model,
    choices,
    scales,
    twins,
    moments,
    outputs,
  }: Pick<OnnxDecisions, "model" | "choices" | "scales" | "twins" | "moments" | "outputs">,
  options: RewriteOptions = {},
): Rewritten {
  const context = new RewriteContext(model, { ...options, scales, twins, moments });
  const final = choices.map((choice): ChosenSite => {
    const outcome = rewriteSite(context, choice);
    if (outcome.done) return choice;
    const reason = outcome.reason.startsWith("float") ? outcome.reason : `float: ${outcome.reason}`;
    return { site: choice.site, action: { kind: "float", reason } };
  });
  quantizeOutputs(context, outputs);
  return { model: context.edits.apply(), context, choices: final };
}
