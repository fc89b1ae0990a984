/**
 * Parts of one tensor, decoded by several threads, seen in order: what a hash of the whole needs.
 * @module
 */

const MIN_LARGE_BYTES: number = 2 ** 24;

/** Whether `bytes` are so much of `total` that threads would wait for the one that decodes them. */
export function isLarge(bytes: number, total: number, workers: number): boolean {
  return workers > 1 && bytes > MIN_LARGE_BYTES && bytes > total / (4 * workers);
}

/** Decoded bytes of a part, about. */
export const PART_BYTES: number = 2 ** 23;

/**
 * Runs parts, a few at a time, each into memory of its own, and hands over what they gave, in order.
 *
 * @param ahead - parts under way: memory is theirs.
 * @param bytes - of a part, at most.
 * @param run - fills `into`, which is shared memory.
 * @param take - sees it before another part overwrites it.
 * @throws what `run` throws for the first part that fails, when no other part is under way any more.
 */
export async function runInOrder<P>(
  parts: readonly P[],
  ahead: number,
  bytes: number,
  run: (part: P, into: Uint8Array) => Promise<void>,
  take: (part: P, bytes: Uint8Array) => void,
): Promise<void> {
  const buffers = parts.slice(0, ahead).map(() => new Uint8Array(new SharedArrayBuffer(bytes)));
  const running: Promise<void>[] = [];
  const start = (i: number): void => {
    const result = run(parts[i]!, buffers[i % ahead]!);
    // Awaited in its turn; meanwhile a failure is not "unhandled".
    result.catch(() => undefined);
    running.push(result);
  };
  try {
    for (let i = 0; i < buffers.length; i++) start(i);
    for (const [i, part] of parts.entries()) {
      await running[i];
      take(part, buffers[i % ahead]!);
      if (i + ahead < parts.length) start(i + ahead);
    }
  } finally {
    await Promise.allSettled(running);
  }
}
