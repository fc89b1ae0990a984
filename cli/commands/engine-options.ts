/**
 * `--engine` and `--threads`, shared by every command that runs a model.
 * @module
 */
import { availableParallelism } from "node:os";
import type { Command } from "commander";
import { InputError } from "../../core/errors.ts";
import type { Engine } from "../../model/engines/engine.ts";
import type { Reporter } from "../io.ts";
import { parseInteger } from "../options.ts";

export interface EngineOptions {
  readonly engine?: string;
  readonly workers?: string;
}

const ENGINES = ["auto", "onnxruntime", "onnxruntime-web", "tfjs"] as const;

export function addEngineOptions(command: Command): void {
  command
    .option("--engine <name>", `what runs the model: ${ENGINES.join(", ")} (default auto)`)
    .option("--workers <n>", "threads and workers; never changes results; default: all cores");
}

/**
 * @param maxThreads - for results that become bytes: `REPRODUCIBLE_THREADS`.
 * @throws {InputError} `input.option` for an unknown engine or a bad count.
 */
export async function openEngine(options: EngineOptions, reporter: Reporter, maxThreads = Infinity): Promise<Engine> {
  const name = ENGINES.find((known) => known === (options.engine ?? "auto"));
  if (name === undefined) {
    throw new InputError("input.option", `--engine "${options.engine}" must be one of ${ENGINES.join(", ")}`, {
      word: options.engine,
      known: ENGINES,
    });
  }
  const { createEngine } = await import("../../model/engines/index.ts");
  const engine = await createEngine(name, { threads: Math.min(maxThreads, workerCount(options.workers)) });
  if (name === "auto" && !engine.name.startsWith("onnxruntime")) reporter.note(`engine: ${engine.description}`);
  return engine;
}

/** Progress of evaluation, in tokens × blocks, as events of one phase. */
export function evaluationProgress(
  reporter: Reporter,
): (progress: { readonly done: number; readonly total: number; readonly detail?: string }) => void {
  return (progress) => reporter.progress.report({ phase: "evaluate", unit: "tokens", ...progress });
}

/** `--workers`, or all cores. */
export function workerCount(text: string | undefined): number {
  return text === undefined ? availableParallelism() : parseInteger("--workers", text, 1, 1024);
}
