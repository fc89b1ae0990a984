/**
 * The Huffman code of a unit, exactly as the official encoder builds it.
 *
 * It is not canonical: code words depend on the order in which nodes merge.
 * Source: `dahuffman` 0.4.2 (`HuffmanCodec.from_frequencies`), DFloat11 0.5.0 `get_32bit_codec`.
 * @module
 */
import { MAX_CODE_BITS } from "./fields.ts";

/** The artificial end symbol; it sorts before every exponent. */
export const END = -1;

/** One code word. `bits` is its value with `length` significant bits, first bit highest; exact up to 2^53. */
export interface CodeWord {
  /** Exponent, or END. */
  readonly symbol: number;
  readonly length: number;
  readonly bits: number;
}

interface Node {
  readonly frequency: number;
  /** First leaf; breaks ties. */
  readonly symbol: number;
  /** Leaves in table order, with the bits gathered so far (first bit = last merge). */
  readonly leaves: readonly { readonly symbol: number; readonly path: string }[];
}

/**
 * Code words in table order: the leaf order of the tree's root, which numbers the look-up rows.
 *
 * @param counts - occurrences by exponent, length 256; at least one is positive.
 * @returns undefined when no cap of rare counts brings the longest code to 32 bits.
 */
export function buildCodeTable(counts: Float64Array): readonly CodeWord[] | undefined {
  const present = Array.from(counts.keys()).filter((symbol) => counts[symbol]! > 0);
  let table = huffman(present.map((symbol) => ({ symbol, frequency: counts[symbol]! })));
  if (longest(table) <= MAX_CODE_BITS) return table;
  // The k rarest exponents get count 1, each k from the original counts. Ties above 1 are ordered by exponent here;
  // the official code leaves them to NumPy's partition, so only untied histograms have a defined official form.
  const rarest = present.toSorted((a, b) => counts[a]! - counts[b]! || a - b);
  for (let k = 2; k <= rarest.length; k++) {
    const capped = new Set(rarest.slice(0, k));
    table = huffman(present.map((symbol) => ({ symbol, frequency: capped.has(symbol) ? 1 : counts[symbol]! })));
    if (longest(table) <= MAX_CODE_BITS) return table;
  }
  return undefined;
}

function longest(table: readonly CodeWord[]): number {
  return table.reduce((most, { length }) => Math.max(most, length), 0);
}

function huffman(symbols: readonly { readonly symbol: number; readonly frequency: number }[]): readonly CodeWord[] {
  const leaf = (symbol: number, frequency: number): Node => ({ symbol, frequency, leaves: [{ symbol, path: "" }] });
  // At most 257 leaves: scanning for the two smallest is cheaper than a heap is to read.
  const open: Node[] = [...symbols.map(({ symbol, frequency }) => leaf(symbol, frequency)), leaf(END, 1)];
  const before = (a: Node, b: Node): boolean => a.frequency < b.frequency || (a.frequency === b.frequency && a.symbol < b.symbol);
  const takeSmallest = (): Node => {
    let best = 0;
    for (let i = 1; i < open.length; i++) if (before(open[i]!, open[best]!)) best = i;
    const [node] = open.splice(best, 1);
    return node!;
  };
  while (open.length > 1) {
    const a = takeSmallest();
    const b = takeSmallest();
    const prefix = (node: Node, bit: string): { symbol: number; path: string }[] =>
      node.leaves.map(({ symbol, path }) => ({ symbol, path: bit + path }));
    open.push({ frequency: a.frequency + b.frequency, symbol: a.symbol, leaves: [...prefix(a, "0"), ...prefix(b, "1")] });
  }
  return open[0]!.leaves.map(({ symbol, path }) => ({
    symbol,
    length: path.length,
    bits: path.length <= 53 ? Number.parseInt(path || "0", 2) : NaN,
  }));
}
