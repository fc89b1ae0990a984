/**
 * SHA-256 of a file that is being written in pieces, in any order: it is read from its start as far as it is complete, beside the writing.
 * @module
 */
import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { FormatError } from "../../core/errors.ts";

const PIECE_BYTES = 2 ** 20;

export interface FollowingHash {
  /** Bytes that have their last value. */
  wrote(offset: number, bytes: number): void;
  /** Once the file is as it will be. @returns hex. @throws {FormatError} `format.truncated` when it is shorter. */
  digest(): Promise<string>;
  /** Stops reading; after `digest` there is nothing to stop. */
  close(): Promise<void>;
}

/** Followers of files, by path. */
export interface FollowingHashes {
  add(path: string, bytes: number, header: number): void;
  readonly wrote: (path: string, offset: number, bytes: number) => void;
  /** Once all files are as they will be, and on the disk. */
  digest(path: string): Promise<string>;
  close(): Promise<void>;
}

export function followFiles(): FollowingHashes {
  const files = new Map<string, FollowingHash>();
  return {
    add(path, bytes, header) {
      const file = followFile(path, bytes);
      file.wrote(0, header);
      files.set(path, file);
    },
    wrote: (path, offset, bytes) => files.get(path)?.wrote(offset, bytes),
    async digest(path) {
      const handle = await open(path, "r+");
      try {
        const [hash] = await Promise.all([files.get(path)!.digest(), handle.datasync()]);
        return hash;
      } finally {
        await handle.close();
      }
    },
    async close() {
      for (const file of files.values()) await file.close();
    },
  };
}

/** @param bytes - of the whole file, which is there already. */
export function followFile(path: string, bytes: number): FollowingHash {
  /** Ends of complete ranges that nothing leads up to yet, by where they start. */
  const ends = new Map<number, number>();
  let complete = 0;
  const stop = new AbortController();
  let wake: (() => void) | undefined;
  const reach = (end: number): void => {
    complete = end;
    for (let next = ends.get(complete); next !== undefined; next = ends.get(complete)) {
      ends.delete(complete);
      complete = next;
    }
    wake?.();
  };

  async function follow(): Promise<string> {
    const hash = createHash("sha256");
    const handle = await open(path, "r");
    try {
      const buffer = new Uint8Array(PIECE_BYTES);
      for (let at = 0; at < bytes && !stop.signal.aborted;) {
        if (at === complete) {
          await new Promise<void>((resolve) => (wake = resolve));
          continue;
        }
        const { bytesRead } = await handle.read(buffer, 0, Math.min(PIECE_BYTES, complete - at), at);
        if (bytesRead === 0) throw new FormatError("format.truncated", `${path} ends at byte ${at} of ${bytes}`, { path });
        hash.update(buffer.subarray(0, bytesRead));
        at += bytesRead;
      }
    } finally {
      await handle.close();
    }
    return hash.digest("hex");
  }

  const following = follow();
  // Awaited at the end; meanwhile a failure is not "unhandled".
  following.catch(() => undefined);
  return {
    wrote(offset, length) {
      if (length === 0 || offset < complete) return;
      if (offset === complete) reach(offset + length);
      else ends.set(offset, offset + length);
    },
    digest() {
      reach(bytes);
      return following;
    },
    async close() {
      stop.abort();
      wake?.();
      await following.catch(() => undefined);
    },
  };
}
