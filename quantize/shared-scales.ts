/**
 * NVFP4: one divisor for layers that read the same input (q, k, v; gate, up), because runtimes run them as one product.
 * @module
 */
import { nvfp4GlobalScale } from "../core/blocks/quantize.ts";
import type { LinearSite } from "../model/model.ts";
import type { Decisions } from "./decisions.ts";
import { factorsOf, inputOf } from "./output-tasks.ts";
import type { Prepared } from "./prepare.ts";
import { runTasks } from "./streaming/run.ts";
import type { RangeTask } from "./streaming/task.ts";
import type { QuantizeOptions } from "./types.ts";

/** Divisors by tensor name; empty when no weight is NVFP4. Reads every such weight once. */
export async function sharedScales(
  { model, choices, settings }: Prepared,
  decisions: Pick<Decisions, "folds">,
  options: Pick<QuantizeOptions, "workers" | "signal">,
): Promise<ReadonlyMap<string, number>> {
  const isNvfp4 = new Set(choices.filter(({ plan }) => plan.weight?.scale === "e4m3").map(({ site }) => site.name));
  if (isNvfp4.size === 0) return new Map();
  const groups = model.blocks.flatMap((block) => {
    const byInput = new Map<string, LinearSite[]>();
    for (const site of block.sites) if (isNvfp4.has(site.name)) byInput.set(site.input, [...(byInput.get(site.input) ?? []), site]);
    return [...byInput.values()];
  });
  const names = groups.flat().map(({ name }) => `${name}.weight`);
  const tasks: RangeTask[] = [];
  for (const name of names) {
    const fold = decisions.folds.get(name);
    const input = await inputOf(model.tensors.get(name)!);
    tasks.push({ kind: "range", name, input, arithmetic: settings.arithmetic, ...(fold && { factors: factorsOf(fold) }), outputs: [] });
  }
  const largest = new Map<string, number>();
  await runTasks(tasks, {
    workers: options.workers ?? 2,
    signal: options.signal,
    onDone: ({ name, absMax = 0 }) => void largest.set(name, absMax),
    onProgress: () => undefined,
  });
  return new Map(
    groups.flatMap((sites) => {
      const most = Math.max(...sites.map(({ name }) => largest.get(`${name}.weight`)!));
      return sites.map(({ name }): [string, number] => [`${name}.weight`, nvfp4GlobalScale(most, settings.arithmetic)]);
    }),
  );
}
