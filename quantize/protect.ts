/**
 * `--protect auto`: which sites keep float activations because no scale can
 * tame theirs. A few channels of a few tokens, thousands of times the rest,
 * take every code of a token's scale (massive activations in front of
 * `down_proj`, Sun et al. 2024, arXiv:2402.17762); no fold removes them.
 * @module
 */
import type { Block, LinearSite } from "../model/model.ts";
import type { BlockTrials } from "./block-trial.ts";
import type { FoldState } from "./fold-state.ts";

/** Share of all quantized sites that may be protected. */
const MAX_SHARE = 0.1;
/** A site is out of the ordinary when its error a site is this many times the model's median. */
const OUTSTANDING = 2;

/** Sites that read one value, and what quantizing that value does to the block's output. */
export interface MeasuredSites {
  readonly sites: readonly string[];
  /** Relative error of the block's output with only this value quantized (weights float). */
  readonly error: number;
}

/** Measure each input value of a block by itself, under the folds decided. */
export async function measureSites(
  block: Block,
  trials: BlockTrials,
  state: FoldState,
  isQuantized: (site: LinearSite) => boolean,
): Promise<readonly MeasuredSites[]> {
  const byInput = new Map<string, LinearSite[]>();
  for (const site of block.sites.filter(isQuantized)) byInput.set(site.input, [...(byInput.get(site.input) ?? []), site]);
  const measured: MeasuredSites[] = [];
  for (const sites of byInput.values()) {
    measured.push({ sites: sites.map(({ name }) => name), error: await trials.error(state, { weights: [], activations: sites }) });
  }
  return measured;
}

/**
 * The worst offenders, by error a site, up to a tenth of all sites; sites of one input stay together.
 *
 * @returns reason by site name.
 */
export function chooseProtected(measured: readonly MeasuredSites[], quantizedSites: number): ReadonlyMap<string, string> {
  const each = ({ sites, error }: MeasuredSites): number => error / sites.length;
  const ranked = measured.toSorted((a, b) => each(b) - each(a) || (a.sites[0]! < b.sites[0]! ? -1 : 1));
  const median = ranked.length === 0 ? 0 : each(ranked[Math.floor(ranked.length / 2)]!);
  const chosen = new Map<string, string>();
  let room = Math.floor(quantizedSites * MAX_SHARE);
  for (const entry of ranked) {
    if (entry.sites.length > room || each(entry) <= OUTSTANDING * median) continue;
    room -= entry.sites.length;
    const ratio = median === 0 ? "" : `, ${(each(entry) / median).toPrecision(3)} times the median site`;
    for (const name of entry.sites) {
      chosen.set(
        name,
        `weight-only: quantizing its input moves the block's output by ${(100 * Math.sqrt(entry.error)).toPrecision(3)} %${ratio}`,
      );
    }
  }
  return chosen;
}
