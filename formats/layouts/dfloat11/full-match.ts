/**
 * `re.fullmatch` of Python for the keys of `pattern_dict`, in bounded time.
 * @module
 */
import { compilePattern } from "../../pattern.ts";

/**
 * @param pattern - a Python regular expression.
 * @returns whether all of a text matches it.
 * @throws {FormatError} `format.config` / {UnsupportedError} `unsupported.format` as `compilePattern`.
 */
export function compileFullMatch(pattern: string): (text: string) => boolean {
  const compiled = compilePattern(`(?:${pattern})\\Z`);
  return (text) => compiled.matches(text);
}
