/**
 * Plans and reports as text for people.
 * @module
 */
import { schemeName } from "../../core/scheme.ts";
import type { Plan, QuantizeReport, SiteReport } from "../../quantize/types.ts";
import { formatBytes, formatCount, formatDuration, formatTable, type Palette } from "../text.ts";

/** Up to this many sites the table has a row each; above it, one row a block. */
const ROWS_PER_SITE_LIMIT = 64;

export function planText(plan: Plan, palette: Palette): string {
  const { source, estimate, calibration } = plan;
  if (plan.lossless !== undefined) return losslessPlanText(plan, plan.lossless, palette);
  const groups = new Map<string, { count: number; weights: number }>();
  for (const site of plan.sites) {
    const parts = [site.weight === undefined ? "float" : `weights ${schemeName(site.weight)}`];
    if (site.input !== undefined) parts.push(`inputs ${schemeName(site.input)}`);
    if (site.output !== undefined) parts.push(`outputs ${schemeName(site.output)}`);
    if (site.reason !== undefined) parts.push(`(${site.reason})`);
    const key = parts.join(", ");
    const group = groups.get(key) ?? { count: 0, weights: 0 };
    groups.set(key, { count: group.count + 1, weights: group.weights + site.shape.reduce((a, b) => a * b, 1) });
  }
  return [
    `${palette.bold("source")}       ${source.path}: ${source.family}, ${formatCount(source.parameters)} parameters, ${formatBytes(source.bytes)}`,
    `${palette.bold("recipe")}       ${[...plan.transforms, plan.method].join(" + ")}${plan.recipe.bits === undefined ? "" : `, ${plan.recipe.bits}`}`,
    ...[...groups].map(([key, group]) => `${palette.bold("sites")}        ${group.count} × ${key}, ${formatCount(group.weights)} weights`),
    ...(calibration === undefined
      ? [`${palette.bold("calibration")}  none needed`]
      : [
          `${palette.bold("calibration")}  ${calibration.samples} × ${calibration.sequenceLength} tokens: ${calibration.statistics.join(", ")}`,
        ]),
    `${palette.bold("writes")}       ${plan.exports.join(", ")}: ${formatBytes(estimate.outputBytes)} (${((100 * estimate.outputBytes) / source.bytes).toFixed(1)} % of the source, ${estimate.bitsPerWeight.toFixed(2)} bits a weight)`,
    `${palette.bold("needs")}        memory ${formatBytes(estimate.memoryBytes)}, disk ${formatBytes(estimate.diskBytes)}, about ${formatDuration(estimate.seconds)}`,
  ].join("\n");
}

function losslessPlanText(
  { source, estimate, notes, method }: Plan,
  { codec, units }: NonNullable<Plan["lossless"]>,
  palette: Palette,
): string {
  const rows = units.map(({ name, tensors, elements, bitsPerWeight, refusal }) => [
    name,
    String(tensors.length),
    formatCount(elements),
    refusal === undefined ? bitsPerWeight.toFixed(3) : "16 (uncompressed)",
  ]);
  return [
    `${palette.bold("source")}       ${source.path}: ${source.family}, ${formatCount(source.parameters)} parameters, ${formatBytes(source.bytes)}`,
    `${palette.bold("recipe")}       ${method}, codec ${codec}`,
    formatTable(
      [
        { title: "unit" },
        { title: "tensors", align: "right" },
        { title: "weights", align: "right" },
        { title: "bits a weight", align: "right" },
      ],
      rows,
    ),
    `${palette.bold("writes")}       ${formatBytes(estimate.outputBytes)} (${((100 * estimate.outputBytes) / source.bytes).toFixed(2)} % of the source, ${estimate.bitsPerWeight.toFixed(3)} bits a weight in units)`,
    `${palette.bold("needs")}        memory ${formatBytes(estimate.memoryBytes)}, disk ${formatBytes(estimate.diskBytes)}, about ${formatDuration(estimate.seconds)}`,
    ...notes.map((note) => `${palette.yellow("note")}: ${note}`),
  ].join("\n");
}

export function reportText(report: QuantizeReport, palette: Palette): string {
  const rows = report.sites.length <= ROWS_PER_SITE_LIMIT ? report.sites.map(siteRow) : blockRows(report.sites);
  const table = formatTable(
    [
      { title: report.sites.length <= ROWS_PER_SITE_LIMIT ? "site" : "block (worst site)" },
      { title: "scheme" },
      { title: "SQNR dB", align: "right" },
      { title: "outlier", align: "right" },
      { title: "after", align: "right" },
      { title: "note" },
    ],
    rows,
  );
  const { evaluation } = report;
  return [
    table,
    "",
    ...report.out.map(
      ({ format, directory, bytes }) =>
        `${palette.bold("wrote")}       ${directory} (${format}): ${formatBytes(bytes)}, ${((100 * bytes) / report.sourceBytes).toFixed(1)} % of the source`,
    ),
    ...(report.bitsPerWeight === undefined
      ? []
      : [
          `${palette.bold("bits")}        ${report.bitsPerWeight.weights.toFixed(4)} a weight, ${report.bitsPerWeight.directory.toFixed(4)} with every other file`,
        ]),
    `${palette.bold("verified")}    ${report.verified.ok ? palette.green("ok") : palette.red("NOT ok")}, ${report.verified.tensors} tensors re-read`,
    ...(evaluation === undefined
      ? []
      : [
          `${palette.bold("perplexity")}  ${evaluation.before.perplexity.toFixed(4)} before, ${evaluation.after.perplexity.toFixed(4)} after ` +
            `(${signedPercent(evaluation.after.perplexity / evaluation.before.perplexity - 1)}, window ${evaluation.after.window}, ${evaluation.after.tokens} predictions)`,
        ]),
    `${palette.bold("took")}        ${formatDuration(report.seconds)}, ${formatDuration(report.cpuSeconds)} of CPU, peak memory ${formatBytes(report.peakMemoryBytes)}${report.resumed ? " (resumed)" : ""}`,
    ...report.warnings.map((warning) => `${palette.yellow("note")}: ${warning}`),
  ].join("\n");
}

function siteRow(site: SiteReport): string[] {
  return [site.name, site.scheme, decibels(site.sqnr), ratio(site.outlierBefore), ratio(site.outlierAfter), site.note ?? ""];
}

/** One row a block: the site with the lowest SQNR, the largest outliers. */
function blockRows(sites: readonly SiteReport[]): string[][] {
  const blocks = new Map<string, SiteReport[]>();
  for (const site of sites) {
    const name = /^(.*?\.\d+)(?:\.|$)/.exec(site.name)?.[1] ?? site.name;
    const list = blocks.get(name);
    if (list === undefined) blocks.set(name, [site]);
    else list.push(site);
  }
  return [...blocks].map(([name, members]) => {
    const worst = members.reduce((a, b) => (b.sqnr < a.sqnr ? b : a));
    const largest = (pick: (site: SiteReport) => number | undefined): number | undefined => {
      const values = members.map(pick).filter((value) => value !== undefined);
      return values.length === 0 ? undefined : Math.max(...values);
    };
    const notes = [...new Set(members.map((site) => site.note).filter((note) => note !== undefined))];
    return [
      `${name} (${worst.name.slice(name.length + 1)})`,
      worst.scheme,
      decibels(worst.sqnr),
      ratio(largest((site) => site.outlierBefore)),
      ratio(largest((site) => site.outlierAfter)),
      notes.join("; "),
    ];
  });
}

function decibels(value: number): string {
  return Number.isFinite(value) ? value.toFixed(1) : "exact";
}

function ratio(value: number | undefined): string {
  return value === undefined ? "" : `${value.toFixed(1)}×`;
}

function signedPercent(change: number): string {
  return `${change >= 0 ? "+" : ""}${(100 * change).toFixed(2)} %`;
}
