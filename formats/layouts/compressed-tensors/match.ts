/**
 * Which group a module belongs to: by exact name, then by pattern, then by class.
 *
 * Source: compressed-tensors 0.19 `match_targets` (order) and `match_name` (anchored at the start, not at the end).
 * @module
 */
import { FormatError } from "../../../core/errors.ts";
import type { CompressedTensorsConfig, ConfigGroup } from "./config.ts";
import { compilePattern, MATCH_STEPS, type MatchBudget, type Pattern } from "../../pattern.ts";

const REGEX = "re:";
/** Longest module name that is matched against a pattern; real ones stay under 200 characters. */
const MAX_NAME_LENGTH = 1000;
/** Class a module with a quantized matrix has: the only one, besides embeddings, that the library quantizes. */
const LINEAR = "Linear";

export interface Matcher {
  /** Whether `ignore` names the module. */
  readonly isIgnored: (module: string) => boolean;
  /** The group of a module known to be quantized; undefined when no target names it. */
  readonly groupOf: (module: string) => ConfigGroup | undefined;
}

interface Names {
  readonly exact: ReadonlyMap<string, ConfigGroup>;
  readonly patterns: readonly { readonly pattern: Pattern; readonly group: ConfigGroup }[];
}

/** @throws {FormatError} and {UnsupportedError} for patterns, as `compilePattern`; `format.config` for a module name too long to match. */
export function createMatcher(config: CompressedTensorsConfig): Matcher {
  const budget = { left: MATCH_STEPS };
  const targets = collect(
    config.groups.flatMap((group) => group.targets.map((target) => ({ target, group }))),
    budget,
  );
  const none: ConfigGroup = { name: "", targets: [], weights: undefined, input: undefined, output: undefined, format: undefined };
  const ignored = collect(
    config.ignore.map((target) => ({ target, group: none })),
    budget,
  );
  const find = (names: Names, module: string): ConfigGroup | undefined => {
    const exact = names.exact.get(module);
    if (exact !== undefined || names.patterns.length === 0) return exact;
    if (module.length > MAX_NAME_LENGTH) {
      throw new FormatError("format.config", `module name of ${module.length} characters; patterns are matched up to ${MAX_NAME_LENGTH}`);
    }
    return names.patterns.find(({ pattern }) => pattern.matches(module))?.group;
  };
  return {
    isIgnored: (module) => find(ignored, module) !== undefined || ignored.exact.has(LINEAR),
    groupOf: (module) => find(targets, module) ?? targets.exact.get(LINEAR),
  };
}

/** A later group takes a target over, as in the library; patterns are tried in the library's (alphabetical) order. */
function collect(entries: readonly { readonly target: string; readonly group: ConfigGroup }[], budget: MatchBudget): Names {
  const all = new Map(entries.map(({ target, group }) => [target, group]));
  const patterns = [...all].filter(([target]) => target.startsWith(REGEX)).toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return {
    exact: all,
    patterns: patterns.map(([target, group]) => ({ pattern: compilePattern(target.slice(REGEX.length), budget), group })),
  };
}

/** Whether any of a list of names and `re:` patterns names a module. */
export function createNameMatcher(names: readonly string[]): (module: string) => boolean {
  const { isIgnored } = createMatcher({ groups: [], ignore: names, format: "dense" });
  return isIgnored;
}
