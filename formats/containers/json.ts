/**
 * JSON from outside: bounded depth, duplicate keys seen, nothing that could touch a prototype.
 *
 * `JSON.parse` checks the grammar but keeps the last of two equal keys and builds what it is
 * told to, however deep. So the text is scanned first, in one pass without recursion.
 * @module
 */
import { FormatError, type FormatCode } from "../../core/errors.ts";

export interface JsonRules {
  /** For messages: a file name. */
  readonly name: string;
  /** Deepest nesting of objects and arrays. */
  readonly maxDepth: number;
  /** Code of the error for text that is not JSON, too deep, or not an object. */
  readonly code: FormatCode;
  /** `refuse`: two equal keys in one object are an error. `last`: the later one counts, as in every JSON reader. */
  readonly duplicates: "refuse" | "last";
  /** Keys whose arrays may hold plain non-negative integer literals only: no sign, fraction or exponent. */
  readonly integers?: ReadonlySet<string>;
  /** Byte position of the text in its file, for messages. */
  readonly offset?: number;
}

/**
 * Parse a JSON object.
 *
 * @returns an object whose keys are own properties, `__proto__` included where the rules let it through
 *   (only where `duplicates` is `refuse`: such maps are read with `Object.entries` alone).
 * @throws {FormatError} `rules.code`; `format.duplicate` for two equal keys.
 */
export function parseJsonObject(bytes: Uint8Array, rules: JsonRules): Readonly<Record<string, unknown>> {
  const text = decodeText(bytes, rules);
  scan(text, rules);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(rules.code, `${rules.name} is not JSON: ${describe(cause)}`, { name: rules.name }, { cause });
  }
  if (!isObject(value)) {
    const found = Array.isArray(value) ? "an array" : value === null ? "null" : `a ${typeof value}`;
    throw new FormatError(rules.code, `${rules.name} must hold a JSON object, found ${found}`, { name: rules.name });
  }
  return value;
}

/** Whether a parsed JSON value is an object (not null, not an array). */
export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function decodeText(bytes: Uint8Array, { code, name }: JsonRules): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new FormatError(code, `${name} is not UTF-8 text`, { name }, { cause });
  }
}

/** What V8 says about a syntax error quotes the text; keep it short and on one line. */
function describe(cause: unknown): string {
  const text = cause instanceof Error ? cause.message : String(cause);
  return text.replace(/\s+/g, " ").slice(0, 160);
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
const COLON = 0x3a;
const COMMA = 0x2c;

interface Level {
  /** Keys seen so far; absent in an array. */
  readonly keys?: Set<string>;
  /** Key this container is the value of; "" at the top and inside arrays. */
  readonly under: string;
  /** Object: the next string is a key. */
  expectsKey: boolean;
  /** Object: the key whose value comes next. */
  key: string;
}

/**
 * One pass over text that may not be JSON at all: whatever it misjudges there, JSON.parse refuses.
 * Time is linear in the text; memory is its keys.
 */
function scan(text: string, rules: JsonRules): void {
  const levels: Level[] = [];
  let top: Level | undefined;
  let i = 0;
  while (i < text.length) {
    const c = text.charCodeAt(i);
    if (c === QUOTE) {
      const end = stringEnd(text, i);
      if (top?.keys !== undefined && top.expectsKey) {
        const key = decodeKey(text.slice(i, end), i, rules);
        checkKey(key, top.keys, i, rules);
        top.keys.add(key);
        top.key = key;
        top.expectsKey = false;
      }
      i = end;
      continue;
    }
    if (c === OPEN_OBJECT || c === OPEN_ARRAY) {
      if (levels.length === rules.maxDepth) {
        throw new FormatError(rules.code, `${rules.name} is nested deeper than ${rules.maxDepth} levels at ${place(i, rules)}`, {
          name: rules.name,
          limit: rules.maxDepth,
        });
      }
      const under = top?.keys === undefined ? "" : top.key;
      top = c === OPEN_OBJECT ? { keys: new Set(), under, expectsKey: true, key: "" } : { under, expectsKey: false, key: "" };
      levels.push(top);
    } else if (c === CLOSE_OBJECT || c === CLOSE_ARRAY) {
      levels.pop();
      top = levels.at(-1);
    } else if (c === COMMA) {
      if (top?.keys !== undefined) top.expectsKey = true;
    } else if (c > 0x20 && c !== COLON && rules.integers !== undefined && top !== undefined) {
      const end = tokenEnd(text, i);
      if (top.keys === undefined && rules.integers.has(top.under) && !/^(?:0|[1-9][0-9]*)$/.test(text.slice(i, end))) {
        throw new FormatError(
          rules.code,
          `${rules.name}: ${top.under} holds ${text.slice(i, Math.min(end, i + 40))} at ${place(i, rules)}; only non-negative integers are allowed`,
          { name: rules.name, field: top.under },
        );
      }
      i = end;
      continue;
    }
    i++;
  }
}

/** Index after the closing quote of the string that starts at `start`, or the end of the text. */
function stringEnd(text: string, start: number): number {
  for (let i = start + 1; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === BACKSLASH) i++;
    else if (c === QUOTE) return i + 1;
  }
  return text.length;
}

/** Index after a number or word. */
function tokenEnd(text: string, start: number): number {
  let i = start + 1;
  for (; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c <= 0x20 || c === COMMA || c === CLOSE_OBJECT || c === CLOSE_ARRAY || c === COLON || c === QUOTE) break;
    if (c === OPEN_OBJECT || c === OPEN_ARRAY) break;
  }
  return i;
}

function decodeKey(quoted: string, at: number, rules: JsonRules): string {
  if (!quoted.includes("\\")) return quoted.slice(1, -1);
  try {
    return String(JSON.parse(quoted));
  } catch (cause) {
    throw new FormatError(rules.code, `${rules.name} is not JSON: bad string at ${place(at, rules)}`, { name: rules.name }, { cause });
  }
}

function checkKey(key: string, seen: ReadonlySet<string>, at: number, rules: JsonRules): void {
  if (rules.duplicates === "refuse") {
    if (!seen.has(key)) return;
    throw new FormatError(
      "format.duplicate",
      `${rules.name} has ${JSON.stringify(key.slice(0, 200))} twice, again at ${place(at, rules)}`,
      {
        name: rules.name,
        key,
      },
    );
  }
  if (key === "__proto__") {
    throw new FormatError(rules.code, `${rules.name} has a key "__proto__" at ${place(at, rules)}`, { name: rules.name, key });
  }
}

function place(at: number, { offset }: JsonRules): string {
  return offset === undefined ? `character ${at}` : `character ${at} of the header (from byte ${offset})`;
}
