/**
 * `compare`: two models on the same inputs.
 * @module
 */
import type { Command } from "commander";
import { InputError } from "../../core/errors.ts";
import { createReporter, type GlobalOptions, type Io } from "../io.ts";
import { formatTable } from "../text.ts";
import { addDataOptions, NO_DATA_HINT, sampleOptions, type DataOptions } from "./data-options.ts";
import { addEngineOptions, evaluationProgress, openEngine, type EngineOptions } from "./engine-options.ts";

interface CompareOptions extends GlobalOptions, EngineOptions, DataOptions {}

const EXAMPLES = `
Examples:
  $ bitwright compare ./llama ./llama-w8a8 --data test.txt --samples 8 --seq-len 256
  $ bitwright compare ./llama ./llama-w4a16 --data ids.json --json
  $ bitwright compare model.onnx ./model-w8a8 --data inputs.npz     # the model's inputs by name; rows are samples
  $ bitwright compare vit/onnx/model.onnx ./vit-w8a8 --data images/ --samples 200     # prepared as vit/preprocessor_config.json says`;

export function addCompare(program: Command, io: Io): void {
  const command = program
    .command("compare <a> <b>")
    .description("outputs of two models or artifacts on the same inputs: cosine, SQNR, largest difference")
    .addHelpText("after", EXAMPLES);
  addDataOptions(command);
  addEngineOptions(command);
  command.action((a: string, b: string, options: CompareOptions) => runCompare(a, b, options, io));
}

async function runCompare(pathA: string, pathB: string, options: CompareOptions, io: Io): Promise<void> {
  const reporter = createReporter(io, options);
  if (options.data === undefined) throw new InputError("input.no-data", `compare needs --data <file>; ${NO_DATA_HINT}`);
  const { openModel } = await import("../../model/sources/open.ts");
  const { withActivations } = await import("../../model/fake-quant.ts");
  const { openSamples } = await import("../../calibrate/inputs/open.ts");
  const { compareModels, compareOnnx } = await import("../../model/compare.ts");
  const { ONNX_FAMILY } = await import("../../model/sources/onnx.ts");
  const a = withActivations(await openModel(pathA));
  const b = withActivations(await openModel(pathB));
  const isOnnx = a.facts.family === ONNX_FAMILY && b.facts.family === ONNX_FAMILY;
  const samples = await openSamples(a, options.data, sampleOptions(options));
  const engine = await openEngine(options, reporter);
  try {
    const run = { engine, signal: reporter.signal, onProgress: evaluationProgress(reporter) };
    const outputs = isOnnx ? await compareOnnx(a, b, samples, run) : await compareModels(a, b, samples, run);
    reporter.result({ a: pathA, b: pathB, samples: samples.length, outputs }, () =>
      formatTable(
        [
          { title: "output" },
          { title: "cosine", align: "right" },
          { title: "SQNR dB", align: "right" },
          { title: "largest difference", align: "right" },
        ],
        outputs.map((row) => [row.output, row.cosine.toFixed(6), row.sqnr.toFixed(2), row.largestDifference.toPrecision(4)]),
      ),
    );
  } finally {
    await engine.close();
  }
}
