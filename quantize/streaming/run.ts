/**
 * Runs tensor tasks over a pool of workers, one tensor a worker at a time.
 *
 * A tensor is never split: its hash and its error sums are then those of one
 * pass over its bytes, whatever the number of workers. Large tensors start
 * first, so that the workers end within one tensor of each other.
 * @module
 */
import { extname } from "node:path";
import { byteLength } from "../../core/dtype.ts";
import { createPool } from "../../kernels/pool.ts";
import { run } from "./execute.ts";
import type { TaskResult, TensorTask } from "./task.ts";

export interface RunTasksOptions {
  /** Worker threads; 0 works in the calling thread. The bytes written do not depend on it. */
  readonly workers: number;
  readonly signal?: AbortSignal | undefined;
  /** Called as each task ends, in no fixed order. */
  readonly onDone?: (result: TaskResult) => void;
  /** Source bytes worked through so far, of all. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/**
 * @returns results in task order.
 * @throws the first task's error; the other tasks are stopped first. What was written stays for the caller to remove or resume.
 */
export async function runTasks(tasks: readonly TensorTask[], options: RunTasksOptions): Promise<readonly TaskResult[]> {
  const { workers, signal, onDone, onProgress } = options;
  const sizes = tasks.map(({ input }) => byteLength(input.dtype, input.shape));
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const order = tasks.map((_, index) => index).toSorted((a, b) => sizes[b]! - sizes[a]! || a - b);
  const module = new URL(`./execute${extname(new URL(import.meta.url).pathname)}`, import.meta.url);
  const pool = createPool<TensorTask, TaskResult>({ workers: Math.min(workers, tasks.length), module, run });
  const results: TaskResult[] = [];
  let done = 0;
  try {
    await pool.map(
      order.map((index) => tasks[index]!),
      {
        signal,
        onProgress(bytes) {
          done += bytes;
          onProgress?.(Math.min(done, total), total);
        },
        onResult(result, position) {
          results[order[position]!] = result;
          onDone?.(result);
        },
      },
    );
    return results;
  } finally {
    await pool.close();
  }
}
