/**
 * Carried values: what the walk keeps of each batch between blocks.
 *
 * Values live in reused memory up to a limit; beyond it they go to a scratch
 * file. Values equal to another batch's of the same name and shape (rotary
 * tables, masks) are kept once.
 * @module
 */
import { mkdtemp, open, rm, type FileHandle } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { elementCount } from "../core/dtype.ts";
import { BudgetError, FormatError } from "../core/errors.ts";
import type { HostTensor } from "./engines/engine.ts";
import { bytesOf, typedView } from "./host-tensor.ts";

interface Entry {
  readonly dtype: HostTensor["dtype"];
  readonly shape: readonly number[];
  readonly byteLength: number;
  /** Interning key; equal keys may share one entry. */
  readonly key: string;
  users: number;
  /** Where it lies: memory, or an offset in the scratch file. */
  readonly place: Uint8Array | number;
}

export interface CarriedOptions {
  /** Bytes kept in memory. */
  readonly maxMemory: number;
  /** Folder for the scratch file; the system's temporary folder when left out. */
  readonly scratchDirectory?: string;
}

/** A store of values by batch and name. One task at a time; `close` removes the scratch file. */
export class CarriedValues {
  readonly #maxMemory: number;
  readonly #scratchDirectory: string;
  readonly #values = new Map<number, Map<string, Entry>>();
  readonly #shareable = new Map<string, Entry>();
  readonly #pool = new Map<number, Uint8Array[]>();
  readonly #freeOffsets = new Map<number, number[]>();
  #memory = 0;
  #pooled = 0;
  #fileEnd = 0;
  #file: FileHandle | undefined;
  #directory: string | undefined;

  constructor({ maxMemory, scratchDirectory }: CarriedOptions) {
    this.#maxMemory = maxMemory;
    this.#scratchDirectory = scratchDirectory ?? tmpdir();
  }

  /** Bytes in the scratch file so far. */
  get scratchBytes(): number {
    return this.#fileEnd;
  }

  /** Bytes of values in memory, each counted once. */
  get memoryBytes(): number {
    return this.#memory;
  }

  /** The value, or `undefined`. In memory: a view that is valid until the value is replaced. */
  async get(batch: number, name: string): Promise<HostTensor | undefined> {
    const entry = this.#values.get(batch)?.get(name);
    if (entry === undefined) return undefined;
    const { dtype, shape, place, byteLength } = entry;
    const bytes = typeof place === "number" ? await this.#readScratch(place, byteLength) : place;
    return { dtype, shape, data: typedView(dtype, bytes.buffer, bytes.byteOffset, elementCount(shape)) };
  }

  /**
   * Replace the values of a batch: those in `values` are copied, those named in `keep` stay, all others are dropped.
   * New values may be views over values stored here.
   */
  async replace(batch: number, values: Iterable<readonly [string, HostTensor]>, keep: ReadonlySet<string>): Promise<void> {
    const before = this.#values.get(batch) ?? new Map<string, Entry>();
    const after = new Map<string, Entry>();
    for (const [name, tensor] of values) after.set(name, await this.#store(name, tensor));
    for (const [name, entry] of before) {
      if (keep.has(name) && !after.has(name)) after.set(name, entry);
      else this.#release(entry);
    }
    this.#values.set(batch, after);
  }

  /** Give stored values of a batch new names and drop all others but those in `keep`. */
  rename(batch: number, names: readonly (readonly [from: string, to: string])[], keep: ReadonlySet<string>): void {
    const before = this.#values.get(batch) ?? new Map<string, Entry>();
    const after = new Map<string, Entry>();
    for (const [from, to] of names) {
      const entry = before.get(from);
      if (entry !== undefined) after.set(to, entry);
      before.delete(from);
    }
    for (const [name, entry] of before) {
      if (keep.has(name) && !after.has(name)) after.set(name, entry);
      else this.#release(entry);
    }
    this.#values.set(batch, after);
  }

  /** Close and remove the scratch file; the store is empty afterwards. */
  async close(): Promise<void> {
    this.#values.clear();
    this.#shareable.clear();
    this.#pool.clear();
    await this.#file?.close();
    this.#file = undefined;
    if (this.#directory !== undefined) await rm(this.#directory, { recursive: true, force: true });
    this.#directory = undefined;
  }

  async #store(name: string, tensor: HostTensor): Promise<Entry> {
    const bytes = bytesOf(tensor);
    const key = `${name}|${tensor.dtype}|${tensor.shape.join()}`;
    const twin = this.#shareable.get(key);
    // A compare of hidden states ends at their first byte or so; one of equal tables costs less than a copy.
    if (twin !== undefined && typeof twin.place !== "number" && Buffer.compare(twin.place, bytes) === 0) {
      twin.users++;
      return twin;
    }
    const { dtype, shape } = tensor;
    const place = this.#allocate(bytes.byteLength) ?? (await this.#writeScratch(bytes));
    if (typeof place !== "number") place.set(bytes);
    const entry: Entry = { dtype, shape: [...shape], byteLength: bytes.byteLength, key, users: 1, place };
    if (twin === undefined && typeof place !== "number") this.#shareable.set(key, entry);
    return entry;
  }

  #release(entry: Entry): void {
    if (--entry.users > 0) return;
    if (this.#shareable.get(entry.key) === entry) this.#shareable.delete(entry.key);
    const { place, byteLength } = entry;
    if (typeof place === "number") {
      append(this.#freeOffsets, byteLength, place);
    } else {
      this.#memory -= byteLength;
      this.#pooled += byteLength;
      append(this.#pool, byteLength, place);
    }
  }

  /** Memory for a value: reused where possible, since touching fresh pages is slow; `undefined` when over the limit. */
  #allocate(byteLength: number): Uint8Array | undefined {
    if (this.#memory + byteLength > this.#maxMemory) return undefined;
    const reused = this.#pool.get(byteLength)?.pop();
    if (reused !== undefined) {
      this.#pooled -= byteLength;
    } else if (this.#memory + this.#pooled + byteLength > this.#maxMemory) {
      this.#pool.clear();
      this.#pooled = 0;
    }
    this.#memory += byteLength;
    return reused ?? new Uint8Array(byteLength);
  }

  async #readScratch(offset: number, byteLength: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(byteLength);
    for (let done = 0; done < byteLength;) {
      const { bytesRead } = await this.#file!.read(bytes, done, byteLength - done, offset + done);
      if (bytesRead === 0) {
        throw new FormatError("format.truncated", `the scratch file ends at ${offset + done}, before ${offset + byteLength}`, {
          offset,
          byteLength,
        });
      }
      done += bytesRead;
    }
    return bytes;
  }

  async #writeScratch(bytes: Uint8Array): Promise<number> {
    if (this.#file === undefined) {
      this.#directory = await mkdtemp(join(this.#scratchDirectory, "bitwright-"));
      this.#file = await open(join(this.#directory, "carried"), "wx+", 0o600);
      // An open file needs no name where the system allows it: then even a killed process leaves nothing behind.
      if (process.platform !== "win32") await rm(this.#directory, { recursive: true });
    }
    const offset = this.#freeOffsets.get(bytes.byteLength)?.pop() ?? this.#fileEnd;
    this.#fileEnd = Math.max(this.#fileEnd, offset + bytes.byteLength);
    try {
      for (let done = 0; done < bytes.byteLength;) {
        done += (await this.#file.write(bytes, done, bytes.byteLength - done, offset + done)).bytesWritten;
      }
    } catch (error) {
      throw new BudgetError(
        "budget.disk",
        `cannot write ${bytes.byteLength} bytes at ${offset} of the scratch file in ${this.#scratchDirectory}; free space there, raise the memory limit or use fewer samples`,
        { directory: this.#scratchDirectory, offset, bytes: bytes.byteLength },
        { cause: error },
      );
    }
    return offset;
  }
}

function append<T>(lists: Map<number, T[]>, key: number, item: T): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [item]);
  else list.push(item);
}
