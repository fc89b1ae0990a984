/**
 * Whether a run fits the memory and the disk it has.
 * @module
 */
import { statfs } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { BudgetError } from "../core/errors.ts";
import type { Plan, QuantizeOptions } from "./types.ts";

const MIB = 2 ** 20;

/**
 * Refuse a run that will not fit.
 *
 * @throws {BudgetError} `budget.memory` or `budget.disk`, naming what is needed and what there is.
 */
export async function checkBudgets(plan: Plan, options: QuantizeOptions): Promise<void> {
  const { memoryBytes, diskBytes } = plan.estimate;
  const { maxMemory } = options;
  if (maxMemory !== undefined && memoryBytes > maxMemory) {
    throw new BudgetError(
      "budget.memory",
      `about ${inMiB(memoryBytes)} of memory are needed, --max-memory allows ${inMiB(maxMemory)}; raise it, use fewer --samples, or fewer --workers`,
      { needed: memoryBytes, allowed: maxMemory },
    );
  }
  const free = await freeBytes(options.out);
  if (free !== undefined && free < diskBytes) {
    throw new BudgetError("budget.disk", `the output takes ${inMiB(diskBytes)}, ${options.out} has ${inMiB(free)} free`, {
      needed: diskBytes,
      free,
    });
  }
}

const inMiB = (bytes: number): string => `${Math.ceil(bytes / MIB)} MiB`;

/** Free bytes of the file system that `path` will be on; undefined where the system does not say. */
async function freeBytes(path: string): Promise<number | undefined> {
  for (let place = resolve(path); ; place = dirname(place)) {
    try {
      const { bavail, bsize } = await statfs(place);
      return bavail * bsize;
    } catch {
      if (dirname(place) === place) return undefined;
    }
  }
}
