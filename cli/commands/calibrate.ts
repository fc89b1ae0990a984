/**
 * `calibrate`: run sample data through a model and save activation statistics.
 * @module
 */
import type { Command } from "commander";
import { InputError } from "../../core/errors.ts";
import { createReporter, type GlobalOptions, type Io } from "../io.ts";
import { parseBytes, parseList } from "../options.ts";
import { formatBytes, formatCount, formatDuration } from "../text.ts";
import { addDataOptions, NO_DATA_HINT, sampleOptions, type DataOptions } from "./data-options.ts";
import { addEngineOptions, openEngine, type EngineOptions } from "./engine-options.ts";

interface CalibrateOptions extends GlobalOptions, EngineOptions, DataOptions {
  readonly statistics: string;
  readonly out: string;
  readonly maxMemory?: string;
}

const EXAMPLES = `
Examples:
  $ bitwright calibrate ./llama --data calib.txt --samples 128 --seq-len 512 --statistics absmax --out llama.calibration.safetensors
  $ bitwright calibrate ./llama --data c4.jsonl --statistics absmax,hessian --out stats.safetensors
  $ bitwright calibrate ./vit --data images/ --samples 256 --shuffle --out vit.calibration.safetensors
  $ bitwright ./llama --method smoothquant --calibration llama.calibration.safetensors --out ./llama-w8a8

The file holds one tensor per module and statistic, named <module>.<statistic>, and the settings as JSON beside it.`;

export function addCalibrate(program: Command, io: Io): void {
  const command = program
    .command("calibrate <model>")
    .description("collect activation statistics to a file that every method can reuse")
    .option("--statistics <names>", "absmax, minmax, meanabs, histogram, hessian; comma-separated", "absmax")
    .requiredOption("--out <file>", "calibration file to write (.safetensors)")
    .option("--max-memory <size>", "keep hidden states under this; beyond it they go to a scratch file")
    .addHelpText("after", EXAMPLES);
  addDataOptions(command);
  addEngineOptions(command);
  command.action((path: string, options: CalibrateOptions) => runCalibrate(path, options, io));
}

async function runCalibrate(path: string, options: CalibrateOptions, io: Io): Promise<void> {
  const reporter = createReporter(io, options);
  if (options.data === undefined) throw new InputError("input.no-data", `calibrate needs --data <file>; ${NO_DATA_HINT}`);
  const { openModel } = await import("../../model/sources/open.ts");
  const { openSamples } = await import("../../calibrate/inputs/open.ts");
  const { calibrate } = await import("../../calibrate/calibrate.ts");
  const { writeCalibration } = await import("../../calibrate/file.ts");
  const start = performance.now();
  const model = await openModel(path);
  const settings = sampleOptions(options);
  const samples = await openSamples(model, options.data, settings);
  const { REPRODUCIBLE_THREADS } = await import("../../model/engines/index.ts");
  const engine = await openEngine(options, reporter, REPRODUCIBLE_THREADS);
  try {
    const calibration = await calibrate(model, samples, {
      statistics: parseList([options.statistics]),
      engine,
      data: {
        paths: options.data,
        ...(settings.sequenceLength === undefined ? {} : { sequenceLength: settings.sequenceLength }),
        seed: settings.seed,
      },
      ...(options.maxMemory === undefined ? {} : { maxMemory: parseBytes("--max-memory", options.maxMemory) }),
      signal: reporter.signal,
      onProgress: reporter.progress.report,
    });
    await writeCalibration(options.out, calibration);
    const seconds = (performance.now() - start) / 1000;
    const bytes = [...calibration.tensors.values()].reduce((sum, tensor) => sum + tensor.bytes.byteLength, 0);
    const summary = {
      out: options.out,
      samples: calibration.samples,
      tokens: calibration.tokens,
      statistics: calibration.statistics,
      tensors: calibration.tensors.size,
      bytes,
      seconds,
      engine: engine.description,
    };
    reporter.result(
      summary,
      () =>
        `${options.out}: ${calibration.statistics.join(", ")} of ${calibration.tensors.size} tensors (${formatBytes(bytes)}) ` +
        `from ${calibration.samples} samples, ${formatCount(calibration.tokens)} tokens, in ${formatDuration(seconds)}`,
    );
  } finally {
    await engine.close();
  }
}
