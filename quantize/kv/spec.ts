/**
 * `--kv <scheme>[:key=value,...]`: how a key-value cache is stored, as text.
 *
 *   bfp12:block=32                     keys and values in BFP12, blocks of 32 channels
 *   bfp12:block=32,v=bfp16,q=bfp16     values and queries in BFP16
 *   bfp12:block=32,centre=mean,order=score
 *   mxfp8 · mxfp4 · nvfp4 · int8 · f16
 * @module
 */
import { parseBlockFormat } from "../../core/blocks/format.ts";
import { InputError } from "../../core/errors.ts";
import { SCALE_RULES, type ScaleRule } from "../../core/scheme.ts";
import type { KvCode } from "../../model/kv/scheme.ts";

/** A parsed `--kv`. */
export interface KvSpec {
  /** As given. */
  readonly text: string;
  readonly k: KvCode;
  readonly v: KvCode;
  readonly q: KvCode;
  readonly mode: "all" | "stream";
  readonly sinks: number;
  readonly window: number;
  /** What is subtracted from keys before they are stored. */
  readonly centre: "none" | "mean";
  /** How channels of a head are ordered before they are stored. */
  readonly order: KvOrder;
}

export type KvOrder = "none" | "norm" | "absmax" | "score";

/** Names that `--kv` takes, for help texts and messages. */
export const KV_FORMATS: readonly string[] = [
  "bfp12",
  "bfp16",
  "bfp<8+p>",
  "mxint8",
  "mxfp8",
  "mxfp6",
  "mxfp4",
  "nvfp4",
  "int8",
  "f16",
  "bf16",
];

/** Keys behind the colon, with what they mean. */
export const KV_KEYS = {
  block: "channels a block (BFP; the others fix it)",
  v: "format of the values; default: that of the keys",
  q: "format of the queries; default float",
  mode: "all: every key read is a stored one; stream: the newest tokens are still float",
  window: "mode=stream: newest tokens kept float; default 128",
  sinks: "mode=stream: first tokens kept float; default 0",
  centre: "mean: subtract the calibrated mean key of each channel; none",
  order: "order of channels: none, norm, absmax, score (calibrated)",
  scale: "scale rule of blocks: floor, even, ceil, rceil, mse",
} as const;

const DEFAULT_WINDOW = 128;
const FLOAT: KvCode = { kind: "float", dtype: "F32" };

/** @throws {InputError} `input.option` naming the part that is not understood and what is. */
export function parseKv(text: string): KvSpec {
  const colon = text.indexOf(":");
  const name = (colon < 0 ? text : text.slice(0, colon)).trim().toLowerCase();
  const keys = colon < 0 ? new Map<string, string>() : parseKeys(text, text.slice(colon + 1));
  const block = keys.has("block") ? wholeNumber(text, "block", keys.get("block")!, 1) : undefined;
  const rule = keys.has("scale") ? oneOf(text, "scale", keys.get("scale")!, SCALE_RULES) : undefined;
  const mode = oneOf(text, "mode", keys.get("mode") ?? "all", ["all", "stream"]);
  for (const key of ["window", "sinks"] as const) {
    if (mode !== "stream" && keys.has(key)) throw refused(text, `${key}=${keys.get(key)} belongs to mode=stream`, { key });
  }
  const k = parseCode(text, name, block, rule);
  return {
    text,
    k,
    v: keys.has("v") ? parseCode(text, keys.get("v")!, block, rule) : k,
    q: keys.has("q") ? parseCode(text, keys.get("q")!, block, rule) : FLOAT,
    mode,
    sinks: mode === "all" ? 0 : wholeNumber(text, "sinks", keys.get("sinks") ?? "0", 0),
    window: mode === "all" ? 0 : wholeNumber(text, "window", keys.get("window") ?? String(DEFAULT_WINDOW), 0),
    centre: oneOf(text, "centre", keys.get("centre") ?? "none", ["none", "mean"]),
    order: oneOf(text, "order", keys.get("order") ?? "none", ["none", "norm", "absmax", "score"]),
  };
}

/** Whether a scheme has numbers that only data can give. */
export function needsCalibration({ centre, order }: KvSpec): boolean {
  return centre !== "none" || order === "score" || order === "absmax";
}

function parseKeys(text: string, list: string): Map<string, string> {
  const keys = new Map<string, string>();
  for (const pair of list.split(",")) {
    const [key = "", value = ""] = pair.split("=", 2).map((part) => part.trim().toLowerCase());
    if (!Object.hasOwn(KV_KEYS, key) || value === "") {
      const known = Object.keys(KV_KEYS);
      throw refused(text, `"${pair.trim()}" is not understood; keys: ${known.join(", ")}, each as key=value`, { key, known });
    }
    if (keys.has(key)) throw refused(text, `${key} is given twice`, { key });
    keys.set(key, value);
  }
  return keys;
}

function parseCode(text: string, name: string, block: number | undefined, rule: ScaleRule | undefined): KvCode {
  switch (name) {
    case "float":
    case "f32":
      return FLOAT;
    case "f16":
    case "fp16":
      return { kind: "float", dtype: "F16" };
    case "bf16":
      return { kind: "float", dtype: "BF16" };
    case "int8":
      return { kind: "int", bits: 8 };
    default: {
      const format = parseBlockFormat(name, name.startsWith("bfp") ? block : undefined);
      if (format === undefined)
        throw refused(text, `"${name}" is no format of a cache; choose from ${KV_FORMATS.join(", ")}`, { known: KV_FORMATS });
      return { kind: "block", format, ...(rule === undefined ? {} : { rule }) };
    }
  }
}

function wholeNumber(text: string, key: string, value: string, least: number): number {
  const number = Number(value);
  if (/^\d+$/.test(value) && number >= least && number <= 2 ** 24) return number;
  throw refused(text, `${key}=${value} must be a whole number of at least ${least}`, { key });
}

function oneOf<T extends string>(text: string, key: string, value: string, known: readonly T[]): T {
  const found = known.find((word) => word === value);
  if (found !== undefined) return found;
  throw refused(text, `${key}=${value} must be ${known.join(", ")}`, { key, known });
}

function refused(text: string, why: string, details: Readonly<Record<string, unknown>>): InputError {
  return new InputError("input.option", `--kv ${text}: ${why}`, { option: "kv", given: text, ...details });
}
