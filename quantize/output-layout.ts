/**
 * What lies where in an artifact: every tensor and file offset, before a byte is written.
 * @module
 */
import type { DType } from "../core/dtype.ts";
import { UnsupportedError } from "../core/errors.ts";
import { schemeName } from "../core/scheme.ts";
import { planShards } from "../formats/checkpoint.ts";
import type { TensorSpec } from "../formats/containers/container.ts";
import { layoutSafetensors, type SafetensorsLayout } from "../formats/containers/safetensors/write.ts";
import type { Model } from "../model/model.ts";
import type { Decisions } from "./decisions.ts";
import type { Export, ExportSite, SiteTensor } from "./exports/export.ts";
import type { SiteChoice } from "./sites.ts";

/** One file of tensors. */
export interface OutputShard {
  readonly file: string;
  readonly layout: SafetensorsLayout;
}

/** The artifact's tensors: which source tensor becomes which stored ones, and where they lie. */
export interface OutputLayout {
  readonly shards: readonly OutputShard[];
  /** Content of the index, for more than one shard. */
  readonly index?: object;
  /** Stored tensors of each quantized weight, by source tensor. */
  readonly sites: ReadonlyMap<string, { readonly site: ExportSite; readonly tensors: readonly SiteTensor[] }>;
  /** Shard and absolute byte offset of every stored tensor. */
  readonly places: ReadonlyMap<string, { readonly shard: OutputShard; readonly offset: number; readonly spec: TensorSpec }>;
  readonly bytes: number;
}

const METADATA = { format: "pt" } as const;

/** Sites as exports see them. */
export function exportSites(
  choices: readonly SiteChoice[],
  scales?: Pick<Decisions, "inputScales" | "outputScales">,
): readonly ExportSite[] {
  const given = (key: "inputScale" | "outputScale", value: number | undefined): object => (value === undefined ? {} : { [key]: value });
  return choices.map(({ site, plan }) => ({
    ...given("inputScale", plan.input && scales?.inputScales.get(site.name)),
    ...given("outputScale", plan.output && scales?.outputScales.get(site.name)),
    module: site.name,
    rows: site.rows,
    cols: site.cols,
    channelAxis: site.channelAxis,
    ...(plan.weight && { weight: plan.weight }),
    ...(plan.input && { input: plan.input }),
    ...(plan.output && { output: plan.output }),
  }));
}

/**
 * Lay out an artifact. Tensors keep the source's order; those of a quantized site stand where its weight stood.
 *
 * @param widened - tensors stored as F32 whatever they are in the source.
 * @throws {UnsupportedError} `unsupported.scheme` with the reason and the nearest scheme the target can hold.
 */
export function layoutOutput(
  model: Model,
  choices: readonly SiteChoice[],
  target: Export,
  scaleDType: DType,
  maxShardBytes: number | undefined,
  widened: ReadonlySet<string>,
): OutputLayout {
  const byWeight = new Map<string, { site: ExportSite; tensors: readonly SiteTensor[] }>();
  for (const site of exportSites(choices)) {
    if (site.weight === undefined) continue;
    const held = target.canHold(site);
    if (!held.ok) {
      throw new UnsupportedError(
        "unsupported.scheme",
        `${target.name} cannot hold ${site.module} as ${schemeName(site.weight)}: ${held.reason}; nearest: ${held.nearest}`,
        { target: target.name, site: site.module, scheme: site.weight, nearest: held.nearest },
      );
    }
    byWeight.set(`${site.module}.weight`, { site, tensors: target.siteTensors(site, scaleDType) });
  }
  const specs: TensorSpec[] = [];
  for (const [name, { dtype, shape }] of model.tensors)
    specs.push(...(byWeight.get(name)?.tensors ?? [{ name, dtype: widened.has(name) ? "F32" : dtype, shape }]));
  const { shards: planned, index } = planShards(specs, maxShardBytes);
  const shards = planned.map(({ file, specs: inside }) => ({ file, layout: layoutSafetensors(inside, METADATA) }));
  const bySpec = new Map(specs.map((spec) => [spec.name, spec]));
  const places = new Map(
    shards.flatMap((shard) =>
      [...shard.layout.offsets].map(([name, offset]) => [name, { shard, offset, spec: bySpec.get(name)! }] as const),
    ),
  );
  const bytes = shards.reduce((sum, { layout }) => sum + layout.fileBytes, 0);
  return { shards, ...(index && { index }), sites: byWeight, places, bytes };
}
