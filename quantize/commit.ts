/**
 * Commit queue: results of tasks become journal lines once their bytes are durable.
 *
 * Syncing each tensor by itself would cost more than writing it, so results
 * wait until enough bytes or time have gathered; one sync then serves them all.
 * @module
 */
import { open, type FileHandle } from "node:fs/promises";
import type { Journal, JournalEntry } from "./journal.ts";

const BATCH_BYTES = 512 * 2 ** 20;
const BATCH_SECONDS = 2;

/** A journal entry and what it wrote. */
export interface Committable extends JournalEntry {
  readonly bytes: number;
  /** Files that hold its bytes. */
  readonly files: readonly string[];
}

/** Collects results; `flush` makes all of them durable. */
export class CommitQueue {
  readonly #journal: Journal;
  readonly #handles = new Map<string, Promise<FileHandle>>();
  #waiting: Committable[] = [];
  #bytes = 0;
  #last = performance.now();
  #chain: Promise<void> = Promise.resolve();
  #failure: unknown;

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  /** Take a result; starts a commit in the background when enough has gathered. */
  add(entry: Committable): void {
    this.#waiting.push(entry);
    this.#bytes += entry.bytes;
    const isDue = this.#bytes >= BATCH_BYTES || performance.now() - this.#last >= BATCH_SECONDS * 1000;
    if (isDue) this.#start();
  }

  /** Commit everything taken so far. @throws what syncing or appending threw. */
  async flush(): Promise<void> {
    this.#start();
    await this.#chain;
    if (this.#failure !== undefined) throw this.#failure;
  }

  async close(): Promise<void> {
    await this.#chain;
    for (const handle of this.#handles.values()) await (await handle).close();
    this.#handles.clear();
  }

  #start(): void {
    const batch = this.#waiting;
    if (batch.length === 0) return;
    this.#waiting = [];
    this.#bytes = 0;
    this.#last = performance.now();
    this.#chain = this.#chain.then(() => this.#commit(batch)).catch((error: unknown) => void (this.#failure ??= error));
  }

  async #commit(batch: readonly Committable[]): Promise<void> {
    if (this.#failure !== undefined) return;
    for (const path of new Set(batch.flatMap(({ files }) => files))) {
      const opening = this.#handles.get(path) ?? open(path, "r+");
      this.#handles.set(path, opening);
      await (await opening).datasync();
    }
    await this.#journal.append(batch.map(({ task, record }) => ({ task, record })));
  }
}
