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
const context: JobContext = {
  workspace: createWorkspace(),
  async breathe() {
    if (Atomics.load(settings.stop, 0) !== 0) throw new InterruptedError("interrupted; run the same command again to continue");
  },
  progress: (amount) => send({ kind: "progress", amount }),
};

parentPort!.on("message", (task: unknown) => {
  const mark = context.workspace.mark();
  run(task, context)
    .then(
      (result) => send({ kind: "result", result }),
      (error: unknown) => send({ kind: "error", error: packError(error) }),
    )
    .finally(() => context.workspace.release(mark));
});
