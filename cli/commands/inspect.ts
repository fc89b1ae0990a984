/**
 * `inspect`: what is in a file or directory.
 * @module
 */
import type { Command } from "commander";
import type { InspectedKind } from "../../quantize/lossless/compact/inspect.ts";
import type { InspectedUnit } from "../../quantize/lossless/inspect.ts";
import { createReporter, type GlobalOptions, type Io } from "../io.ts";
import { formatBytes, formatCount, formatTable } from "../text.ts";

interface InspectOptions extends GlobalOptions {
  readonly tensors?: boolean;
}

const EXAMPLES = `
Examples:
  $ bitwright inspect ./llama
  $ bitwright inspect ./llama-w8a8 --tensors
  $ bitwright inspect model.safetensors --json
  $ bitwright inspect model.onnx`;

export function addInspect(program: Command, io: Io): void {
  program
    .command("inspect <path>")
    .description("what a model, artifact, calibration, safetensors or ONNX file holds")
    .option("--tensors", "list every tensor")
    .addHelpText("after", EXAMPLES)
    .action(async (path: string, options: InspectOptions) => {
      const reporter = createReporter(io, options);
      const { inspect } = await import("../../quantize/inspect.ts");
      const found = await inspect(path);
      reporter.result(found, () => {
        const { bold } = reporter.palette;
        const dtypes = new Map<string, { count: number; bytes: number }>();
        for (const { dtype, bytes } of found.tensors) {
          const row = dtypes.get(dtype) ?? { count: 0, bytes: 0 };
          dtypes.set(dtype, { count: row.count + 1, bytes: row.bytes + bytes });
        }
        return [
          `${bold(path)}: ${found.kind}`,
          ...found.facts.map(([name, value]) => `  ${name.padEnd(14)} ${value}`),
          `  ${"files".padEnd(14)} ${found.files.map(({ name, bytes }) => `${name} (${formatBytes(bytes)})`).join(", ")}`,
          "",
          formatTable(
            [{ title: "dtype" }, { title: "tensors", align: "right" }, { title: "bytes", align: "right" }],
            [...dtypes].map(([dtype, { count, bytes }]) => [dtype, formatCount(count), formatBytes(bytes)]),
          ),
          ...(found.units === undefined ? [] : ["", ...unitLines(found.units)]),
          ...(found.kinds === undefined ? [] : ["", kindTable(found.kinds)]),
          ...(options.tensors === true
            ? [
                "",
                formatTable(
                  [{ title: "tensor" }, { title: "dtype" }, { title: "shape" }, { title: "bytes", align: "right" }],
                  found.tensors.map(({ name, dtype, shape, bytes }) => [name, dtype, `[${shape.join(", ")}]`, formatBytes(bytes)]),
                ),
              ]
            : []),
        ].join("\n");
      });
    });
}

function kindTable(kinds: readonly InspectedKind[]): string {
  const total = kinds.reduce((sum, { elements, bytes }) => ({ elements: sum.elements + elements, bytes: sum.bytes + bytes }), {
    elements: 0,
    bytes: 0,
  });
  return formatTable(
    [
      { title: "kind" },
      { title: "dtype" },
      { title: "tensors", align: "right" },
      { title: "weights", align: "right" },
      { title: "bits a weight", align: "right" },
      { title: "order-0 entropy", align: "right" },
    ],
    [
      ...kinds.map(({ name, dtype, tensors, elements, bitsPerWeight, entropyBound }) => [
        name,
        dtype,
        String(tensors),
        formatCount(elements),
        bitsPerWeight.toFixed(3),
        entropyBound?.toFixed(3) ?? "",
      ]),
      ["all", "", "", formatCount(total.elements), ((8 * total.bytes) / Math.max(1, total.elements)).toFixed(3), ""],
    ],
  );
}

/** Columns of the longest bar. */
const BAR = 40;
/** Exponents rarer than this share are summed up. */
const RARE = 0.0005;

function unitLines(units: readonly InspectedUnit[]): readonly string[] {
  const figure = (bits: number): string => bits.toFixed(3);
  const table = formatTable(
    [
      { title: "unit" },
      { title: "weights", align: "right" },
      { title: "bits a weight", align: "right" },
      { title: "entropy bound", align: "right" },
      { title: "index", align: "right" },
      { title: "tables", align: "right" },
    ],
    units.map(({ name, elements, bitsPerWeight, entropyBound, indexBits, tableBits }) => [
      name,
      formatCount(elements),
      figure(bitsPerWeight),
      figure(entropyBound),
      figure(indexBits),
      figure(tableBits),
    ]),
  );
  return [table, "", ...histogramLines(units)];
}

/** Exponents of all units together, one row each. */
function histogramLines(units: readonly InspectedUnit[]): readonly string[] {
  const counts = new Map<number, number>();
  for (const { histogram } of units) for (const { exponent, count } of histogram) counts.set(exponent, (counts.get(exponent) ?? 0) + count);
  const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
  const largest = Math.max(...counts.values());
  const shown = [...counts].filter(([, count]) => count / total >= RARE).toSorted(([a], [b]) => a - b);
  const rare = total - shown.reduce((sum, [, count]) => sum + count, 0);
  return [
    "exponents (a weight is ±1.m × 2^e)",
    ...shown.map(([exponent, count]) => {
      const eighths = Math.floor((8 * BAR * count) / largest);
      const bar = "█".repeat(Math.floor(eighths / 8)) + ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8]!;
      return `  2^${String(exponent - 127).padStart(4)} ${bar.padEnd(BAR)} ${((100 * count) / total).toFixed(2).padStart(6)} %`;
    }),
    ...(rare > 0
      ? [
          `  ${String(counts.size - shown.length).padStart(2)} rarer ones`.padEnd(BAR + 9) +
            ` ${((100 * rare) / total).toFixed(2).padStart(6)} %`,
        ]
      : []),
  ];
}
