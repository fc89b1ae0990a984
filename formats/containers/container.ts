/**
 * Containers: file formats that hold named tensors and metadata.
 * @module
 */
import type { DType } from "../../core/dtype.ts";
import type { LazyTensor } from "../../core/tensor.ts";

/** Random access to bytes: a file, memory, or later an HTTP range. */
export interface ByteSource {
  /** For messages and `LazyTensor.location`; a path when it is a file. */
  readonly name: string;
  readonly path?: string;
  readonly size: number;
  /** @throws {FormatError} `format.truncated` when the source is shorter than asked. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** Fill `out` from `offset`. `out` may lie in shared memory. */
  readInto(offset: number, out: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** A source that can also be read at once: for small pieces of structure, one after the other. */
export interface SyncByteSource extends ByteSource {
  /** As `readInto`, before it returns. */
  readIntoSync(offset: number, out: Uint8Array): void;
}

/** A validated file: every entry lies in range, none overlaps. */
export interface TensorFile {
  /** In file order. */
  readonly tensors: ReadonlyMap<string, LazyTensor>;
  readonly metadata: Readonly<Record<string, string>>;
  close(): Promise<void>;
}

/** What a writer must know before the first byte. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}
