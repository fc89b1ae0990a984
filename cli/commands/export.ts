/**
 * `export`: an artifact in another form.
 * @module
 */
import type { Command } from "commander";
import { InputError } from "../../core/errors.ts";
import type { DialectName } from "../../model/onnx-export/dialects/index.ts";
import type { TransformersJsDType } from "../../quantize/exports/transformersjs/dtypes.ts";
import { createReporter, type GlobalOptions, type Io } from "../io.ts";
import { formatBytes } from "../text.ts";

interface ExportOptions extends GlobalOptions {
  readonly to: string;
  readonly out: string;
  readonly dtypes?: string;
  readonly operators?: string;
  readonly force?: boolean;
}

const EXAMPLES = `
Examples:
  $ bitwright export ./llama --to transformersjs --out ./llama-web
  $ bitwright export ./llama --to transformersjs --dtypes q8,q4 --out ./llama-web
  $ bitwright export ./llama-w4a16 --to onnx --out ./llama-onnx
  $ bitwright export ./llama-w8a8 --to float --out ./llama-dequantized`;

export function addExport(program: Command, io: Io): void {
  program
    .command("export <model>")
    .description("write a model or an artifact in another form; `bitwright formats` lists them")
    .requiredOption("--to <format>", "onnx, transformersjs, or float (an artifact dequantized)")
    .requiredOption("--out <dir>", "directory to write")
    .option("--dtypes <list>", "transformersjs: fp32,fp16,q8,int8,uint8,q4,q4f16,bnb4 (default all)")
    .option("--operators <set>", "onnx, transformersjs: contrib (default, ONNX Runtime's fused), standard (opset 23) or plain (opset 17)")
    .option("--force", "replace an existing artifact in --out")
    .addHelpText("after", EXAMPLES)
    .action(async (path: string, options: ExportOptions) => {
      const reporter = createReporter(io, options);
      const { exportArtifact } = await import("../../quantize/export.ts");
      const { dtypes, operators } = await onnxOptions(options);
      const written = await exportArtifact(path, {
        to: options.to,
        out: options.out,
        ...(dtypes === undefined ? {} : { dtypes }),
        ...(operators === undefined ? {} : { operators }),
        force: options.force === true,
        signal: reporter.signal,
        onProgress: reporter.progress.report,
      });
      reporter.result(written, () => {
        const files = (written.files ?? []).filter(({ name }) => name.startsWith("onnx/"));
        const lines = files.map(({ name, bytes }) => `  ${name}  ${formatBytes(bytes)}`);
        return [`wrote ${written.directory} (${written.format}): ${formatBytes(written.bytes)}`, ...lines].join("\n");
      });
    });
}

async function onnxOptions({
  dtypes,
  operators,
  to,
}: ExportOptions): Promise<{ readonly dtypes?: readonly TransformersJsDType[]; readonly operators?: DialectName }> {
  if (dtypes === undefined && operators === undefined) return {};
  if (to !== "onnx" && to !== "transformersjs") {
    throw new InputError("input.option", `--dtypes and --operators belong to --to onnx and transformersjs, not ${to}`, {
      option: "to",
      given: to,
    });
  }
  const { readDTypes } = await import("../../quantize/exports/transformersjs/dtypes.ts");
  const { readDialectName } = await import("../../model/onnx-export/dialects/index.ts");
  return {
    ...(dtypes === undefined ? {} : { dtypes: readDTypes(dtypes) }),
    ...(operators === undefined ? {} : { operators: readDialectName(operators) }),
  };
}
