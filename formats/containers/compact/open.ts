/**
 * Compact files by path: what a directory calls them, and tensors that hold no file open.
 * @module
 */
import type { BlockCoder } from "../../encodings/compact/coder.ts";
import { openFileSource } from "../bytes.ts";
import type { ByteSource } from "../container.ts";
import { openCompact, type CompactFile } from "./read.ts";

/** Behind the name of the safetensors file that a compact file stands for. */
export const COMPACT_EXTENSION = ".compact";

/**
 * Open a compact file by path. Every read opens the file and closes it again, so the tensors stay readable as long as the file is there.
 *
 * @throws {InputError} `input.path`; {FormatError} as `openCompact`.
 */
export async function openCompactFile(path: string, coder?: BlockCoder): Promise<CompactFile> {
  return await openCompact(await reopeningSource(path), coder);
}

async function reopeningSource(path: string): Promise<ByteSource> {
  const first = await openFileSource(path);
  const { name, size } = first;
  await first.close();
  const withFile = async <T>(work: (source: ByteSource) => Promise<T>): Promise<T> => {
    const source = await openFileSource(path);
    try {
      return await work(source);
    } finally {
      await source.close();
    }
  };
  return {
    name,
    path,
    size,
    read: (offset, length) => withFile((source) => source.read(offset, length)),
    readInto: (offset, out) => withFile((source) => source.readInto(offset, out)),
    close: async () => {},
  };
}
