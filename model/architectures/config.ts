/**
 * ConfigReader: typed, checked reading of a parsed config.json. A key that is absent
 * or null takes the class default of Hugging Face transformers; a key that is there
 * with another type or out of range is an error that names it.
 * @module
 */
import { FormatError } from "../../core/errors.ts";

/** Sizes and counts above this are refused: no tensor has such a dimension, and products stay exact. */
const LARGEST_SIZE = 2 ** 31 - 1;

export class ConfigReader {
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #path: string;

  /** @param path - where `values` sits in config.json, for messages; "" at the top. */
  constructor(values: Readonly<Record<string, unknown>>, path = "") {
    this.#values = values;
    this.#path = path;
  }

  /** Whether the key is there, null included. */
  has(key: string): boolean {
    return Object.hasOwn(this.#values, key);
  }

  isEmpty(): boolean {
    return Object.keys(this.#values).length === 0;
  }

  /** The value as parsed; undefined when absent. Never an inherited property. */
  raw(key: string): unknown {
    return this.has(key) ? this.#values[key] : undefined;
  }

  /** The first of `keys` that is there and not null: newer and older spellings of one setting. */
  firstOf(keys: readonly string[]): string {
    return keys.find((key) => this.raw(key) !== undefined && this.raw(key) !== null) ?? keys[0]!;
  }

  /** A positive integer. @throws {FormatError} `format.config` */
  size(key: string, fallback?: number): number {
    const value = this.#given(key) ?? fallback;
    if (isInteger(value, 1)) return value;
    return this.fail(key, `an integer from 1 to ${LARGEST_SIZE}`);
  }

  /** An integer from 0. @throws {FormatError} `format.config` */
  count(key: string, fallback: number): number {
    const value = this.#given(key) ?? fallback;
    if (isInteger(value, 0)) return value;
    return this.fail(key, `an integer from 0 to ${LARGEST_SIZE}`);
  }

  /** A positive integer; undefined when absent or null. @throws {FormatError} `format.config` */
  optionalSize(key: string): number | undefined {
    return this.#given(key) === undefined ? undefined : this.size(key);
  }

  /** As `optionalSize`, for settings where null switches off but an absent key has a default. */
  nullableSize(key: string, absent: number): number | undefined {
    return this.has(key) ? this.optionalSize(key) : absent;
  }

  /** A finite number above 0. @throws {FormatError} `format.config` */
  positive(key: string, fallback?: number): number {
    const value = this.#given(key) ?? fallback;
    if (typeof value === "number" && Number.isFinite(value) && value > 0) return value;
    return this.fail(key, "a number above 0");
  }

  /** A finite number above 0; undefined when absent or null. @throws {FormatError} `format.config` */
  optionalPositive(key: string): number | undefined {
    return this.#given(key) === undefined ? undefined : this.positive(key);
  }

  /** As `optionalPositive`, for settings where null switches off but an absent key has a default. */
  nullablePositive(key: string, absent: number): number | undefined {
    return this.has(key) ? this.optionalPositive(key) : absent;
  }

  /** @throws {FormatError} `format.config` */
  flag(key: string, fallback: boolean): boolean {
    const value = this.#given(key) ?? fallback;
    if (typeof value === "boolean") return value;
    return this.fail(key, "true or false");
  }

  /** @throws {FormatError} `format.config` */
  text(key: string, fallback?: string): string {
    const value = this.#given(key) ?? fallback;
    if (typeof value === "string") return value;
    return this.fail(key, "a string");
  }

  /** A list whose entries satisfy `check`; undefined when absent or null. @throws {FormatError} `format.config` */
  list<T>(key: string, check: (value: unknown) => value is T, expected: string): readonly T[] | undefined {
    const value = this.#given(key);
    if (value === undefined) return undefined;
    if (Array.isArray(value) && value.every(check)) return value;
    return this.fail(key, `a list of ${expected}`);
  }

  /** A nested object; undefined when absent or null. @throws {FormatError} `format.config` */
  object(key: string): ConfigReader | undefined {
    const value = this.#given(key);
    if (value === undefined) return undefined;
    if (isRecord(value)) return new ConfigReader(value, this.#name(key));
    return this.fail(key, "an object");
  }

  /** @throws {FormatError} `format.config` naming the key, its value and what is expected. */
  fail(key: string, expected: string): never {
    const name = this.#name(key);
    const value = this.raw(key);
    const shown = value === undefined ? "missing" : shorten(JSON.stringify(value));
    throw new FormatError("format.config", `config.json: ${name} is ${shown}, expected ${expected}`, { key: name, value, expected });
  }

  #given(key: string): unknown {
    return this.raw(key) ?? undefined;
  }

  #name(key: string): string {
    return this.#path === "" ? key : `${this.#path}.${key}`;
  }
}

/** Whether `value` is a JSON object. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function isString(value: unknown): value is string {
  return typeof value === "string";
}

/** A finite number above 0. */
export function isPositive(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value > 0;
}

/** An integer from `least` up to the largest size. */
export function isInteger(value: unknown, least: number): value is number {
  return Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= LARGEST_SIZE;
}

function shorten(text: string): string {
  return text.length <= 120 ? text : `${text.slice(0, 117)}...`;
}
