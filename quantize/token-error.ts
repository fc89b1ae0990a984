/**
 * Distance of two runs, token by token.
 * @module
 */
import type { HostTensor, Values } from "../model/engines/engine.ts";

/**
 * Mean over tokens of |y' − y|² / |y|², y the reference: each token counts by what the next norm will see of it, so a
 * few tokens of enormous size do not hide the rest. Tokens of length 0 add nothing; values that are not f32 are left out.
 */
export function meanTokenError(reference: Values, outputs: Values): number {
  let sum = 0;
  let tokens = 0;
  for (const [name, output] of Object.entries(outputs)) {
    const part = tokenErrors(reference[name]!, output);
    sum += part.sum;
    tokens += part.tokens;
  }
  return tokens === 0 ? 0 : sum / tokens;
}

function tokenErrors(reference: HostTensor, output: HostTensor): { sum: number; tokens: number } {
  const [y, z] = [reference.data, output.data];
  if (!(y instanceof Float32Array) || !(z instanceof Float32Array)) return { sum: 0, tokens: 0 };
  const channels = reference.shape.at(-1) ?? 1;
  let sum = 0;
  let tokens = 0;
  for (let start = 0; start < y.length; start += channels, tokens++) {
    let signal = 0;
    let noise = 0;
    for (let i = start; i < start + channels; i++) {
      signal += y[i]! * y[i]!;
      noise += (z[i]! - y[i]!) ** 2;
    }
    if (signal > 0) sum += noise / signal;
  }
  return { sum, tokens };
}
