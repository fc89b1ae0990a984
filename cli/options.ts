/**
 * Option values: text from the command line → checked numbers and maps.
 * @module
 */
import { InputError } from "../core/errors.ts";

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  k: 1e3,
  m: 1e6,
  g: 1e9,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** Bytes of "2GB", "512MiB", "1.5g", "1000000". @throws {InputError} `input.option` */
export function parseBytes(flag: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  const unit = match === null ? undefined : UNITS[match[2]!.toLowerCase()];
  if (match === null || unit === undefined) {
    throw new InputError("input.option", `${flag} "${text}" is not a size; write for example 2GB, 512MiB or 1000000`, { flag, text });
  }
  return Math.floor(Number(match[1]) * unit);
}

/** A whole number in [min, max]. @throws {InputError} `input.option` */
export function parseInteger(flag: string, text: string, min: number, max: number): number {
  const value = /^-?\d+$/.test(text.trim()) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value) || value < min || value > max) {
    throw new InputError("input.option", `${flag} "${text}" must be a whole number from ${min} to ${max}`, { flag, text, min, max });
  }
  return value;
}

/** "channel", "tensor" or a positive number. @throws {InputError} `input.option` */
export function parseGroupSize(text: string): number | "channel" | "tensor" {
  if (text === "channel" || text === "tensor") return text;
  if (/^-?\d/.test(text)) return parseInteger("--group-size", text, 1, 2 ** 24);
  const known = ["channel", "tensor"];
  throw new InputError("input.option", `--group-size "${text}" must be a number, channel or tensor`, { given: text, known });
}

/** "a=1,b=2" (repeatable) → a map. @throws {InputError} `input.option` for a part without "=" or a key given twice. */
export function parsePairs(flag: string, texts: readonly string[]): Readonly<Record<string, string>> {
  const pairs = new Map<string, string>();
  for (const part of texts.flatMap((text) => text.split(",")).map((piece) => piece.trim())) {
    if (part === "") continue;
    const at = part.indexOf("=");
    const key = at < 0 ? part : part.slice(0, at).trim();
    const value = at < 0 ? "" : part.slice(at + 1).trim();
    if (key === "" || value === "") throw new InputError("input.option", `${flag} "${part}" must be key=value`, { flag, part });
    if (pairs.has(key)) throw new InputError("input.option", `${flag} has ${key} twice: ${pairs.get(key)} and ${value}`, { flag, key });
    pairs.set(key, value);
  }
  return Object.fromEntries(pairs);
}

/** "a,b" (repeatable) → ["a", "b"]. */
export function parseList(texts: readonly string[]): readonly string[] {
  return texts
    .flatMap((text) => text.split(","))
    .map((item) => item.trim())
    .filter((item) => item !== "");
}

/** Commander's collector for repeatable options. */
export function collect(value: string, previous: readonly string[] | undefined): readonly string[] {
  return [...(previous ?? []), value];
}
