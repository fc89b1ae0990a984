/**
 * Every method, by name. To add one: a folder beside this file and one line below.
 * @module
 */
import type { Method } from "../method.ts";
import { rtn } from "./rtn/rtn.ts";

export const METHODS: Readonly<Record<"rtn", Method>> = { rtn };

/** The method called `name`, if there is one. */
export function findMethod(name: string): Method | undefined {
  return new Map<string, Method>(Object.entries(METHODS)).get(name);
}
