/**
 * Fingerprint: tells whether a calibration was made for this model.
 * @module
 */
import { createHash } from "node:crypto";
import type { Model } from "../model/model.ts";

/** Keys of config.json that say nothing about what the model computes. */
const IGNORED_KEYS: ReadonlySet<string> = new Set(["_name_or_path", "transformers_version", "use_cache"]);

/**
 * SHA-256 over config.json (keys in order of name, without notes of tools) and the names, dtypes and shapes of all
 * tensors. Weights are not read: a fine-tune of the same shapes has the same fingerprint.
 *
 * @returns 64 hexadecimal digits.
 */
export function fingerprintModel(model: Model): string {
  const config = Object.fromEntries(Object.entries(model.config).filter(([key]) => !IGNORED_KEYS.has(key)));
  const tensors = [...model.tensors].map(([name, { dtype, shape }]) => [name, dtype, shape] as const);
  const description = JSON.stringify([sortKeys(config), tensors.toSorted(([a], [b]) => (a < b ? -1 : 1))]);
  return createHash("sha256").update(description).digest("hex");
}

function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (typeof value !== "object" || value === null) return value;
  // Entries instead of an object, so that no key of a hostile config can be special.
  return Object.entries(value)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, entry]) => [key, sortKeys(entry)]);
}
