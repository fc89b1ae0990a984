/**
 * Lengths and masks of a decoder that runs on a cache: `input_ids` are the last `sequence` of `total` positions,
 * `attention_mask` [batch, total] has 0 for padding. Everything is written when it is first asked for, and once.
 * @module
 */
import type { Emitter } from "./emitter.ts";

/** `TensorProto.DataType` numbers for Cast. */
const BOOL = 9;
const INT32 = 6;

/**
 * Added to scores that must not count. Finite, so that a row that sees nothing (padding) stays a number, and small enough
 * to be added to a score in f16; exp(-30000) is 0 in every float.
 */
const HIDDEN = -30_000;

export class Lengths {
  readonly #emitter: Emitter;
  readonly #ids: string;
  readonly #mask: string;

  /**
   * @param ids - value I64 [batch, sequence].
   * @param mask - value I64 [batch, total].
   */
  constructor(emitter: Emitter, ids: string, mask: string) {
    this.#emitter = emitter;
    this.#ids = ids;
    this.#mask = mask;
  }

  /** I64 [1]. */
  batch(): string {
    return this.#axis("batch", this.#ids, 0);
  }

  /** I64 [1]: positions of this run. */
  sequence(): string {
    return this.#axis("sequence", this.#ids, 1);
  }

  /** I64 [1]: positions of this run and before. */
  total(): string {
    return this.#axis("total", this.#mask, 1);
  }

  /** I64 [batch, sequence]: the number of each token, row by row. */
  tokenIndices(): string {
    return this.#once("token-indices", (e) => {
      const dims = e.op("Shape", [this.#ids]);
      return e.op("Reshape", [this.#range(e.op("ReduceProd", [dims], { keepdims: 0 })), dims]);
    });
  }

  /** I32 [batch]: index of the last position, equal in all rows. */
  lastIndices(): string {
    return this.#once("last-indices", (e) =>
      e.op("Cast", [e.op("Expand", [e.op("Sub", [this.total(), e.int64([1])]), this.batch()])], { to: INT32 }),
    );
  }

  /** I32 scalar. */
  totalScalar(): string {
    return this.#once("total-scalar", (e) => e.op("Cast", [e.op("Squeeze", [this.total(), e.int64([0])])], { to: INT32 }));
  }

  /** BOOL [batch, 1, sequence, total], true = may look: causal, in the window, not padding. */
  allowed(window: number | undefined): string {
    return this.#once(`allowed ${window}`, (e) => {
      const keys = this.#once("keys", () => this.#range(e.op("Squeeze", [this.total(), e.int64([0])])));
      const queries = this.#once("queries", () => {
        const past = e.op("Sub", [this.total(), this.sequence()]);
        return e.op("Slice", [keys, past, this.total(), e.int64([0])]);
      });
      const distance = this.#once("distance", () =>
        e.op("Sub", [e.op("Unsqueeze", [queries, e.int64([1])]), e.op("Unsqueeze", [keys, e.int64([0])])]),
      );
      const before = e.op("GreaterOrEqual", [distance, e.int64(0)]);
      const near = window === undefined ? before : e.op("And", [before, e.op("Less", [distance, e.int64(window)])]);
      const present = this.#once("present", () => e.op("Unsqueeze", [e.op("Cast", [this.#mask], { to: BOOL }), e.int64([1, 2])]));
      return e.op("And", [near, present]);
    });
  }

  /** F32 of the shape of `allowed`: 0 where it is true. */
  bias(window: number | undefined): string {
    return maskBias(this.#emitter, this.allowed(window));
  }

  #axis(key: string, value: string, axis: number): string {
    return this.#once(`axis ${key}`, (e) => e.op("Shape", [value], { start: axis, end: axis + 1 }));
  }

  /** I64 [count] from 0; `count` is a scalar. */
  #range(count: string): string {
    const e = this.#emitter;
    return e.op("Range", [e.int64(0), count, e.int64(1)]);
  }

  #once(key: string, write: (emitter: Emitter) => string): string {
    const emitter = this.#emitter;
    return emitter.once(`lengths.${key}`, () => write(emitter));
  }
}

/** A boolean mask as what is added to scores. */
export function maskBias(emitter: Emitter, mask: string): string {
  return emitter.once(`bias ${mask}`, () => emitter.op("Where", [mask, emitter.float32(0), emitter.float32(HIDDEN)]));
}
