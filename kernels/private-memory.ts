/**
 * The compiled kernels import a memory that threads share, which a browser gives only to pages that are cross-origin isolated. One
 * flag of the import says so; without it the same code runs on a memory of its own, on any page.
 * @module
 */
import { FormatError } from "../core/errors.ts";

const IMPORT_SECTION = 2;
const MEMORY_IMPORT = 2;
const SHARED = 2;

/**
 * A module that imports its memory, with that memory no longer shared. It keeps its size and maximum.
 * The module must use no atomic operations; none of the kernels does.
 *
 * Source: WebAssembly core specification 3.0, 5.3.11 (limits), 5.5.5 (import section).
 *
 * @throws {FormatError} `format.field` when the module imports no shared memory.
 */
export function privateMemory(module: Uint8Array): Uint8Array {
  const out = Uint8Array.from(module);
  let at = 8;
  const number = (): number => {
    let [value, shift, byte] = [0, 0, 0x80];
    for (; (byte & 0x80) !== 0 && at < out.length; shift += 7) {
      byte = out[at++]!;
      value += (byte & 0x7f) * 2 ** shift;
    }
    return value;
  };
  const skipName = (): void => {
    const length = number();
    at += length;
  };
  while (at < out.length) {
    const section = out[at++]!;
    const size = number();
    const end = at + size;
    if (section === IMPORT_SECTION) {
      for (let left = number(); left > 0 && at < end; left--) {
        skipName();
        skipName();
        if (out[at++] !== MEMORY_IMPORT) {
          // Kernels import nothing else but functions: a type index follows.
          number();
          continue;
        }
        if ((out[at]! & SHARED) === 0) break;
        out[at]! &= ~SHARED;
        return out;
      }
    }
    at = end;
  }
  throw new FormatError("format.field", "the WASM module imports no shared memory", {});
}
