/**
 * Folds as the manifest keeps them: without them nobody could compare a smoothed artifact with its source.
 * @module
 */
import { hashBytes } from "./manifest.ts";
import type { Decisions, WeightFold } from "./decisions.ts";

/** Fold part of a manifest. Factors are stored once, under the hash of their bytes. */
export interface FoldRecords {
  readonly pairs: readonly { readonly name: string; readonly note: string }[];
  /** Little-endian f32, base64. */
  readonly factors: Readonly<Record<string, string>>;
  /** By tensor: keys of `factors`. */
  readonly folds: Readonly<Record<string, { readonly rows?: string; readonly cols?: string }>>;
  /** Tensors stored with new values: norms and biases in front of a fold. */
  readonly replaced: readonly string[];
}

/** Decisions → manifest. */
export function foldRecords({ pairs, folds, replaced }: Decisions): FoldRecords {
  const factors = new Map<string, string>();
  const keyOf = (values: Float32Array): string => {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    const key = hashBytes(bytes).slice(0, 16);
    factors.set(key, Buffer.from(bytes).toString("base64"));
    return key;
  };
  // Sorted: decisions read back from a file come in the file's order.
  const records = [...folds]
    .map(([name, { rows, cols }]) => [name, { ...(rows && { rows: keyOf(rows) }), ...(cols && { cols: keyOf(cols) }) }] as const)
    .toSorted(([a], [b]) => (a < b ? -1 : 1));
  return {
    pairs: pairs.map(({ name, note }) => ({ name, note })),
    factors: Object.fromEntries([...factors].toSorted(([a], [b]) => (a < b ? -1 : 1))),
    folds: Object.fromEntries(records),
    replaced: [...replaced.keys()].toSorted(),
  };
}

/** Manifest → the fold of one tensor, if it has one. */
export function readFold({ folds, factors }: FoldRecords, tensor: string): WeightFold | undefined {
  if (!Object.hasOwn(folds, tensor)) return undefined;
  const { rows, cols } = folds[tensor]!;
  const read = (key: string | undefined): Float32Array | undefined => {
    if (key === undefined || !Object.hasOwn(factors, key)) return undefined;
    const bytes = Buffer.from(factors[key]!, "base64");
    return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  };
  const [rowFactors, colFactors] = [read(rows), read(cols)];
  return { ...(rowFactors && { rows: rowFactors }), ...(colFactors && { cols: colFactors }) };
}
