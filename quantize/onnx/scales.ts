/**
 * Ranges of activations → scales and zero points.
 * @module
 */
import { clamp, roundHalfEven } from "../../core/round.ts";

/** Unsigned codes of a value: x ≈ (code - zero) · scale. */
export interface ActivationScale {
  readonly scale: number;
  readonly zero: number;
  readonly bits: 8 | 16;
}

/** What calibration found of a value. */
export interface ValueRange {
  readonly min: number;
  readonly max: number;
}

/** Smallest scale: below it, quotients leave f32. */
const MIN_SCALE = 2 ** -100;

/** Scale (max - min) / (2^bits - 1) of the range widened to hold 0; an empty range gets scale 1. */
export function activationScale({ min, max }: ValueRange, bits: 8 | 16): ActivationScale {
  const [low, high] = [Math.min(0, min), Math.max(0, max)];
  const levels = 2 ** bits - 1;
  if (low === high) return { scale: 1, zero: 0, bits };
  const scale = Math.max(MIN_SCALE, Math.fround((high - low) / levels));
  return { scale, zero: clamp(roundHalfEven(-low / scale), 0, levels) + 0, bits };
}
