/**
 * Checks a DFloat11 unit while it is written: blocks are read back from their file and decoded as soon as they are complete, and compared with
 * the source while that is in memory. So the source need not be read for it once more.
 * @module
 */
import { FormatError, VerifyError } from "../../core/errors.ts";
import { BLOCK_BYTES } from "../../formats/encodings/dfloat11/fields.ts";
import type { UnitIndex } from "../../formats/layouts/dfloat11/stored.ts";
import { BATCH, createBlockDecoder, indexOf, type BlockIndex } from "../../kernels/df11/blocks.ts";
import type { Workspace } from "../../kernels/load-wasm.ts";

/** Blocks are decoded in multiples of this, so that none of the decoder's chains is without one, or as many as are left. */
const TOGETHER: number = BATCH / 2;
/** Patterns that wait for their block: those of blocks that are not yet enough together, and of one that is not complete. */
const MAX_WAITING: number = (TOGETHER + 1) * 8 * BLOCK_BYTES;

/** Reads back what was written. */
export type ReadWritten = (suffix: "encoded_exponent" | "sign_mantissa", offset: number, out: Uint8Array) => Promise<void>;

export interface WrittenCheck {
  /**
   * The next elements of the source, once they are encoded and written.
   *
   * @param complete - blocks that can be decoded, in all.
   */
  add(patterns: Uint8Array, complete: number): Promise<void>;
  /** After the last elements: `stored` must say of the blocks what they were checked with. */
  end(stored: () => Promise<UnitIndex>): Promise<void>;
}

/**
 * @param luts - what the unit is decoded with.
 * @param index - known up to `complete` of each `add`.
 * @throws {VerifyError} `verify.mismatch`, from its methods.
 */
export function createWrittenCheck(
  name: string,
  luts: Uint8Array,
  index: BlockIndex,
  read: ReadWritten,
  workspace: Workspace,
): WrittenCheck {
  const decoder = createBlockDecoder(name, luts, index, workspace);
  const waiting = new Uint8Array(2 * Math.min(MAX_WAITING, index.elements));
  let held = 0;
  /** First element that is not compared yet: the first of `waiting`. */
  let from = 0;
  let next = 0;

  async function check(last: number, patterns: Uint8Array): Promise<void> {
    const to = index.position(last);
    const { stream, signMantissa } = decoder.input(next, last);
    await read("encoded_exponent", next * BLOCK_BYTES, stream);
    await read("sign_mantissa", from, signMantissa);
    const decoded = decoder.run();
    const old = Math.min(held, decoded.length);
    const same =
      Buffer.compare(waiting.subarray(0, old), decoded.subarray(0, old)) === 0 &&
      Buffer.compare(patterns.subarray(0, decoded.length - old), decoded.subarray(old)) === 0;
    if (!same) throw fail(`blocks ${next} to ${last} (elements ${from} to ${to}) decode to other weights`);
    [next, from] = [last, to];
  }

  const fail = (what: string, cause?: unknown): VerifyError =>
    new VerifyError("verify.mismatch", `unit ${name}: what was written does not decode to the source: ${what}`, { unit: name }, { cause });
  const checked = async (work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      throw error instanceof FormatError ? fail(error.message, error) : error;
    }
  };

  async function add(patterns: Uint8Array, complete: number): Promise<void> {
    let rest = patterns;
    // All that are left, or whole groups.
    const end = complete === index.blocks ? complete : complete - ((complete - next) % TOGETHER);
    while (next < end) {
      const before = from;
      await check(Math.min(next + BATCH, end), rest);
      const done = 2 * (from - before);
      rest = rest.subarray(Math.max(0, done - held));
      waiting.copyWithin(0, Math.min(done, held), held);
      held = Math.max(0, held - done);
    }
    if (held + rest.length > waiting.length) throw fail(`block ${next} has more elements than bits`);
    waiting.set(rest, held);
    held += rest.length;
  }

  return {
    add: (patterns, complete) => checked(() => add(patterns, complete)),
    end: (stored) =>
      checked(async () => {
        await add(new Uint8Array(0), index.blocks);
        if (held > 0 || !isSame(await stored(), luts, index)) throw fail("its index is not that of its blocks");
      }),
  };
}

/** Whether a stored index says of its blocks what another one does. */
function isSame(stored: UnitIndex, luts: Uint8Array, index: BlockIndex): boolean {
  const found = indexOf(stored);
  let same = found.blocks === index.blocks && found.elements === index.elements && found.streamBytes === index.streamBytes;
  same &&= Buffer.compare(stored.luts, luts) === 0;
  for (let b = 0; same && b <= index.blocks; b++)
    same = found.position(b) === index.position(b) && (b === index.blocks || found.gap(b) === index.gap(b));
  return same;
}
