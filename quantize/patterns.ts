/**
 * Site patterns: how users name modules.
 *
 * "re:<regex>" is matched from the start of the full name, as the
 * compressed-tensors library does; "*" stands for any run of characters; a
 * plain text is a full name or the last parts of one ("down_proj", "mlp.down_proj").
 * @module
 */
import { InputError } from "../core/errors.ts";

/** @throws {InputError} `input.option` when a regular expression does not parse. */
export function compilePattern(pattern: string): (name: string) => boolean {
  if (pattern.startsWith("re:")) {
    const expression = compileRegex(pattern.slice(3));
    return (name) => expression.test(name);
  }
  if (pattern.includes("*")) {
    const expression = new RegExp(`^(?:.*\\.)?${pattern.split("*").map(escapeRegex).join(".*")}$`);
    return (name) => expression.test(name);
  }
  return (name) => name === pattern || name.endsWith(`.${pattern}`);
}

/** Whether any of the patterns matches. */
export function compilePatterns(patterns: readonly string[]): (name: string) => boolean {
  const tests = patterns.map(compilePattern);
  return (name) => tests.some((test) => test(name));
}

/**
 * Refuse patterns that match nothing: a misspelt name would silently change the result.
 *
 * @throws {InputError} `input.option` naming the pattern; `details.known` holds the local names there are.
 */
export function requireMatches(option: string, patterns: readonly string[], names: readonly string[]): void {
  for (const pattern of patterns) {
    if (names.some(compilePattern(pattern))) continue;
    const known = [...new Set(names.map((name) => name.split(".").at(-1)!))];
    throw new InputError("input.option", `--${option} "${pattern}" matches no linear site; sites end in ${known.slice(0, 12).join(", ")}`, {
      option,
      given: pattern,
      known,
    });
  }
}

function compileRegex(source: string): RegExp {
  try {
    return new RegExp(`^(?:${source})`);
  } catch (error) {
    throw new InputError("input.option", `pattern "re:${source}" is not a regular expression`, { pattern: source }, { cause: error });
  }
}

function escapeRegex(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
