/**
 * Hashes of byte ranges over the worker pool: how a finished artifact is read again.
 * @module
 */
import { createHash } from "node:crypto";
import { extname } from "node:path";
import { createPool, type JobContext } from "../../kernels/pool.ts";
import { openReader } from "./regions.ts";

/** Read at once: fits the second-level cache, so that the hash finds the bytes where the read left them. */
const PIECE_BYTES = 512 * 1024;
/** Below this, starting threads takes longer than hashing. */
const THREADS_PAY_BYTES = 64 * 2 ** 20;

/** A run of bytes of a file. */
export interface ByteRange {
  /** For messages. */
  readonly name: string;
  readonly path: string;
  readonly offset: number;
  readonly byteLength: number;
}

export interface HashOptions {
  /** Worker threads. */
  readonly workers: number;
  readonly signal?: AbortSignal | undefined;
  /** Called as each range is done. */
  readonly onDone?: () => void;
}

/** The job of one worker. @returns sha256, hex. @throws {FormatError} `format.truncated` when the file ends first. */
export async function run({ name, path, offset, byteLength }: ByteRange, { workspace, breathe }: JobContext): Promise<string> {
  const hash = createHash("sha256");
  const mark = workspace.mark();
  const reader = openReader(name, { source: { kind: "file", path, offset }, dtype: "U8", shape: [byteLength] });
  try {
    const piece = workspace.take(Math.min(PIECE_BYTES, byteLength));
    for (let done = 0; done < byteLength; done += PIECE_BYTES) {
      await breathe();
      const bytes = workspace.bytes({ at: piece.at, byteLength: Math.min(PIECE_BYTES, byteLength - done) });
      reader.read(done, bytes);
      hash.update(bytes);
    }
    return hash.digest("hex");
  } finally {
    reader.close();
    workspace.release(mark);
  }
}

/**
 * @returns sha256 of each range, hex, in order.
 * @throws {FormatError} `format.truncated`; {InterruptedError}; system errors as they are.
 */
export async function hashRanges(ranges: readonly ByteRange[], { workers, signal, onDone }: HashOptions): Promise<readonly string[]> {
  const total = ranges.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const module = new URL(`./hash${extname(new URL(import.meta.url).pathname)}`, import.meta.url);
  const threads = total < THREADS_PAY_BYTES ? 0 : Math.min(workers, ranges.length);
  const pool = createPool<ByteRange, string>({ workers: threads, module, run });
  // Large ranges first, so that the workers end within one of each other.
  const order = ranges.map((_, i) => i).toSorted((a, b) => ranges[b]!.byteLength - ranges[a]!.byteLength || a - b);
  try {
    const found = await pool.map(
      order.map((i) => ranges[i]!),
      { signal, onResult: () => onDone?.() },
    );
    const hashes = Array.from<string>({ length: ranges.length });
    for (const [position, i] of order.entries()) hashes[i] = found[position]!;
    return hashes;
  } finally {
    await pool.close();
  }
}
