/**
 * Tensors to payloads in order, with a few ranges being read and encoded ahead of the one that is written.
 *
 * One side reads ranges into buffers, hashes them, and starts their encoding; the other takes what is ready in the same order.
 * Memory is the buffers'. What comes out does not depend on how many there are.
 * @module
 */
import { createHash } from "node:crypto";
import { byteLength } from "../../../core/dtype.ts";
import { InputError } from "../../../core/errors.ts";
import { wholeWords, type CompactLevel } from "../../encodings/compact/block.ts";
import { sampleRuns } from "../../encodings/compact/classes.ts";
import { encodeTail, isWorthwhile, rawChecksums } from "../../encodings/compact/payload.ts";
import { findProgression } from "../../encodings/compact/progression.ts";
import { hasColumns, levelFor, planBytes, type TensorPlan } from "../../encodings/compact/ranges.ts";
import { encodeProgressionTail, encodeRawTail } from "../../encodings/compact/tail.ts";
import { blocksPerRange, rangeOf, viewMatrix, type MatrixView } from "../../encodings/compact/view.ts";
import { createRangeBuffer, type EncodedRange, type RangeBuffer, type RangeEncoder } from "./encoder.ts";
import type { RangedTensor } from "./write.ts";

/** Bytes of a buffer; no range is larger. Raw pieces divide it. */
const BUFFER_BYTES = 8 * 2 ** 20;

/** What large tensors are compared by first. */
const BEGINNING_BYTES = 2 ** 16;

type Put = (bytes: Uint8Array) => Promise<void>;

export interface Finished {
  /** Number of the earlier tensor that has the same bytes; nothing was written then. */
  readonly sameAs?: number;
  readonly sha256: Uint8Array;
}

export interface Pipeline {
  /** Writes the payload of the next tensor. */
  next(put: Put): Promise<Finished>;
  /** Waits for what is still under way. */
  close(): Promise<void>;
}

/** What the reading side hands over, in order. */
type Step =
  | { readonly kind: "coded"; readonly encoded: Promise<EncodedRange | undefined>; readonly buffer: RangeBuffer }
  | { readonly kind: "raw"; readonly bytes: Uint8Array; readonly buffer: RangeBuffer }
  | { readonly kind: "tail"; readonly bytes: Uint8Array }
  | { readonly kind: "end"; readonly finished: Finished };

/** A tensor of which ranges are encoded. */
interface CodedTensor {
  readonly lazy: RangedTensor;
  readonly view: MatrixView;
  readonly level: CompactLevel;
}

export function createPipeline(tensors: readonly RangedTensor[], level: CompactLevel, encoder: RangeEncoder, ahead: number): Pipeline {
  const buffers = createBuffers(ahead);
  const steps = createQueue<Step & { readonly coded?: CodedTensor }>();
  const started = new Map<string, number>();
  /** Keys of what large tensors begin with. */
  const beginnings = new Set<string>();

  /** What the next large tensor's blocks share is found while the one before it is encoded: its ranges would wait for that. */
  let planned: { readonly lazy: RangedTensor; readonly plan: Promise<TensorPlan | "raw"> } | undefined;
  function planAhead(i: number): void {
    const next = tensors[i + 1];
    if (next?.readInto === undefined) return;
    const view = viewMatrix(next.dtype, next.shape);
    if (view === undefined || next.byteLength <= rangeBytes(view)) return;
    planned = { lazy: next, plan: planLarge(view, next, next.readInto) };
    planned.plan.catch(() => undefined);
  }

  /** The last read that was begun before it was wanted. */
  let early: Promise<unknown> | undefined;

  async function readAll(): Promise<void> {
    for (const [i, lazy] of tensors.entries()) {
      const { name, dtype, shape } = lazy;
      if (byteLength(dtype, shape) !== lazy.byteLength) throw wrongLength(lazy, lazy.byteLength);
      const readInto = await openReader(lazy);
      const view = viewMatrix(dtype, shape);
      const unit = view === undefined ? BUFFER_BYTES : rangeBytes(view);
      const hash = createHash("sha256");
      const keyOf = (digest: string): string => `${dtype} ${shape.join(",")} ${digest}`;
      const read = async (offset: number): Promise<{ readonly buffer: RangeBuffer; readonly bytes: Uint8Array }> => {
        const buffer = await buffers.take();
        try {
          const bytes = buffer.elements.subarray(0, Math.min(unit, lazy.byteLength - offset));
          if (bytes.length > 0) await readInto(offset, bytes);
          return { buffer, bytes };
        } catch (error) {
          buffers.give(buffer);
          throw error;
        }
      };
      const first = await read(0);
      const isWhole = first.bytes.length === lazy.byteLength;
      const beginning = createHash("sha256")
        .update(isWhole ? first.bytes : first.bytes.subarray(0, BEGINNING_BYTES))
        .digest();
      // A whole tensor's beginning is its hash. A larger one is read twice when an earlier one begins alike.
      let sha256: Uint8Array | undefined = isWhole ? beginning : undefined;
      const mark = keyOf(beginning.toString("hex"));
      if (!isWhole && beginnings.has(mark)) sha256 = await hashAll(readInto, lazy.byteLength, buffers);
      if (!isWhole) beginnings.add(mark);
      const sameAs = sha256 === undefined ? undefined : started.get(keyOf(Buffer.from(sha256).toString("hex")));
      if (sameAs !== undefined) {
        buffers.give(first.buffer);
        steps.push({ kind: "end", finished: { sameAs, sha256: sha256! } });
        continue;
      }
      const progression = isWhole ? findProgression(dtype, first.bytes) : undefined;
      if (progression !== undefined) {
        steps.push({ kind: "tail", bytes: encodeProgressionTail(progression, encoder.checksum(first.bytes)) });
        buffers.give(first.buffer);
      } else {
        let plan: TensorPlan | "raw" | undefined = view === undefined ? "raw" : undefined;
        if (view !== undefined && !isWhole) plan = await (planned?.lazy === lazy ? planned.plan : planLarge(view, lazy, readInto));
        planAhead(i);
        const checksums: number[] = [];
        let piece = first;
        for (let offset = 0, number = 0; ; number++) {
          const { buffer, bytes } = piece;
          // Read while this one is hashed.
          const following = offset + bytes.length < lazy.byteLength ? read(offset + bytes.length) : undefined;
          early = following?.catch(() => undefined);
          if (!isWhole) hash.update(bytes);
          if (plan === "raw" || view === undefined) {
            checksums.push(...rawChecksums(bytes, encoder));
            steps.push({ kind: "raw", bytes, buffer });
          } else {
            const used = levelFor(view, level);
            const from = number * blocksPerRange(view);
            const range = rangeOf(view, from, Math.min(from + blocksPerRange(view), view.blocks));
            const encoded = encoder.encode({ name, view: range, level: used, ...(plan && { plan }) }, bytes, buffer);
            // Awaited in its turn; meanwhile a failure is not "unhandled".
            encoded.catch(() => undefined);
            steps.push({ kind: "coded", encoded, buffer, coded: { lazy, view, level: used } });
          }
          offset += bytes.length;
          if (following === undefined) break;
          piece = await following;
        }
        if (plan === "raw") {
          steps.push({ kind: "tail", bytes: rawEnd(lazy.byteLength, checksums) });
        }
      }
      sha256 ??= isWhole ? beginning : hash.digest();
      started.set(keyOf(Buffer.from(sha256).toString("hex")), i);
      steps.push({ kind: "end", finished: { sha256 } });
    }
  }

  /** What the blocks of a tensor of several ranges share. */
  async function planLarge(
    view: MatrixView,
    { byteLength: bytes }: RangedTensor,
    readInto: (offset: number, out: Uint8Array) => Promise<void>,
  ): Promise<TensorPlan | "raw"> {
    if (view.kind !== "bytes" && !hasColumns(view)) return { columns: new Int16Array(view.cols) };
    const buffer = await buffers.take();
    try {
      if (view.kind !== "bytes") {
        const rowBytes = view.cols * view.elementBytes;
        let at = 0;
        for (const { from, count } of sampleRuns(view)) {
          await readInto(from * rowBytes, buffer.elements.subarray(at, (at += count * rowBytes)));
        }
        const sample = buffer.elements.subarray(0, at);
        return { columns: await encoder.fitColumns(view, sample) };
      }
      const counts = new Float64Array(256);
      for (let offset = 0; offset < bytes; offset += BUFFER_BYTES) {
        const part = buffer.elements.subarray(0, Math.min(BUFFER_BYTES, bytes - offset));
        await readInto(offset, part);
        (await encoder.countBytes(part)).forEach((count, byte) => (counts[byte]! += count));
      }
      return planBytes(counts) ?? "raw";
    } finally {
      buffers.give(buffer);
    }
  }

  const reading = readAll().then(
    () => undefined,
    (error: unknown) => steps.fail(error),
  );

  /** A tensor of one range whose blocks are no smaller than its bytes, or that needs no table: read again, since its place was used. */
  async function putRaw(lazy: RangedTensor, put: Put): Promise<void> {
    const bytes = (await lazy.read()).bytes;
    await put(bytes);
    await put(rawEnd(bytes.length, rawChecksums(bytes, encoder)));
  }

  return {
    async next(put) {
      const ranges: Pick<EncodedRange, "rows" | "lengths" | "checksums">[] = [];
      let coded: CodedTensor | undefined;
      let plan: TensorPlan | undefined;
      for (;;) {
        const step = await steps.shift();
        if (step.kind === "end") {
          if (coded !== undefined && plan !== undefined && coded.view.blocks > 1)
            await put(encodeTail(coded.view, coded.level, plan, ranges));
          return step.finished;
        }
        if (step.kind === "tail") {
          await put(step.bytes);
          continue;
        }
        try {
          if (step.kind === "raw") {
            await put(step.bytes);
            continue;
          }
          coded = step.coded!;
          const encoded = await step.encoded;
          if (encoded === undefined) {
            await putRaw(coded.lazy, put);
            continue;
          }
          const { rows, lengths, blocks, checksums } = encoded;
          ({ plan } = encoded);
          ranges.push({ rows, lengths, checksums });
          if (coded.view.blocks === 1) {
            const tail = encodeTail(coded.view, coded.level, plan, ranges);
            if (!isWorthwhile(coded.view, blocks, tail, coded.lazy.byteLength)) {
              await putRaw(coded.lazy, put);
              continue;
            }
            for (const block of blocks) await put(block);
            await put(tail);
          } else for (const block of blocks) await put(block);
        } finally {
          buffers.give(step.buffer);
        }
      }
    },
    async close() {
      buffers.end();
      await reading;
      await Promise.allSettled([early, planned?.plan]);
      await Promise.allSettled(steps.left().flatMap((step) => (step.kind === "coded" ? [step.encoded] : [])));
    },
  };
}

/** Bytes of a range, but for a tensor's last one. */
function rangeBytes(view: MatrixView): number {
  return blocksPerRange(view) * view.rowsPerBlock * view.cols * view.elementBytes;
}

function wrongLength({ name, dtype, shape }: RangedTensor, found: number): InputError {
  return new InputError("input.shape", `${name}: ${dtype} ${JSON.stringify(shape)} takes ${byteLength(dtype, shape)} bytes, got ${found}`, {
    name,
  });
}

/** Padding and tail of a raw tensor. */
function rawEnd(bytes: number, checksums: readonly number[]): Uint8Array {
  const padding = wholeWords(bytes) - bytes;
  const tail = encodeRawTail(checksums);
  const out = new Uint8Array(padding + tail.length);
  out.set(tail, padding);
  return out;
}

async function openReader(lazy: RangedTensor): Promise<(offset: number, out: Uint8Array) => Promise<void>> {
  if (lazy.readInto !== undefined) return lazy.readInto;
  const { bytes } = await lazy.read();
  if (bytes.length !== lazy.byteLength) throw wrongLength(lazy, bytes.length);
  return async (offset, out) => out.set(bytes.subarray(offset, offset + out.length));
}

async function hashAll(
  readInto: (offset: number, out: Uint8Array) => Promise<void>,
  bytes: number,
  buffers: ReturnType<typeof createBuffers>,
): Promise<Uint8Array> {
  const buffer = await buffers.take();
  try {
    const hash = createHash("sha256");
    for (let offset = 0; offset < bytes; offset += BUFFER_BYTES) {
      const part = buffer.elements.subarray(0, Math.min(BUFFER_BYTES, bytes - offset));
      await readInto(offset, part);
      hash.update(part);
    }
    return hash.digest();
  } finally {
    buffers.give(buffer);
  }
}

/** Up to `ahead` buffers under way, and one to look ahead with; made when they are first needed. */
function createBuffers(ahead: number): { take(): Promise<RangeBuffer>; give(buffer: RangeBuffer): void; end(): void } {
  const free: RangeBuffer[] = [];
  const waiting: { resolve: (buffer: RangeBuffer) => void; reject: (error: Error) => void }[] = [];
  let made = 0;
  let ended = false;
  return {
    take() {
      if (ended) return Promise.reject(new Error("the writer was closed"));
      const buffer = free.pop();
      if (buffer !== undefined) return Promise.resolve(buffer);
      if (made <= ahead) {
        made++;
        return Promise.resolve(createRangeBuffer(BUFFER_BYTES));
      }
      return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
    },
    give(buffer) {
      const next = waiting.shift();
      if (next === undefined) free.push(buffer);
      else next.resolve(buffer);
    },
    end() {
      ended = true;
      for (const { reject } of waiting.splice(0)) reject(new Error("the writer was closed"));
    },
  };
}

function createQueue<T>(): { push(item: T): void; shift(): Promise<T>; fail(error: unknown): void; left(): readonly T[] } {
  const items: T[] = [];
  let failure: { readonly error: unknown } | undefined;
  let wake: (() => void) | undefined;
  const signal = (): void => {
    wake?.();
    wake = undefined;
  };
  return {
    push(item) {
      items.push(item);
      signal();
    },
    fail(error) {
      failure = { error };
      signal();
    },
    async shift() {
      while (items.length === 0) {
        if (failure !== undefined) throw failure.error;
        await new Promise<void>((resolve) => (wake = resolve));
      }
      return items.shift()!;
    },
    left: () => items,
  };
}
