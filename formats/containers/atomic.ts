/**
 * Files appear whole or not at all: a temporary name beside the target, fsync, rename.
 * @module
 */
import { open, rename, unlink, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";

/** One system call writes at most this many bytes (see `bytes.ts`). */
const MAX_WRITE = 2 ** 30;

/** Makes temporary names of one process distinct. */
let counter = 0;

/** Write all of `bytes` at the handle's position. */
export async function writeFully(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.byteLength) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(bytes.byteLength - done, MAX_WRITE));
    done += bytesWritten;
  }
}

/** Write all of `bytes` from byte `offset` of the file on. */
export async function writeRange(handle: FileHandle, offset: number, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.byteLength) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(bytes.byteLength - done, MAX_WRITE), offset + done);
    done += bytesWritten;
  }
}

/**
 * Let `fill` write a new file, then put it in place of `path`.
 *
 * Whatever happens, `path` holds either what it held before or everything `fill` wrote.
 */
export async function replaceFile(path: string, fill: (handle: FileHandle) => Promise<void>): Promise<void> {
  const { handle, name } = await openTemporary(path);
  try {
    try {
      await fill(handle);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(name, path);
  } catch (cause) {
    await unlink(name).catch(() => {});
    throw cause;
  }
  await syncDirectory(dirname(path));
}

/** Write a file so that a crash leaves the old content or the new, never a part. Text is written as UTF-8. */
export async function writeFileAtomic(path: string, content: Uint8Array | string): Promise<void> {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  await replaceFile(path, (handle) => writeFully(handle, bytes));
}

/** Make a rename durable. Systems that cannot open a directory (Windows) do it themselves. */
export async function syncDirectory(directory: string): Promise<void> {
  let handle: FileHandle;
  try {
    handle = await open(directory, "r");
  } catch {
    return;
  }
  try {
    await handle.sync();
  } catch (cause) {
    // Some file systems refuse to sync a directory; the rename has still happened.
    if (!(cause instanceof Error)) throw cause;
  } finally {
    await handle.close();
  }
}

async function openTemporary(path: string): Promise<{ handle: FileHandle; name: string }> {
  for (;;) {
    const name = `${path}.${process.pid}-${counter++}.tmp`;
    try {
      return { handle: await open(name, "wx"), name };
    } catch (cause) {
      // A killed process with our number may have left one behind.
      if (!(cause instanceof Error && "code" in cause && cause.code === "EEXIST")) throw cause;
    }
  }
}
