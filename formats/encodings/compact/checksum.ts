/**
 * The 32-bit checksum of a block's decoded bytes: sixteen lanes of add, multiply, rotate, so that SIMD can take 64 bytes at a time.
 *
 *   bytes padded with zeros to a multiple of 64; x[j] = word j of the next 64 bytes, little-endian
 *   lane[j] = j;  lane[j] = rotl((lane[j] + x[j]) * P1, 13)
 *   h = length;   for j = 0..15: h = rotl((h + lane[j]) * P1, 13)
 *   h ^= h >> 15; h *= P2; h ^= h >> 13; h *= P3; h ^= h >> 16
 *
 * Every step is a bijection of what it takes in, so any change within one word is seen; the primes are those of xxHash32.
 * It finds accidents, not forgeries: SHA-256 in the directory is for those.
 * @module
 */
const P1 = 0x9e3779b1;
const P2 = 0x85ebca77;
const P3 = 0xc2b2ae3d;

const rotate = (x: number): number => (x << 13) | (x >>> 19);

/** @returns an unsigned 32-bit number. */
export function checksum(bytes: Uint8Array): number {
  const lanes = Int32Array.from({ length: 16 }, (_, j) => j);
  const stripe = new Uint8Array(64);
  for (let at = 0; at < bytes.length; at += 64) {
    stripe.fill(0);
    stripe.set(bytes.subarray(at, at + 64));
    const view = new DataView(stripe.buffer);
    for (let j = 0; j < 16; j++) lanes[j] = rotate(Math.imul(lanes[j]! + view.getInt32(4 * j, true), P1));
  }
  return finishChecksum(lanes, bytes.length);
}

/** Folds the sixteen lanes. */
export function finishChecksum(lanes: Int32Array, length: number): number {
  let h = length | 0;
  for (const lane of lanes) h = rotate(Math.imul(h + lane, P1));
  h = Math.imul(h ^ (h >>> 15), P2);
  h = Math.imul(h ^ (h >>> 13), P3);
  return (h ^ (h >>> 16)) >>> 0;
}
