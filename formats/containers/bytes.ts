/**
 * Random access to bytes that somebody else made.
 * @module
 */
import { constants, readSync, type Stats } from "node:fs";
import { open, stat, type FileHandle } from "node:fs/promises";
import { FormatError, InputError } from "../../core/errors.ts";
import type { SyncByteSource } from "./container.ts";

/** One system call reads at most this many bytes: Linux stops at 2^31 - 4096, libuv takes an int32. */
const MAX_READ = 2 ** 30;

/**
 * A regular file, opened for reading. Links are followed; what they end in must be a regular file.
 *
 * @throws {InputError} `input.path` when there is no such file or it cannot be opened.
 * @throws {FormatError} `format.path` for a directory, pipe, socket or device.
 */
export async function openFileSource(path: string): Promise<SyncByteSource> {
  // Looked at before it is opened (opening a device can have effects) and after (it may have been exchanged).
  requireRegular(path, await attempt(path, stat(path)));
  // A pipe without a writer would block a plain open for ever.
  const handle = await attempt(path, open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)));
  try {
    const facts = await handle.stat();
    requireRegular(path, facts);
    return fileSource(path, handle, facts.size);
  } catch (cause) {
    await handle.close();
    throw cause;
  }
}

function fileSource(path: string, handle: FileHandle, size: number): SyncByteSource {
  const readInto = async (offset: number, out: Uint8Array): Promise<void> => {
    checkRange(path, size, offset, out.byteLength);
    let done = 0;
    while (done < out.byteLength) {
      const { bytesRead } = await handle.read(out, done, Math.min(out.byteLength - done, MAX_READ), offset + done);
      if (bytesRead === 0) throw truncated(path, offset + done, size, offset, out.byteLength);
      done += bytesRead;
    }
  };
  return {
    name: path,
    path,
    size,
    readInto,
    readIntoSync(offset, out) {
      checkRange(path, size, offset, out.byteLength);
      let done = 0;
      while (done < out.byteLength) {
        const bytesRead = readSync(handle.fd, out, done, Math.min(out.byteLength - done, MAX_READ), offset + done);
        if (bytesRead === 0) throw truncated(path, offset + done, size, offset, out.byteLength);
        done += bytesRead;
      }
    },
    async read(offset, length) {
      checkRange(path, size, offset, length);
      const out = new Uint8Array(length);
      await readInto(offset, out);
      return out;
    },
    close: () => handle.close(),
  };
}

/** Bytes already in memory. `read` gives copies. @param name - for messages. */
export function memorySource(name: string, bytes: Uint8Array): SyncByteSource {
  const readIntoSync = (offset: number, out: Uint8Array): void => {
    checkRange(name, bytes.byteLength, offset, out.byteLength);
    out.set(bytes.subarray(offset, offset + out.byteLength));
  };
  return {
    name,
    size: bytes.byteLength,
    readIntoSync,
    async read(offset, length) {
      checkRange(name, bytes.byteLength, offset, length);
      return bytes.slice(offset, offset + length);
    },
    readInto: async (offset, out) => readIntoSync(offset, out),
    close: async () => {},
  };
}

/**
 * A whole small file, its size checked before it is read.
 *
 * @throws {FormatError} `format.limit` when it is larger than `maxBytes`; else as {@link openFileSource}.
 */
export async function readSmallFile(path: string, maxBytes: number): Promise<Uint8Array> {
  const source = await openFileSource(path);
  try {
    if (source.size > maxBytes) {
      throw new FormatError("format.limit", `${path} has ${source.size} bytes; at most ${maxBytes} are read`, {
        path,
        bytes: source.size,
        limit: maxBytes,
      });
    }
    return await source.read(0, source.size);
  } finally {
    await source.close();
  }
}

function requireRegular(path: string, facts: Stats): void {
  if (facts.isFile()) return;
  const kind = facts.isDirectory() ? "a directory" : facts.isFIFO() ? "a pipe" : facts.isSocket() ? "a socket" : "a device";
  throw new FormatError("format.path", `${path} is ${kind}, not a regular file`, { path, kind });
}

async function attempt<T>(path: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (cause) {
    const reason = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);
    const text = reason === "ENOENT" ? "no such file" : reason === "ELOOP" ? "its links form a loop" : `cannot be opened (${reason})`;
    throw new InputError("input.path", `${path}: ${text}`, { path, reason }, { cause });
  }
}

function checkRange(name: string, size: number, offset: number, length: number): void {
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0 || offset + length > size) {
    throw truncated(name, size, size, offset, length);
  }
}

function truncated(name: string, end: number, size: number, offset: number, length: number): FormatError {
  return new FormatError("format.truncated", `${name} ends at byte ${end}; bytes ${offset} to ${offset + length} were asked for`, {
    name,
    offset,
    length,
    size,
  });
}
