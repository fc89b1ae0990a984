/**
 * `inspect`: what is in a file or directory.
 * @module
 */
import type { Command } from "commander";
import { createReporter, type GlobalOptions, type Io } from "../io.ts";
import { formatBytes, formatCount, formatTable } from "../text.ts";

interface InspectOptions extends GlobalOptions {
  readonly tensors?: boolean;
}

const EXAMPLES = `
Examples:
  $ bitwright inspect ./llama
  $ bitwright inspect ./llama-w8a8 --tensors
  $ bitwright inspect model.safetensors --json`;

export function addInspect(program: Command, io: Io): void {
  program
    .command("inspect <path>")
    .description("what a model, artifact, calibration or safetensors file holds")
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
