/**
 * safetensors, written as the reference writer does (safetensors 0.8, `serialize`), so that
 * equal content gives equal bytes: tensors by dtype (highest rank first), then by name;
 * compact JSON; header padded with spaces to a multiple of 8.
 * @module
 */
import type { FileHandle } from "node:fs/promises";
import { byteLength, DTYPES } from "../../../core/dtype.ts";
import { InputError } from "../../../core/errors.ts";
import type { Tensor } from "../../../core/tensor.ts";
import { replaceFile, writeFully } from "../atomic.ts";
import type { TensorSpec } from "../container.ts";
import { MAX_HEADER_BYTES, PREFIX_BYTES } from "./read.ts";

/** Where everything goes, known before the first byte of data exists. */
export interface SafetensorsLayout {
  /** Length prefix, JSON and padding: the file's first bytes. */
  readonly header: Uint8Array;
  /** Size of the finished file. */
  readonly fileBytes: number;
  /** Absolute position of each tensor's first byte. */
  readonly offsets: ReadonlyMap<string, number>;
  /** The specs in file order. */
  readonly order: readonly TensorSpec[];
}

const RANK: ReadonlyMap<string, number> = new Map(Object.keys(DTYPES).map((name, rank) => [name, rank]));

/** Order of UTF-8 bytes, which is that of code points (Rust's `str`), not of JavaScript's UTF-16 units. */
function compareNames(a: string, b: string): number {
  const limit = Math.min(a.length, b.length);
  for (let i = 0; i < limit; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x === y) continue;
    // Surrogates stand for code points above every other unit.
    const isHigh = (unit: number): boolean => unit >= 0xd800 && unit <= 0xdfff;
    if (isHigh(x) !== isHigh(y)) return isHigh(x) ? 1 : -1;
    return x - y;
  }
  return a.length - b.length;
}

/**
 * Lay out a file.
 *
 * @param metadata - written first, keys in the order given; `{ format: "pt" }` is what torch-side loaders expect.
 * @throws {InputError} `input.value` for a name twice or `__metadata__` as a name, or a header over 100,000,000 bytes.
 */
export function layoutSafetensors(specs: readonly TensorSpec[], metadata?: Readonly<Record<string, string>>): SafetensorsLayout {
  const order = specs.toSorted((a, b) => RANK.get(a.dtype)! - RANK.get(b.dtype)! || compareNames(a.name, b.name));
  const parts: string[] = metadata === undefined ? [] : [`"__metadata__":${JSON.stringify(metadata)}`];
  const begins = new Map<string, number>();
  let at = 0;
  for (const { name, dtype, shape } of order) {
    if (name === "__metadata__" || begins.has(name)) {
      throw new InputError("input.value", `tensor name ${JSON.stringify(name)} is ${begins.has(name) ? "given twice" : "reserved"}`, {
        name,
      });
    }
    begins.set(name, at);
    const end = at + byteLength(dtype, shape);
    parts.push(`${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(",")}],"data_offsets":[${at},${end}]}`);
    at = end;
  }
  const text = new TextEncoder().encode(`{${parts.join(",")}}`);
  const headerBytes = Math.ceil(text.byteLength / 8) * 8;
  if (headerBytes > MAX_HEADER_BYTES) {
    throw new InputError("input.value", `${specs.length} tensors need a header of ${headerBytes} bytes; at most ${MAX_HEADER_BYTES} fit`, {
      headerBytes,
      limit: MAX_HEADER_BYTES,
    });
  }
  const header = new Uint8Array(PREFIX_BYTES + headerBytes).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(headerBytes), true);
  header.set(text, PREFIX_BYTES);
  const offsets = new Map([...begins].map(([name, begin]) => [name, header.byteLength + begin]));
  return { header, fileBytes: header.byteLength + at, offsets, order };
}

/** The whole file in memory. @throws {InputError} as {@link layoutSafetensors}, and `input.shape` when bytes do not fill a shape. */
export function encodeSafetensors(tensors: ReadonlyMap<string, Tensor>, metadata?: Readonly<Record<string, string>>): Uint8Array {
  const { header, fileBytes, offsets } = layoutTensors(tensors, metadata);
  const out = new Uint8Array(fileBytes);
  out.set(header);
  for (const [name, { bytes }] of tensors) out.set(bytes, offsets.get(name));
  return out;
}

/** Write a file atomically, tensor by tensor. @throws {InputError} as {@link encodeSafetensors}. */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, Tensor>,
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  const { header, order } = layoutTensors(tensors, metadata);
  await replaceFile(path, async (handle: FileHandle) => {
    await writeFully(handle, header);
    for (const { name } of order) await writeFully(handle, tensors.get(name)!.bytes);
  });
}

function layoutTensors(tensors: ReadonlyMap<string, Tensor>, metadata?: Readonly<Record<string, string>>): SafetensorsLayout {
  const specs: TensorSpec[] = [];
  for (const [name, { dtype, shape, bytes }] of tensors) {
    const expected = byteLength(dtype, shape);
    if (bytes.byteLength !== expected) {
      throw new InputError("input.shape", `${name}: ${dtype} ${JSON.stringify(shape)} takes ${expected} bytes, got ${bytes.byteLength}`, {
        name,
        dtype,
        shape,
        bytes: bytes.byteLength,
      });
    }
    specs.push({ name, dtype, shape });
  }
  return layoutSafetensors(specs, metadata);
}
