/**
 * Every rounding in the house, by name.
 *
 * `Math.round` sends ties toward +∞ (`Math.round(-2.5) === -2`), which biases
 * codes upward, so nothing here calls it on values.
 * @module
 */

/**
 * Round to the nearest integer, ties to the even neighbour: IEEE 754-2019
 * §4.3.1 `roundTiesToEven`.
 *
 * @param x - any number; NaN and ±∞ return themselves; the sign of zero is not kept.
 */
export function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const fraction = x - floor;
  if (fraction !== 0.5) return fraction < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Round to the nearest integer, ties away from zero: C `roundf`, IEEE 754-2019 `roundTiesToAway`. */
export function roundHalfAway(x: number): number {
  return x < 0 ? -Math.floor(-x + 0.5) : Math.floor(x + 0.5);
}

/** Limit `x` to [low, high]; NaN stays NaN. */
export function clamp(x: number, low: number, high: number): number {
  return x < low ? low : x > high ? high : x;
}
