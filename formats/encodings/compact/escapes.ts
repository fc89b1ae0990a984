/**
 * Weights far from what their row and column let expect, spelled out beside the stream, in nibbles; the lower nibble of a byte comes first.
 *
 * Nibble n of 0 to 14: relative is RELATIVE_MIN - 1 - n, just below the first symbol: most of them are small.
 * 15: a byte follows, relative when it is 0 to 254; 255: the coded bits follow as u16.
 * @module
 */
import { FormatError } from "../../../core/errors.ts";
import { RELATIVE_MIN } from "./frequencies.ts";

/** A nibble that says that more follow. */
export const FAR = 15;

export interface EscapeWriter {
  put(relative: number, coded: number): void;
  /** The list in whole bytes. */
  finish(): Uint8Array;
}

export function createEscapeWriter(): EscapeWriter {
  const nibbles: number[] = [];
  return {
    put(relative, coded) {
      const near = RELATIVE_MIN - 1 - relative;
      if (near >= 0 && near < FAR) nibbles.push(near);
      else if (relative >= 0 && relative < 255) nibbles.push(FAR, relative & 15, relative >> 4);
      else nibbles.push(FAR, 15, 15, coded & 15, (coded >> 4) & 15, (coded >> 8) & 15, coded >> 12);
    },
    finish: () => Uint8Array.from({ length: Math.ceil(nibbles.length / 2) }, (_, i) => nibbles[2 * i]! | ((nibbles[2 * i + 1] ?? 0) << 4)),
  };
}

export interface EscapeReader {
  /** @param expected - coded bits of relative 0. @returns coded bits, to be masked. @throws {FormatError} `format.field` when the list has ended. */
  next(expected: number): number;
  /** Whether the list ends here. */
  isDone(): boolean;
}

/** @param name - the block, for messages. */
export function createEscapeReader(name: string, bytes: Uint8Array): EscapeReader {
  let at = 0;
  const nibble = (): number => {
    if (at >= 2 * bytes.length) throw new FormatError("format.field", `${name}: more escapes than their bytes hold`, { block: name });
    const byte = bytes[at >> 1]!;
    return at++ % 2 === 0 ? byte & 15 : byte >> 4;
  };
  return {
    next(expected) {
      const near = nibble();
      if (near < FAR) return expected + RELATIVE_MIN - 1 - near;
      const relative = nibble() + 16 * nibble();
      if (relative < 255) return expected + relative;
      return nibble() + 16 * nibble() + 256 * nibble() + 4096 * nibble();
    },
    isDone: () => Math.ceil(at / 2) === bytes.length,
  };
}
