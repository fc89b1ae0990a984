/**
 * A pool of worker threads, each with its own kernels and shared memory.
 *
 * A job is a module that exports `run(task, context)`; tasks and results are
 * plain data. The same job runs in the calling thread with `workers: 0`.
 * @module
 */
import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import { BudgetError, InputError, InterruptedError, WorkerError, throwIfAborted } from "../core/errors.ts";
import { createWorkspace, type Workspace } from "./load-wasm.ts";
import { unpackError, type PackedError } from "./transfer-errors.ts";

/** What a job gets beside its task. */
export interface JobContext {
  /** Kernels and memory of this thread, kept from task to task; the job marks and releases. */
  readonly workspace: Workspace;
  /** To be called every few milliseconds of work. @throws {InterruptedError} when the caller has aborted. */
  readonly breathe: () => Promise<void>;
  /** Tells the caller how much more is done, in the job's own unit. */
  readonly progress: (amount: number) => void;
}

export type Job<Task, Result> = (task: Task, context: JobContext) => Promise<Result>;

export interface PoolOptions<Task, Result> {
  /** Worker threads; 0 runs jobs in the calling thread. */
  readonly workers: number;
  /** The module whose `run` the workers import: `.ts` in a checkout, `.js` in a package. */
  readonly module: URL;
  /** The same `run`, for the calling thread. */
  readonly run: Job<Task, Result>;
}

export interface RunOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((amount: number) => void) | undefined;
}

export interface MapOptions<Result> extends RunOptions {
  /** Called as each task ends, in no fixed order; what it throws counts as the task's failure. */
  readonly onResult?: (result: Result, index: number) => void;
}

export interface Pool<Task, Result> {
  readonly workers: number;
  /**
   * Runs one task; tasks wait in order for a free worker.
   *
   * @throws what the job throws, with class, code and details kept; {InterruptedError} when `signal` aborts;
   *   {WorkerError} `worker.crashed` or {BudgetError} `budget.memory` when the thread ends instead of answering.
   */
  run(task: Task, options?: RunOptions): Promise<Result>;
  /** Runs all tasks; results in task order. The first failure stops the rest and is thrown. */
  map(tasks: readonly Task[], options?: MapOptions<Result>): Promise<Result[]>;
  /** Ends the workers; tasks still waiting or running are interrupted. */
  close(): Promise<void>;
}

/** What a worker sends. */
export type WorkerMessage =
  | { readonly kind: "progress"; readonly amount: number }
  | { readonly kind: "result"; readonly result: unknown }
  | { readonly kind: "error"; readonly error: PackedError };

/** What a worker is started with. */
export interface WorkerSettings {
  readonly module: string;
  /** One i32: 1 asks the running task to stop. */
  readonly stop: Int32Array;
}

interface Pending<Task, Result> {
  readonly task: Task;
  readonly options: RunOptions;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: Error) => void;
}

/** @throws {InputError} `input.option` for a negative or fractional number of workers. */
export function createPool<Task, Result>(options: PoolOptions<Task, Result>): Pool<Task, Result> {
  const { workers } = options;
  if (!Number.isInteger(workers) || workers < 0 || workers > 256) {
    throw new InputError("input.option", `workers must be a whole number from 0 to 256, not ${workers}`, { workers });
  }
  const start = workers === 0 ? startInThread(options) : startThreads(options);
  const run = (task: Task, runOptions: RunOptions = {}): Promise<Result> => start.run(task, runOptions);
  return {
    workers,
    run,
    async map(tasks, { onResult, ...runOptions } = {}) {
      // A failure of one stops the others through a signal of our own.
      const stop = new AbortController();
      const signal = runOptions.signal === undefined ? stop.signal : AbortSignal.any([stop.signal, runOptions.signal]);
      let failure: { readonly error: unknown } | undefined;
      const results = await Promise.all(
        tasks.map(async (task, index) => {
          try {
            const result = await run(task, { ...runOptions, signal });
            onResult?.(result, index);
            return result;
          } catch (error) {
            failure ??= { error };
            stop.abort();
            return undefined;
          }
        }),
      );
      if (failure !== undefined) throw failure.error;
      return results as Result[];
    },
    close: () => start.close(),
  };
}

interface Runner<Task, Result> {
  run(task: Task, options: RunOptions): Promise<Result>;
  close(): Promise<void>;
}

function startInThread<Task, Result>({ run }: PoolOptions<Task, Result>): Runner<Task, Result> {
  const workspace = createWorkspace();
  let closed = false;
  let last: Promise<unknown> = Promise.resolve();
  return {
    run(task, { signal, onProgress }) {
      const context: JobContext = {
        workspace,
        async breathe() {
          // Timers and signals of the caller get their turn.
          await new Promise((resolve) => setImmediate(resolve));
          if (closed) throw new InterruptedError("the pool was closed");
          throwIfAborted(signal);
        },
        progress: (amount) => onProgress?.(amount),
      };
      const result = last.then(async () => {
        await context.breathe();
        return await run(task, context);
      });
      last = result.catch(() => undefined);
      return result;
    },
    async close() {
      closed = true;
      await last;
    },
  };
}

/** Workers run compiled JavaScript in a package, and TypeScript through tsx in a checkout. */
function workerUrl(): URL {
  return new URL(extname(new URL(import.meta.url).pathname) === ".ts" ? "./worker-dev.js" : "./worker.js", import.meta.url);
}

function startThreads<Task, Result>({ workers, module }: PoolOptions<Task, Result>): Runner<Task, Result> {
  const queue: Pending<Task, Result>[] = [];
  const threads = new Set<Thread<Task, Result>>();
  let broken: Error | undefined;
  const fail = (error: Error): void => {
    broken ??= error;
    for (const pending of queue.splice(0)) pending.reject(error);
  };
  const next = (thread: Thread<Task, Result>): void => {
    for (let pending = queue.shift(); pending !== undefined; pending = queue.shift()) {
      if (!pending.options.signal?.aborted) return thread.take(pending);
      pending.reject(new InterruptedError("interrupted; run the same command again to continue"));
    }
  };
  return {
    run(task, options) {
      return new Promise((resolve, reject) => {
        if (broken !== undefined) return reject(broken);
        queue.push({ task, options, resolve, reject });
        const idle = [...threads].find((thread) => thread.isIdle());
        if (idle !== undefined) next(idle);
        else if (threads.size < workers) {
          const thread = startThread<Task, Result>(module, next, fail);
          threads.add(thread);
          next(thread);
        }
      });
    },
    async close() {
      fail(new InterruptedError("the pool was closed"));
      await Promise.all([...threads].map((thread) => thread.end()));
    },
  };
}

interface Thread<Task, Result> {
  isIdle(): boolean;
  take(pending: Pending<Task, Result>): void;
  end(): Promise<void>;
}

function startThread<Task, Result>(
  module: URL,
  next: (thread: Thread<Task, Result>) => void,
  fail: (error: Error) => void,
): Thread<Task, Result> {
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const settings: WorkerSettings = { module: module.href, stop };
  const worker = new Worker(workerUrl(), { workerData: settings });
  let current: Pending<Task, Result> | undefined;
  let ending = false;
  const onAbort = (): void => void Atomics.store(stop, 0, 1);
  /** The running task, which is then no longer running. */
  const finish = (): Pending<Task, Result> | undefined => {
    const pending = current;
    pending?.options.signal?.removeEventListener("abort", onAbort);
    current = undefined;
    return pending;
  };
  const thread: Thread<Task, Result> = {
    isIdle: () => current === undefined && !ending,
    take(pending) {
      current = pending;
      Atomics.store(stop, 0, 0);
      pending.options.signal?.addEventListener("abort", onAbort);
      worker.postMessage(pending.task);
    },
    async end() {
      ending = true;
      await worker.terminate();
    },
  };
  const crash = (error: Error): void => {
    fail(error);
    finish()?.reject(error);
  };
  worker.on("message", (message: WorkerMessage) => {
    if (message.kind === "progress") return current?.options.onProgress?.(message.amount);
    const pending = finish();
    if (message.kind === "error") pending?.reject(unpackError(message.error));
    else pending?.resolve(message.result as Result);
    next(thread);
  });
  worker.on("error", (cause: Error & { code?: string }) => {
    if (cause.code === "ERR_WORKER_OUT_OF_MEMORY") {
      crash(new BudgetError("budget.memory", `a worker thread ran out of memory: ${cause.message}`, {}, { cause }));
    } else crash(new WorkerError(`a worker thread failed: ${cause.message}`, {}, { cause }));
  });
  worker.on("exit", (exitCode) => {
    crash(
      ending
        ? new InterruptedError("the pool was closed")
        : new WorkerError(`a worker thread ended with code ${exitCode} before it answered; run the same command again`, { exitCode }),
    );
  });
  return thread;
}
