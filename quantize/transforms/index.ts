/**
 * Every transform, by name. To add one: a folder beside this file and one line below.
 * @module
 */
import type { Transform } from "../method.ts";
import { reorder } from "./reorder/reorder.ts";
import { smoothquant } from "./smoothquant/smoothquant.ts";

export const TRANSFORMS: Readonly<Record<"smoothquant" | "reorder", Transform>> = { smoothquant, reorder };

/** The transform called `name`, if there is one. */
export function findTransform(name: string): Transform | undefined {
  return new Map<string, Transform>(Object.entries(TRANSFORMS)).get(name);
}
