/**
 * `dfloat11_config` of a config.json.
 *
 * The official loader reads `threads_per_block`, `bytes_per_thread` and `pattern_dict`; `version` only informs.
 * @module
 */
import { isObject } from "../../containers/json.ts";
import { BYTES_PER_THREAD, THREADS_PER_BLOCK } from "../../encodings/dfloat11/fields.ts";

/** Release of the official package whose layout this is. */
export const DFLOAT11_VERSION = "0.5.0";

/** @param units - in the order in which their patterns are to stand. */
export function dfloat11Config(
  units: readonly { readonly pattern: string; readonly attributes: readonly string[] }[],
): Readonly<Record<string, unknown>> {
  return {
    version: DFLOAT11_VERSION,
    threads_per_block: [THREADS_PER_BLOCK],
    bytes_per_thread: BYTES_PER_THREAD,
    pattern_dict: Object.fromEntries(units.map(({ pattern, attributes }) => [pattern, attributes])),
  };
}

/** Pattern → attributes, as far as a config says so; patterns are matched in order. */
export function readPatternDict(
  config: Readonly<Record<string, unknown>>,
): readonly { readonly pattern: string; readonly attributes: readonly string[] }[] {
  const declared = config["dfloat11_config"];
  const patterns = isObject(declared) ? declared["pattern_dict"] : undefined;
  if (!isObject(patterns)) return [];
  return Object.entries(patterns).map(([pattern, attributes]) => ({
    pattern,
    attributes: Array.isArray(attributes) ? attributes.filter((item): item is string => typeof item === "string") : [],
  }));
}
