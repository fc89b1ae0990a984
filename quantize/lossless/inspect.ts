/**
 * What each unit of a DFloat11 artifact takes, and what the least would be.
 * @module
 */
import { open } from "node:fs/promises";
import { FormatError } from "../../core/errors.ts";
import type { LazyTensor } from "../../core/tensor.ts";
import { findStoredUnits, memberRanges, readUnitIndex } from "../../formats/layouts/dfloat11/stored.ts";
import { createExponentCounter, STRIP } from "../../kernels/df11/unit-encoder.ts";
import { createWorkspace } from "../../kernels/load-wasm.ts";
import type { JobContext } from "../../kernels/pool.ts";
import type { ReadableTensor } from "./codec.ts";
import { df11Codec } from "./df11-codec.ts";

/** One stored unit. All bits are per weight. */
export interface InspectedUnit {
  readonly name: string;
  readonly elements: number;
  /** Everything that is stored of it. */
  readonly bitsPerWeight: number;
  /** Entropy of its exponents, each for itself, and the 8 bits that are stored raw: no code of single exponents takes less. */
  readonly entropyBound: number;
  /** gaps and output_positions: what decoding in parallel costs. */
  readonly indexBits: number;
  /** luts and split_positions. */
  readonly tableBits: number;
  /** Exponents that occur, ascending. */
  readonly histogram: readonly { readonly exponent: number; readonly count: number }[];
}

/** @throws {FormatError} naming a unit that does not decode. */
export async function inspectUnits(stored: ReadonlyMap<string, LazyTensor>): Promise<readonly InspectedUnit[]> {
  const workspace = createWorkspace();
  const context: JobContext = { workspace, breathe: async () => {}, progress: () => undefined };
  const inspected: InspectedUnit[] = [];
  for (const [name, parts] of findStoredUnits(stored)) {
    const lengths = new Map([...parts].map(([suffix, { byteLength }]) => [suffix, byteLength]));
    const index = await readUnitIndex(name, lengths, async (suffix) => (await parts.get(suffix)!.read()).bytes);
    const members = memberRanges(index).map(({ from, to }, i) => ({ name: `${name}[${i}]`, dtype: "BF16" as const, shape: [to - from] }));
    const mark = workspace.mark();
    const counter = createExponentCounter(workspace);
    const readers = new Map([...parts.values()].map((tensor) => [tensor.name, readable(tensor)]));
    await df11Codec.decode(name, readers, members, context, (_tensor, _offset, bytes) => {
      for (let at = 0; at < bytes.length; at += 2 * STRIP) {
        const piece = bytes.subarray(at, at + 2 * STRIP);
        workspace.bytes(counter.input).set(piece);
        counter.add(piece.length / 2);
      }
    });
    workspace.release(mark);
    const elements = index.signMantissa.length;
    const bits = (...suffixes: Parameters<typeof lengths.get>[0][]): number =>
      (8 * suffixes.reduce((sum, suffix) => sum + lengths.get(suffix)!, 0)) / elements;
    inspected.push({
      name,
      elements,
      bitsPerWeight: bits(...lengths.keys()),
      entropyBound: 8 + entropy(counter.counts, elements),
      indexBits: bits("gaps", "output_positions"),
      tableBits: bits("luts", "split_positions"),
      histogram: Array.from(counter.counts, (count, exponent) => ({ exponent, count })).filter(({ count }) => count > 0),
    });
  }
  return inspected;
}

/** Bits a symbol. */
function entropy(counts: Float64Array, total: number): number {
  return counts.reduce((sum, count) => (count === 0 ? sum : sum - (count / total) * Math.log2(count / total)), 0);
}

function readable(tensor: LazyTensor): ReadableTensor {
  const { name, dtype, shape, byteLength, location } = tensor;
  return {
    name,
    dtype,
    shape,
    byteLength,
    async readInto(offset, out) {
      if (location === undefined) return out.set((await tensor.read()).bytes.subarray(offset, offset + out.length));
      const handle = await open(location.path, "r");
      try {
        const { bytesRead } = await handle.read(out, 0, out.length, location.offset + offset);
        if (bytesRead !== out.length)
          throw new FormatError("format.truncated", `${location.path} ends inside tensor ${name}`, { tensor: name });
      } finally {
        await handle.close();
      }
    },
  };
}
