/**
 * The bits of a float that are not coded.
 *
 * bf16: 6 bits, sign * 32 + low five mantissa bits. Groups of 64 elements take three vectors of 16 bytes: byte i of vector j holds element 16j + i
 * in its low six bits, and above them bits 2j, 2j + 1 of element 48 + i. The last group of m elements takes vectors of g = ceil(m/4) bytes,
 * with g for 16 (elements past the end count as 0).
 *
 * f16: low eight mantissa bits, a byte each; then the signs, one bit each, lowest first, in whole words of four bytes.
 * @module
 */
import type { ElementKind } from "./view.ts";

const GROUP = 64;

/** Bytes the raw bits of `count` elements take, in whole words. */
export function rawBitsBytes(kind: ElementKind, count: number): number {
  if (kind === "bytes") return 0;
  if (kind === "f16") return 4 * Math.ceil(count / 4) + 4 * Math.ceil(count / 32);
  const whole = Math.floor(count / GROUP);
  return 4 * Math.ceil((48 * whole + 3 * Math.ceil((count - GROUP * whole) / 4)) / 4);
}

/** The raw bits of patterns, padded with zeros. */
export function packRawBits(kind: "bf16" | "f16", patterns: Uint16Array): Uint8Array {
  const count = patterns.length;
  const out = new Uint8Array(rawBitsBytes(kind, count));
  if (kind === "f16") {
    const signs = 4 * Math.ceil(count / 4);
    for (let i = 0; i < count; i++) {
      out[i] = patterns[i]! & 0xff;
      out[signs + (i >> 3)]! |= (patterns[i]! >> 15) << (i & 7);
    }
    return out;
  }
  const raw = (i: number): number => (i < count ? ((patterns[i]! >> 10) & 0x20) | (patterns[i]! & 0x1f) : 0);
  for (let start = 0, at = 0; start < count; start += GROUP) {
    const g = Math.min(16, Math.ceil((count - start) / 4));
    for (let i = 0; i < g; i++) {
      const last = raw(start + 3 * g + i);
      for (let j = 0; j < 3; j++) out[at + j * g + i] = raw(start + j * g + i) | (((last >> (2 * j)) & 3) << 6);
    }
    at += 3 * g;
  }
  return out;
}

/** The raw bits back where they belong in a pattern. */
export function unpackRawBits(kind: "bf16" | "f16", bytes: Uint8Array, count: number): Uint16Array {
  const out = new Uint16Array(count);
  if (kind === "f16") {
    const signs = 4 * Math.ceil(count / 4);
    for (let i = 0; i < count; i++) out[i] = bytes[i]! | (((bytes[signs + (i >> 3)]! >> (i & 7)) & 1) << 15);
    return out;
  }
  const put = (i: number, raw: number): void => {
    if (i < count) out[i] = ((raw & 0x20) << 10) | (raw & 0x1f);
  };
  for (let start = 0, at = 0; start < count; start += GROUP) {
    const g = Math.min(16, Math.ceil((count - start) / 4));
    for (let i = 0; i < g; i++) {
      let last = 0;
      for (let j = 0; j < 3; j++) {
        const byte = bytes[at + j * g + i]!;
        put(start + j * g + i, byte & 0x3f);
        last |= (byte >> 6) << (2 * j);
      }
      put(start + 3 * g + i, last);
    }
    at += 3 * g;
  }
  return out;
}
