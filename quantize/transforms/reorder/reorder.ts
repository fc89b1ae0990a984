/**
 * Reorder: channels that share a block are chosen at compile time, so that outliers share blocks with one another and not with the rest.
 * A permutation of channels between two matrices changes nothing a float model computes and costs nothing at run time.
 *
 * Source: Trukhanov & Soloveychik 2024, arXiv:2403.20137 (K-sort: rows of W_k by norm). `order=score` is our own objective, see `search.ts`.
 * @module
 */
import type { Transform } from "../../method.ts";

export const reorder: Transform = {
  name: "reorder",
  summary: "sorts channels so that outliers share blocks: keys (sites=k), or every input that something in front absorbs (sites=all)",
  source: "arXiv:2403.20137 §3",
  needs: ({ reorder: { sites, order } }) => (sites !== "k" && order !== "norm" ? ["absmax"] : []),
  search: () => false,
  // Orders are no factors: `decide-orders.ts` makes them once all factors are known.
  decide: () => Promise.resolve([]),
};
