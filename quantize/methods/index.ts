/**
 * Every method, by name. To add one: a folder beside this file and one line below.
 * @module
 */
import { parseBits } from "../bits.ts";
import type { Method } from "../method.ts";
import { blockMethods, type BlockMethodName } from "./blocks/blocks.ts";
import { rtn } from "./rtn/rtn.ts";

export const METHODS: Readonly<Record<"rtn" | BlockMethodName, Method>> = { rtn, ...blockMethods(rtn) };

function isBits(name: string): boolean {
  try {
    return parseBits(name).block !== undefined;
  } catch {
    return false;
  }
}

/** The method called `name`, if there is one. */
export function findMethod(name: string): Method | undefined {
  const found = new Map<string, Method>(Object.entries(METHODS)).get(name);
  if (found !== undefined) return found;
  // "bfp12", "mxfp4a16", "nvfp4a16": a format with its width, or for weights alone, is a method as well.
  const family = Object.values(METHODS).find((method) => method.family !== undefined && name.startsWith(method.family));
  if (family === undefined || !isBits(name)) return undefined;
  return { ...family, name, defaultBits: name };
}
