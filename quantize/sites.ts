/**
 * Which sites are quantized, and how: the recipe applied to a model.
 * @module
 */
import type { LinearSite, Model } from "../model/model.ts";
import { compilePattern, compilePatterns, requireMatches } from "./patterns.ts";
import { activationScheme, weightScheme, type Settings, type SiteSettings } from "./settings.ts";
import type { SitePlan } from "./types.ts";

/** Projections whose outputs `qkv-outputs` quantizes. */
const QKV = /(?:^|\.)(?:q_proj|k_proj|v_proj|qkv_proj|c_attn|query|key|value)$/;

/** A site with what the recipe wants of it. */
export interface SiteChoice {
  readonly site: LinearSite;
  readonly plan: SitePlan;
}

/**
 * Apply the recipe to every site of the blocks; embeddings and the head stay as they are.
 *
 * Sites that share an input are protected together, because runtimes fuse them (q, k, v; gate, up).
 *
 * @throws {InputError} `input.option` for a pattern that matches nothing or a group size that does not divide.
 */
export function chooseSites(model: Model, settings: Settings): readonly SiteChoice[] {
  const sites = model.blocks.flatMap((block) => block.sites.map((site) => ({ site, block })));
  const names = sites.map(({ site }) => site.name);
  const protectPatterns = Array.isArray(settings.protect) ? settings.protect : [];
  requireMatches("ignore", settings.ignore, names);
  requireMatches("protect", protectPatterns, names);
  if (settings.reorder.sites !== "k" && settings.reorder.sites !== "all") {
    requireMatches("scheme sites", [settings.reorder.sites], names);
  }
  const ignored = compilePatterns(settings.ignore);
  const isProtected = compilePatterns(protectPatterns);
  const overrides = settings.overrides.map((entry) => ({ ...entry, test: compilePattern(entry.match) }));
  requireMatches(
    "override",
    settings.overrides.map(({ match }) => match),
    names,
  );
  const expertCols = commonCols(sites.map(({ site }) => site));
  return sites.map(({ site, block }) => {
    const shape = site.channelAxis === 1 ? [site.cols, site.rows] : [site.rows, site.cols];
    const untouched = reasonToLeave(site, block.role, ignored(site.name));
    if (untouched !== undefined) return { site, plan: { name: site.name, shape, reason: untouched } };
    if (settings.isFloat) return { site, plan: { name: site.name, shape, reason: "float: only ordered" } };
    const choice: SiteSettings = overrides.find(({ test }) => test(site.name)) ?? settings.site;
    const weight = weightScheme(settings, choice, site.name, expertCols.get(expertLayer(site.name) ?? "") ?? site.cols);
    const fused = block.sites.filter(({ input, kind }) => input === site.input && kind === "linear");
    if (fused.some(({ name }) => isProtected(name)) && choice.bits.activation !== undefined) {
      return { site, plan: { name: site.name, shape, weight, reason: "weight-only: protected by name" } };
    }
    const input = activationScheme(settings, choice);
    const output = settings.qkvOutputs && QKV.test(site.name) ? input : undefined;
    return { site, plan: { name: site.name, shape, weight, ...(input && { input }), ...(output && { output }) } };
  });
}

/** The layer whose experts run as one kernel, so that their groups must have one size. */
function expertLayer(name: string): string | undefined {
  return /^(.*\.experts)\.\d+\./.exec(name)?.[1];
}

/** What divides the columns of all experts of a layer, by layer. */
function commonCols(sites: readonly LinearSite[]): ReadonlyMap<string, number> {
  const common = new Map<string, number>();
  for (const { name, cols } of sites) {
    const layer = expertLayer(name);
    if (layer !== undefined) common.set(layer, greatestCommonDivisor(cols, common.get(layer) ?? 0));
  }
  return common;
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

function reasonToLeave(site: LinearSite, role: "prologue" | "block" | "epilogue", isIgnored: boolean): string | undefined {
  if (isIgnored) return "float: ignored by name";
  if (site.kind === "embedding") return "float: embedding";
  if (site.kind === "router") return "float: router of a mixture of experts";
  if (site.kind === "conv") return "float: convolution";
  return role === "block" ? undefined : "float: outside the blocks";
}
