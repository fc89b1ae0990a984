/**
 * The only source of randomness: xoshiro128** seeded through splitmix32.
 *
 * Source: Blackman & Vigna, "Scrambled Linear Pseudorandom Number Generators",
 * ACM TOMS 2021, §3; the seeding mixes with the constants of MurmurHash3's finalizer.
 * @module
 */

/** A stream of random numbers that depends only on its seed. */
export interface Random {
  /** Uniform integer in [0, 2^32). */
  uint32(): number;
  /** Uniform in [0, 1), 53 bits. */
  uniform(): number;
  /** Uniform integer in [0, bound). @param bound - 1 to 2^32. */
  below(bound: number): number;
  /** Standard normal (Box–Muller). */
  normal(): number;
}

/** @param seed - any integer; taken modulo 2^32. */
export function createRandom(seed: number): Random {
  let mix = seed >>> 0;
  const next = (): number => {
    mix = (mix + 0x9e3779b9) >>> 0;
    let z = mix;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return (z ^ (z >>> 16)) >>> 0;
  };
  let [a, b, c, d] = [next(), next(), next(), next()];
  const rotate = (x: number, k: number): number => (x << k) | (x >>> (32 - k));
  const uint32 = (): number => {
    const result = Math.imul(rotate(Math.imul(b, 5), 7), 9) >>> 0;
    const t = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= t;
    d = rotate(d, 11);
    return result;
  };
  const uniform = (): number => ((uint32() >>> 5) * 2 ** 26 + (uint32() >>> 6)) / 2 ** 53;
  const below = (bound: number): number => {
    // Reject the tail that would make low values likelier.
    const limit = 2 ** 32 - (2 ** 32 % bound);
    for (;;) {
      const x = uint32();
      if (x < limit) return x % bound;
    }
  };
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return { uint32, uniform, below, normal };
}

/** A new array in random order (Fisher–Yates); depends on `random` alone. */
export function shuffled<T>(items: readonly T[], random: Random): T[] {
  const result = [...items];
  for (let i = result.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [result[i], result[j]] = [result[j]!, result[i]!];
  }
  return result;
}
