/**
 * Arguments as people type them: options of every command may stand in front
 * of it, and a misspelt command is not a model.
 * @module
 */
import { existsSync } from "node:fs";
import { suggest } from "./suggest.ts";

/** Options without a value that every command has. */
const GLOBAL_FLAGS: ReadonlySet<string> = new Set(["--json", "--quiet", "--no-progress"]);

/** `--json eval model` → `eval model --json`: commands own their options. */
export function commandFirst(args: readonly string[], commands: readonly string[]): readonly string[] {
  const first = args.findIndex((arg) => !GLOBAL_FLAGS.has(arg));
  if (first <= 0 || !commands.includes(args[first]!)) return args;
  return [args[first]!, ...args.slice(0, first), ...args.slice(first + 1)];
}

/** The command that was meant, when the first word is nearly one and nothing of that name exists. */
export function meantCommand(args: readonly string[], commands: readonly string[]): string | undefined {
  const word = args.find((arg) => !arg.startsWith("-"));
  if (word === undefined || args[0] !== word || commands.includes(word) || existsSync(word)) return undefined;
  return suggest(word, commands)[0];
}
