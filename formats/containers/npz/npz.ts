/**
 * `.npz`: named arrays in a ZIP archive, as numpy.savez and numpy.savez_compressed write them.
 * @module
 */
import { FormatError } from "../../../core/errors.ts";
import type { Tensor } from "../../../core/tensor.ts";
import { replaceFile, writeFully } from "../atomic.ts";
import { openFileSource } from "../bytes.ts";
import type { ByteSource } from "../container.ts";
import { npyBytes, parseNpy, parseNpyHeader, type NpyHeader } from "./npy.ts";
import { readZipDirectory, readZipEntry, readZipHead, zipParts, type ZipEntry } from "./zip.ts";

const ENDING = ".npy";
/** Arrays are held in memory, so an archive may not unpack to more. */
const MAX_TOTAL = 2 ** 32;
/** Bytes of an array that hold its header, as numpy writes it for a few axes. */
const HEAD = 4096;

/**
 * All arrays of a file, in its order.
 *
 * @throws {FormatError} for files that break the format or unpack to more than 4 GiB.
 * @throws {UnsupportedError} `unsupported.dtype`, `unsupported.format`.
 */
export async function readNpz(path: string): Promise<Map<string, Tensor>> {
  const source = await openFileSource(path);
  try {
    return await parseNpz(source);
  } finally {
    await source.close();
  }
}

/** As {@link readNpz}, of bytes anywhere. */
export async function parseNpz(source: ByteSource): Promise<Map<string, Tensor>> {
  const tensors = new Map<string, Tensor>();
  for (const { entry, name, where } of await listArrays(source)) tensors.set(name, parseNpy(await readZipEntry(source, entry), where));
  return tensors;
}

/** Dtypes and shapes of a file's arrays; no more than the beginning of each is read. @throws as {@link readNpz}. */
export async function readNpzHeaders(path: string): Promise<Map<string, NpyHeader>> {
  const source = await openFileSource(path);
  try {
    const headers = new Map<string, NpyHeader>();
    for (const { entry, name, where } of await listArrays(source)) {
      headers.set(name, parseNpyHeader(await readZipHead(source, entry, HEAD), where));
    }
    return headers;
  } finally {
    await source.close();
  }
}

async function listArrays(source: ByteSource): Promise<readonly { entry: ZipEntry; name: string; where: string }[]> {
  const entries = await readZipDirectory(source);
  const total = entries.reduce((sum, { size }) => sum + size, 0);
  if (total > MAX_TOTAL) {
    throw new FormatError("format.limit", `${source.name} unpacks to ${total} bytes; at most ${MAX_TOTAL} are read`, { total });
  }
  return entries.map((entry) => {
    const where = `${source.name}: ${entry.name}`;
    if (!entry.name.endsWith(ENDING)) throw new FormatError("format.field", `${where} is not a ${ENDING} array`, { entry: entry.name });
    return { entry, name: entry.name.slice(0, -ENDING.length), where };
  });
}

/**
 * Write arrays, uncompressed, in the order given: the same arrays give the same bytes. The file appears whole or not at all.
 *
 * @throws {UnsupportedError} `unsupported.dtype` for types NumPy lacks; {FormatError} `format.limit` beyond 2 GiB.
 */
export async function writeNpz(path: string, tensors: ReadonlyMap<string, Tensor>): Promise<void> {
  const parts = zipParts([...tensors].map(([name, tensor]) => ({ name: name + ENDING, content: npyBytes(tensor, name) })));
  await replaceFile(path, async (handle) => {
    for (const part of parts) await writeFully(handle, part);
  });
}
