/**
 * SmoothQuant: move outliers of activation channels into the weights, where
 * they hurt less, by an exact diagonal rescale that the layer in front absorbs.
 *
 * Source: Xiao et al. 2022, arXiv:2211.10438 §4 eq. 4. The factors are
 * computed in f64 from f32 statistics; the authors' code works in the model's dtype.
 * @module
 */
import type { PairFactors, Transform, TransformContext } from "../../method.ts";
import type { FoldPair } from "../../../model/graph/pairs.ts";
import { reduceChannels } from "../../fold-state.ts";
import { foldColumnMaxima, smoothingScales } from "./scales.ts";

/** The grid of `alpha=auto`: coarse first, then the neighbours of the best. */
const GRID: readonly number[] = [0.2, 0.35, 0.5, 0.65, 0.8];
const DEFAULT_ALPHA = 0.5;
const FINE_STEP = 0.075;
/** A candidate must cut the error by this much to be taken over doing nothing: less is noise of the sample. */
const WORTHWHILE = 0.99;

export const smoothquant: Transform = {
  name: "smoothquant",
  summary: "moves activation outliers into the weights by exact channel factors",
  source: "arXiv:2211.10438 §4",
  needs: () => ["absmax"],
  search: ({ alpha }) => alpha === "auto",
  decide: decideFactors,
};

async function decideFactors(context: TransformContext): Promise<readonly PairFactors[]> {
  const { alpha } = context.settings;
  const chosen: PairFactors[] = [];
  for (const pair of context.pairs) {
    const first = pair.consumers.find(({ kind }) => kind === "linear") ?? pair.consumers[0]!;
    const activations = reduceChannels(pair, context.absmax(first));
    const columns = new Float32Array(first.cols);
    for (const site of pair.consumers) foldColumnMaxima(await context.weight(site.weight), first.cols, site.channelAxis, columns);
    const maxima = reduceChannels(pair, columns);
    const at = (value: number): PairFactors => ({ pair, scales: smoothingScales(activations, maxima, value), note: `alpha ${value}` });
    if (alpha === "auto") {
      const best = await searchAlpha(context, pair, at);
      if (best !== undefined) chosen.push(best);
    } else {
      chosen.push(at(alpha));
    }
  }
  return chosen;
}

/** The grid point with the smallest block output error, or nothing when leaving the pair alone is as good. */
async function searchAlpha(
  context: TransformContext,
  pair: FoldPair,
  at: (alpha: number) => PairFactors,
): Promise<PairFactors | undefined> {
  const { score } = context;
  if (score === undefined) throw new TypeError("searchAlpha needs a context with score");
  const plain: PairFactors = { pair, scales: new Float32Array(pair.channels).fill(1), note: "left alone" };
  const limit = (await score([plain])) * WORTHWHILE;
  const errors = new Map<number, number>();
  const measure = async (alpha: number): Promise<number> => {
    const known = errors.get(alpha);
    if (known !== undefined) return known;
    const error = await score([at(alpha)]);
    errors.set(alpha, error);
    return error;
  };
  // Errors have one valley in alpha, so walking downhill from the middle finds it with half the trials of the whole grid.
  const start = GRID.indexOf(DEFAULT_ALPHA);
  const step = (await measure(GRID[start + 1]!)) < (await measure(DEFAULT_ALPHA)) ? 1 : -1;
  for (let i = start + step; i >= 0 && i < GRID.length && (await measure(GRID[i]!)) <= (await measure(GRID[i - step]!)); i += step);
  const coarse = smallest(errors);
  for (const alpha of [coarse - FINE_STEP, coarse + FINE_STEP]) await measure(Number(alpha.toFixed(3)));
  const best = smallest(errors);
  return errors.get(best)! < limit ? at(best) : undefined;
}

/** Key of the smallest value; the smaller key on a tie. */
function smallest(errors: ReadonlyMap<number, number>): number {
  const [first] = [...errors].toSorted(([a, x], [b, y]) => x - y || a - b);
  return first![0];
}
