/**
 * `--config`: a recipe written down, in TypeScript, JavaScript or JSON.
 * @module
 */
import { readFile } from "node:fs/promises";
import { extname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { FormatError, InputError } from "../../core/errors.ts";

/** Keys a config file may have: the long flags in camelCase, as text or as the lists they collect. */
const TEXT_KEYS = [
  "method",
  "out",
  "bits",
  "groupSize",
  "calibration",
  "protect",
  "window",
  "maxMemory",
  "maxShardSize",
  "samples",
  "seqLen",
  "seed",
  "packing",
  "engine",
  "workers",
] as const;
const LIST_KEYS = ["data", "to", "ignore", "eval"] as const;
const PAIR_KEYS = ["scheme", "gate"] as const;
const FLAG_KEYS = ["shuffle", "force"] as const;
const KEYS: readonly string[] = [...TEXT_KEYS, ...LIST_KEYS, ...PAIR_KEYS, ...FLAG_KEYS];

export type ConfigFile = {
  readonly [K in (typeof TEXT_KEYS)[number]]?: string;
} & { readonly [K in (typeof LIST_KEYS)[number] | (typeof PAIR_KEYS)[number]]?: readonly string[] } & {
  readonly [K in (typeof FLAG_KEYS)[number]]?: boolean;
};

/**
 * @throws {InputError} `input.path` when it cannot be read, `input.option` for unknown keys and wrong types.
 * @throws {FormatError} `format.config` when it does not parse or does not export an object.
 */
export async function loadConfig(path: string): Promise<ConfigFile> {
  const value = await readConfig(path);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new FormatError("format.config", `${path} must hold an object (export default { method: "smoothquant", ... })`, { path });
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, normalize(path, key, item)]));
}

async function readConfig(path: string): Promise<unknown> {
  const extension = extname(path);
  try {
    if (extension === ".json") return JSON.parse(await readFile(path, "utf8"));
    if (extension === ".js" || extension === ".mjs") return defaultOf(await import(pathToFileURL(resolve(path)).href));
    if (extension === ".ts" || extension === ".mts") {
      const { createJiti } = await import("jiti");
      return defaultOf(await createJiti(import.meta.url).import(resolve(path)));
    }
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && (cause.code === "ENOENT" || cause.code === "ERR_MODULE_NOT_FOUND")) {
      throw new InputError("input.path", `--config ${path}: no such file`, { path }, { cause });
    }
    throw new FormatError(
      "format.config",
      `${path} does not load: ${cause instanceof Error ? cause.message : String(cause)}`,
      { path },
      { cause },
    );
  }
  throw new InputError("input.option", `--config ${path}: the ending must be .ts, .js, .mjs or .json, not "${extension}"`, { path });
}

function defaultOf(module: unknown): unknown {
  return typeof module === "object" && module !== null && "default" in module ? module.default : module;
}

function normalize(path: string, key: string, value: unknown): unknown {
  if (!KEYS.includes(key)) {
    throw new InputError("input.option", `${path}: unknown key "${key}"; known: ${KEYS.join(", ")}`, { word: key, known: KEYS });
  }
  const wrong = (expected: string): InputError =>
    new InputError("input.option", `${path}: ${key} must be ${expected}, not ${JSON.stringify(value)}`, { key, value });
  if (TEXT_KEYS.some((name) => name === key)) {
    if (typeof value === "string" || typeof value === "number") return String(value);
    throw wrong("text or a number");
  }
  if (FLAG_KEYS.some((name) => name === key)) {
    if (typeof value === "boolean") return value;
    throw wrong("true or false");
  }
  if (typeof value === "string") return [value];
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value;
  if (PAIR_KEYS.some((name) => name === key) && typeof value === "object" && value !== null) {
    return Object.entries(value).map(([name, item]) => `${name}=${String(item)}`);
  }
  throw wrong("text or a list of texts");
}
