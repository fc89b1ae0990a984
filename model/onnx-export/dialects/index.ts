/**
 * Every dialect by name. Adding one is a file beside this one and a line here.
 * @module
 */
import { InputError } from "../../../core/errors.ts";
import { CONTRIB } from "./contrib.ts";
import type { Dialect } from "./dialect.ts";
import { PLAIN } from "./plain.ts";
import { STANDARD } from "./standard.ts";

export const DIALECT_NAMES = ["contrib", "standard", "plain"] as const;
export type DialectName = (typeof DIALECT_NAMES)[number];

const DIALECTS: Readonly<Record<DialectName, Dialect>> = { contrib: CONTRIB, standard: STANDARD, plain: PLAIN };

export function findDialect(name: DialectName): Dialect {
  return DIALECTS[name];
}

/** @throws {InputError} `input.option` naming the known ones. */
export function readDialectName(text: string): DialectName {
  const found = DIALECT_NAMES.find((known) => known === text);
  if (found !== undefined) return found;
  throw new InputError("input.option", `--operators "${text}" is not known; known: ${DIALECT_NAMES.join(", ")}`, {
    option: "operators",
    given: text,
    known: DIALECT_NAMES,
  });
}
