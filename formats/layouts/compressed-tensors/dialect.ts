/**
 * The dialect of dynamic activation scales.
 *
 * `quantization_config` has no word for it: the library always divides by
 * 127.5. An artifact meant for another rule (SmoothQuant's absmax / 127) says so
 * under a key of its own in config.json, which other loaders pass over.
 * @module
 */
import { FormatError } from "../../../core/errors.ts";
import type { ActivationScheme, DialectName, QuantScheme, SiteActivations } from "../../../core/scheme.ts";
import { isObject } from "../../containers/json.ts";

/** Key of config.json that holds what only this tool reads. */
export const OWN_KEY = "bitwright";
const FIELD = "activation_dialect";
/** Dialects that define activations and can be asked for. */
const DIALECTS: ReadonlySet<string> = new Set<DialectName>(["compressed-tensors", "sq-fake", "torch-int", "quarot"]);

/** What to add to config.json for these activation schemes; nothing for the library's own rule. */
export function dialectEntry(activations: readonly QuantScheme[]): Record<string, unknown> {
  const dialect = activations.find((scheme) => scheme.dialect !== "compressed-tensors")?.dialect;
  return dialect === undefined ? {} : { [OWN_KEY]: { [FIELD]: dialect } };
}

/**
 * Activations with the dialect that config.json names.
 *
 * @throws {FormatError} `format.config` for a dialect that is not known.
 */
export function applyDialect(
  config: Readonly<Record<string, unknown>> | undefined,
  activations: ReadonlyMap<string, SiteActivations>,
): ReadonlyMap<string, SiteActivations> {
  const own = config?.[OWN_KEY];
  if (!isObject(own) || !Object.hasOwn(own, FIELD)) return activations;
  const name = own[FIELD];
  if (typeof name !== "string" || !DIALECTS.has(name)) {
    throw new FormatError(
      "format.config",
      `config.json: ${OWN_KEY}.${FIELD} is ${JSON.stringify(name)?.slice(0, 80)}; known: ${[...DIALECTS].join(", ")}`,
    );
  }
  const dialect = name as DialectName;
  const one = (activation: ActivationScheme): ActivationScheme =>
    activation.scheme.format.kind === "int" ? { ...activation, scheme: { ...activation.scheme, dialect } } : activation;
  return new Map(
    [...activations].map(([module, { input, output }]) => [
      module,
      { ...(input && { input: one(input) }), ...(output && { output: one(output) }) },
    ]),
  );
}
