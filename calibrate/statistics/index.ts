/**
 * Statistics by name.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import type { Statistic } from "../statistic.ts";
import { absmax } from "./absmax.ts";
import { hessian } from "./hessian.ts";
import { histogram } from "./histogram.ts";
import { meanabs } from "./meanabs.ts";
import { minmax } from "./minmax.ts";

/** Every statistic. To add one: a file beside this one and one line below. */
export const STATISTICS: Readonly<Record<string, Statistic>> = {
  absmax,
  minmax,
  meanabs,
  histogram,
  hessian,
};

/** @throws {InputError} `input.option` naming the known ones. */
export function findStatistic(name: string): Statistic {
  if (Object.hasOwn(STATISTICS, name)) return STATISTICS[name]!;
  throw new InputError("input.option", `there is no statistic "${name}"; known: ${Object.keys(STATISTICS).join(", ")}`, {
    given: name,
    known: Object.keys(STATISTICS),
  });
}
