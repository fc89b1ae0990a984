/**
 * Lossless compression as a job: plan, write, report.
 * @module
 */
import { throwIfAborted } from "../../core/errors.ts";
import type { Model } from "../../model/model.ts";
import { claimOutput, finishOutput } from "../output-directory.ts";
import { checkBudgets } from "../budgets.ts";
import type { Plan, QuantizeOptions, QuantizeReport, Recipe, SiteReport } from "../types.ts";
import { checkApart, keyOf, pathOf, requestOf } from "./claim.ts";
import { planCompact, quantizeCompact } from "./compact/run.ts";
import { isLosslessMethod } from "./methods.ts";
import { codecName } from "./options.ts";
import { createLosslessPool, prepareLossless } from "./prepare.ts";
import { verifyLossless, verifyWritten } from "./verify.ts";
import { writeLossless } from "./write.ts";

/**
 * Up to this many source bytes the finished artifact is decoded once more as a whole. At any size each unit is decoded from its file and compared
 * with the source before it counts as written, copies are read back, and names, sizes, headers and small files are checked at the end.
 */
const REREAD_BYTES = 2 ** 28;

/** Whether a recipe is for this folder. */
export function isLossless({ method }: Recipe): boolean {
  return method.some(isLosslessMethod);
}

/** The plan of a lossless run: reads the units once, writes nothing. @throws as {@link quantizeLossless} before it starts. */
export async function planLossless(source: string | Model, options: QuantizeOptions): Promise<Plan> {
  const codec = codecName(options.recipe);
  if (codec !== "df11") return planCompact(source, codec, options);
  const pool = createLosslessPool(options.workers ?? 2);
  try {
    return (await prepareLossless(pathOf(source), options, pool)).plan;
  } finally {
    await pool.close();
  }
}

/**
 * Compress without loss. Every unit is decoded and compared before it counts as written; interrupted, the same call goes on.
 *
 * @throws {InputError}, {UnsupportedError}, {FormatError}, {BudgetError} before anything is written; {VerifyError}; {InterruptedError}.
 */
export async function quantizeLossless(source: string | Model, options: QuantizeOptions): Promise<QuantizeReport> {
  const named = codecName(options.recipe);
  if (named !== "df11") return quantizeCompact(source, named, options);
  const started = performance.now();
  const cpuBefore = process.cpuUsage();
  throwIfAborted(options.signal);
  const path = pathOf(source);
  const { out } = options;
  await checkApart(path, out);
  const pool = createLosslessPool(options.workers ?? 2);
  try {
    const prepared = await prepareLossless(path, options, pool);
    const { plan } = prepared;
    await checkBudgets(plan, options);
    const key = await keyOf(prepared.source, prepared.codec.name, options);
    const output = await claimOutput({ directory: out, key, request: requestOf(path, options), force: options.force === true });
    try {
      // What is stored must not depend on this machine's threads.
      const recorded: Plan = { ...plan, estimate: { ...plan.estimate, memoryBytes: 0, seconds: 0 } };
      const written = await writeLossless(prepared, recorded, output, options, pool);
      const verified =
        plan.source.bytes <= REREAD_BYTES
          ? await verifyLossless(
              out,
              { ...(options.signal && { signal: options.signal }), ...(options.onProgress && { onProgress: options.onProgress }) },
              pool,
            )
          : await verifyWritten(out);
      await finishOutput(output);
      const cpu = process.cpuUsage(cpuBefore);
      return {
        out: [{ format: prepared.codec.name, directory: out, bytes: written.bytes, files: written.files }],
        plan,
        sites: siteReports(plan),
        sourceBytes: plan.source.bytes,
        outputBytes: written.bytes,
        seconds: (performance.now() - started) / 1000,
        cpuSeconds: (cpu.user + cpu.system) / 1e6,
        peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
        resumed: output.resumed,
        verified,
        warnings: plan.notes,
      };
    } finally {
      await output.journal.close();
    }
  } finally {
    await pool.close();
  }
}

/** One row a unit. */
function siteReports({ lossless, recipe }: Plan): readonly SiteReport[] {
  // Exact is what is stored; against the source a cast is not.
  const cast = recipe.cast === undefined ? undefined : `after rounding to ${recipe.cast}`;
  return lossless!.units.map(({ name, bitsPerWeight, refusal }) => ({
    name,
    scheme: refusal === undefined ? `${lossless!.codec} ${bitsPerWeight.toFixed(3)} bits` : "bf16",
    sqnr: Infinity,
    ...((refusal ?? cast) !== undefined && { note: refusal ?? cast! }),
  }));
}
