/**
 * Which options go with a lossless method, and which codec they ask for.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import type { Recipe } from "../types.ts";
import type { CodecName } from "./codec.ts";
import { checkCompactKernels } from "./compact/emit.ts";
import { checkKernels } from "./emit.ts";

const CODEC_OPTIONS: readonly string[] = ["df11", "compact"];
const LEVELS: readonly string[] = ["max", "fast"];

/** @throws {InputError} `input.option` for options that do not go with a lossless method, or with the codec. */
export function codecName(recipe: Recipe): CodecName {
  const refuse = (what: string, why: string): InputError =>
    new InputError("input.option", `--method ${recipe.method.join("+")}: ${what} ${why}`, { option: what });
  if (recipe.method.length > 1)
    throw refuse("transforms", "change weights, a lossless method does not; run it on the finished artifact instead");
  if (recipe.bits !== undefined) throw refuse("--bits", "has no meaning: every bit is kept");
  if (recipe.groupSize !== undefined) throw refuse("--group-size", "has no meaning: there are no scales");
  const { codec = "df11", level } = recipe;
  if (!CODEC_OPTIONS.includes(codec)) throw refuse(`--codec ${codec as string}`, `is not known; codecs: ${CODEC_OPTIONS.join(", ")}`);
  if (level !== undefined && !LEVELS.includes(level))
    throw refuse(`--level ${level as string}`, `is not known; levels: ${LEVELS.join(", ")}`);
  const isCompact = codec === "compact";
  if (recipe.ignore !== undefined)
    throw refuse("--ignore", isCompact ? "is not used: compact stores every tensor" : "is not used; choose units with --pattern");
  for (const key of Object.keys(recipe.scheme ?? {})) {
    if (isCompact) throw refuse(`--scheme ${key}`, "has no meaning with --codec compact: every tensor is stored, equal ones once");
    if (key !== "tied") throw refuse(`--scheme ${key}`, "has no meaning; the key is tied");
  }
  const tied = recipe.scheme?.["tied"];
  if (tied !== undefined && tied !== "plain" && tied !== "compress") throw refuse(`--scheme tied=${tied}`, "must be plain or compress");
  if (recipe.cast !== undefined && recipe.cast !== "bf16") throw refuse(`--cast ${String(recipe.cast)}`, "must be bf16");
  if (!isCompact && level !== undefined) throw refuse("--level", "belongs to --codec compact");
  if (isCompact && recipe.patterns !== undefined)
    throw refuse("--pattern", "belongs to --codec df11: compact codes each tensor by itself, there are no units to name");
  if (isCompact) checkCompactKernels(recipe.kernels ?? []);
  else checkKernels(recipe.kernels ?? []);
  return isCompact ? `compact-${level ?? "max"}` : "df11";
}
