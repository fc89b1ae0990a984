/**
 * The worker side of `pool.ts`: imports a job and runs one task at a time.
 * @module
 */
import { parentPort, workerData } from "node:worker_threads";
import { InterruptedError } from "../core/errors.ts";
import { createWorkspace } from "./load-wasm.ts";
import type { Job, JobContext, WorkerMessage, WorkerSettings } from "./pool.ts";
import { packError } from "./transfer-errors.ts";

const settings = workerData as WorkerSettings;
const { run } = (await import(settings.module)) as { run: Job<unknown, unknown> };
const send = (message: WorkerMessage): void => parentPort!.postMessage(message);

/** A message wakes both threads: a tenth of the time of a job that sent one for each piece of its work. */
const PROGRESS_MILLISECONDS = 50;
let unsent = 0;
let sentAt = -Infinity;
const sendProgress = (): void => {
  if (unsent !== 0) send({ kind: "progress", amount: unsent });
  unsent = 0;
  sentAt = performance.now();
};
const context: JobContext = {
  workspace: createWorkspace(),
  async breathe() {
    if (Atomics.load(settings.stop, 0) !== 0) throw new InterruptedError("interrupted; run the same command again to continue");
  },
  progress(amount) {
    unsent += amount;
    if (performance.now() - sentAt >= PROGRESS_MILLISECONDS) sendProgress();
  },
};

parentPort!.on("message", (task: unknown) => {
  const mark = context.workspace.mark();
  run(task, context)
    .then(
      (result) => {
        sendProgress();
        send({ kind: "result", result });
      },
      (error: unknown) => {
        sendProgress();
        send({ kind: "error", error: packError(error) });
      },
    )
    .finally(() => context.workspace.release(mark));
});
