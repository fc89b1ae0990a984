/**
 * Folds as the manifest keeps them: without them nobody could compare a smoothed artifact with its source.
 * @module
 */
import { hashBytes } from "./manifest.ts";
import type { LazyTensor } from "../core/tensor.ts";
import type { Decisions, WeightFold } from "./decisions.ts";
import { reorderedTensor } from "./permuted.ts";

/** Fold part of a manifest. Factors are stored once, under the hash of their bytes. */
export interface FoldRecords {
  readonly pairs: readonly { readonly name: string; readonly note: string }[];
  /** Little-endian f32, base64. */
  readonly factors: Readonly<Record<string, string>>;
  /** By tensor: keys of `factors`. */
  readonly folds: Readonly<Record<string, { readonly rows?: string; readonly cols?: string }>>;
  /** By tensor: keys of `factors`, here little-endian i32: where the outer and inner axis of the stored tensor come from. */
  readonly orders?: Readonly<Record<string, { readonly outer?: string; readonly inner?: string }>>;
  /** Tensors that the source does not have. */
  readonly added?: readonly string[];
  /** Tensors stored with new values: norms and biases in front of a fold. */
  readonly replaced: readonly string[];
}

/**
 * Decisions → manifest.
 *
 * @param channelAxis - of the weight with a tensor name; 0 for all else.
 */
export function foldRecords(
  { pairs, folds, replaced, orders, added }: Decisions,
  channelAxis: (tensor: string) => 0 | 1 = () => 0,
): FoldRecords {
  const factors = new Map<string, string>();
  const keyOf = (values: Float32Array | Int32Array): string => {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    const key = hashBytes(bytes).slice(0, 16);
    factors.set(key, Buffer.from(bytes).toString("base64"));
    return key;
  };
  // Sorted: decisions read back from a file come in the file's order.
  const records = [...folds]
    .map(([name, { rows, cols }]) => [name, { ...(rows && { rows: keyOf(rows) }), ...(cols && { cols: keyOf(cols) }) }] as const)
    .toSorted(([a], [b]) => (a < b ? -1 : 1));
  const ordered = [...orders]
    .map(([name, { rows, cols }]) => {
      const [outer, inner] = channelAxis(name) === 0 ? [rows, cols] : [cols, rows];
      return [name, { ...(outer && { outer: keyOf(outer) }), ...(inner && { inner: keyOf(inner) }) }] as const;
    })
    .toSorted(([a], [b]) => (a < b ? -1 : 1));
  return {
    ...(ordered.length > 0 && { orders: Object.fromEntries(ordered) }),
    ...(added.size > 0 && { added: [...added.keys()].toSorted() }),
    pairs: pairs.map(({ name, note }) => ({ name, note })),
    factors: Object.fromEntries([...factors].toSorted(([a], [b]) => (a < b ? -1 : 1))),
    folds: Object.fromEntries(records),
    replaced: [...replaced.keys()].toSorted(),
  };
}

/** Manifest → source tensors in the order of the artifact. */
export function orderedSource(
  { orders = {}, factors }: FoldRecords,
  tensors: ReadonlyMap<string, LazyTensor>,
): ReadonlyMap<string, LazyTensor> {
  const read = (key: string | undefined): Int32Array | undefined => {
    if (key === undefined || !Object.hasOwn(factors, key)) return undefined;
    const bytes = Buffer.from(factors[key]!, "base64");
    return new Int32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  };
  return new Map(
    [...tensors].map(([name, lazy]) => {
      if (!Object.hasOwn(orders, name)) return [name, lazy];
      const [rows, cols] = [read(orders[name]!.outer), read(orders[name]!.inner)];
      return [name, reorderedTensor(lazy, { ...(rows && { rows }), ...(cols && { cols }) }, 0)];
    }),
  );
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
