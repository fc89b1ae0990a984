/**
 * `--protect auto`: which sites keep float activations because no scale can
 * tame theirs. A few channels of a few tokens, thousands of times the rest,
 * take every code of a token's scale (massive activations in front of
 * `down_proj`, Sun et al. 2024, arXiv:2402.17762); no fold removes them.
 * @module
 */
import type { LinearSite } from "../model/model.ts";
import type { BlockContext } from "../model/walk-types.ts";
import type { BlockTrials } from "./block-trial.ts";
import { ErrorRace } from "./error-race.ts";
import type { FoldState } from "./fold-state.ts";

/** Share of all quantized sites that may be protected. */
const MAX_SHARE = 0.1;
/** A site is out of the ordinary when its error a site is this many times the model's median. */
const OUTSTANDING = 2;
/** Errors followed at once, for each place among the protected, and at least. */
const CARRIED_PER_PLACE = 1.25;
const MIN_CARRIED = 16;

/** Sites that read one value, and what quantizing that value alone does to the model's last hidden states. */
export interface MeasuredSites {
  readonly sites: readonly string[];
  /** Mean over tokens of |y' − y|² / |y|². */
  readonly error: number;
}

/** A race long enough that nothing drops out that could be among the protected. */
export function createProtectionRace(quantizedSites: number): ErrorRace<readonly string[]> {
  return new ErrorRace(Math.max(MIN_CARRIED, Math.ceil(CARRIED_PER_PLACE * quantizedSites * MAX_SHARE)));
}

/** Enter each input value of a block by itself (weights float), under the folds decided. */
export async function enterSites(
  race: ErrorRace<readonly string[]>,
  stand: BlockContext,
  trials: BlockTrials,
  state: FoldState,
  isQuantized: (site: LinearSite) => boolean,
): Promise<void> {
  const byInput = new Map<string, LinearSite[]>();
  for (const site of stand.block.sites.filter(isQuantized)) byInput.set(site.input, [...(byInput.get(site.input) ?? []), site]);
  for (const sites of byInput.values()) {
    const run = await trials.runner(state, { weights: [], activations: sites });
    await race.enter(
      stand,
      sites.map(({ name }) => name),
      run,
    );
  }
}

/** What the race found, as measurements. */
export function measuredBy(race: ErrorRace<readonly string[]>): readonly MeasuredSites[] {
  return race.results().map(({ label, error }) => ({ sites: label, error }));
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
        `weight-only: quantizing its input alone moves the last hidden states by ${(100 * Math.sqrt(entry.error)).toPrecision(3)} %${ratio}`,
      );
    }
  }
  return chosen;
}
