/**
 * `eval`: perplexity, KL and top-1 agreement on text, or logits of given ids to a file.
 * @module
 */
import type { Command } from "commander";
import { InputError } from "../../core/errors.ts";
import { createReporter, type GlobalOptions, type Io } from "../io.ts";
import { collect, parseInteger } from "../options.ts";
import { formatDuration } from "../text.ts";
import { addEngineOptions, evaluationProgress, openEngine, type EngineOptions } from "./engine-options.ts";

interface EvalOptions extends GlobalOptions, EngineOptions {
  readonly data?: readonly string[];
  readonly ids?: string;
  readonly logitsOut?: string;
  readonly window?: string;
  readonly maxTokens?: string;
  readonly reference?: string;
}

const EXAMPLES = `
Examples:
  $ bitwright eval ./llama --data test.txt --window 512
  $ bitwright eval ./llama-w8a8 --data test.txt --window 512 --reference ./llama --json
  $ bitwright eval ./llama-w8a8 --ids ids.json --logits-out logits.safetensors     # ids.json: [[1, 2, 3], [4, 5]]

Perplexity: the text is tokenized once, cut into windows that do not overlap, the tail is dropped; the mean cross
entropy of window - 1 predictions is averaged over windows and exponentiated.`;

export function addEval(program: Command, io: Io): void {
  const command = program
    .command("eval <model>")
    .description("perplexity, KL divergence and top-1 agreement of a model or artifact; or its logits")
    .option("--data <file>", "text, jsonl, parquet or token ids to evaluate on (repeatable)", collect)
    .option("--window <n>", "tokens a window; default min(2048, the model's positions)")
    .option("--max-tokens <n>", "use at most this many tokens of the data")
    .option("--reference <model>", "also report KL(reference || model) in nats and top-1 agreement")
    .option("--ids <file>", "token ids, [[1, 2, ...], ...], whose logits are wanted")
    .option("--logits-out <file>", "with --ids: safetensors file for logits.0 [tokens, vocab], logits.1, ...")
    .addHelpText("after", EXAMPLES);
  addEngineOptions(command);
  command.action((path: string, options: EvalOptions) => runEval(path, options, io));
}

async function runEval(path: string, options: EvalOptions, io: Io): Promise<void> {
  const reporter = createReporter(io, options);
  if ((options.ids === undefined) !== (options.logitsOut === undefined)) {
    throw new InputError("input.option", "--ids and --logits-out go together: the ids to run and the file for their logits");
  }
  if (options.ids === undefined && options.data === undefined) {
    throw new InputError(
      "input.no-data",
      "eval needs --data <file> (try fixtures/data/test.txt of this package's repository) or --ids with --logits-out",
    );
  }
  const { openModel } = await import("../../model/sources/open.ts");
  const { withActivations } = await import("../../model/fake-quant.ts");
  const engine = await openEngine(options, reporter);
  try {
    const model = withActivations(await openModel(path));
    if (options.ids !== undefined && options.logitsOut !== undefined) {
      await writeLogits(model, options.ids, options.logitsOut, engine, reporter);
      return;
    }
    const { evaluate } = await import("../../model/evaluate.ts");
    const { loadTokenIds } = await import("../../calibrate/samples.ts");
    const reference = options.reference === undefined ? undefined : withActivations(await openModel(options.reference));
    const maxTokens = options.maxTokens === undefined ? undefined : parseInteger("--max-tokens", options.maxTokens, 2, 2 ** 40);
    const ids = await loadTokenIds(options.data ?? [], {
      directory: path,
      vocabularySize: model.facts.vocabularySize,
      ...(maxTokens === undefined ? {} : { maxTokens }),
    });
    const window = options.window === undefined ? undefined : parseInteger("--window", options.window, 2, 2 ** 24);
    const result = await evaluate(model, ids, {
      engine,
      ...(window === undefined ? {} : { window }),
      ...(reference === undefined ? {} : { reference }),
      ...(maxTokens === undefined ? {} : { maxTokens }),
      signal: reporter.signal,
      onProgress: evaluationProgress(reporter),
    });
    reporter.result({ model: path, engine: engine.description, ...result }, () =>
      [
        `perplexity  ${result.perplexity.toFixed(4)}   (${result.tokens} predictions, window ${result.window})`,
        ...(result.kl === undefined ? [] : [`KL          ${result.kl.toPrecision(4)} nats to ${options.reference}`]),
        ...(result.top1 === undefined ? [] : [`top-1       ${(100 * result.top1).toFixed(2)} % agreement`]),
        `time        ${formatDuration(result.seconds)} on ${engine.description}`,
      ].join("\n"),
    );
  } finally {
    await engine.close();
  }
}

async function writeLogits(
  model: import("../../model/model.ts").Model,
  idsPath: string,
  out: string,
  engine: import("../../model/engines/engine.ts").Engine,
  reporter: import("../io.ts").Reporter,
): Promise<void> {
  const { logitsOf } = await import("../../model/evaluate.ts");
  const { loadIdSequences } = await import("../../calibrate/samples.ts");
  const { writeSafetensors } = await import("../../formats/containers/safetensors/write.ts");
  const sequences = await loadIdSequences(idsPath, model.facts.vocabularySize);
  const logits = await logitsOf(model, sequences, { engine, signal: reporter.signal, onProgress: evaluationProgress(reporter) });
  await writeSafetensors(out, logits, { format: "pt" });
  reporter.result(
    { out, tensors: [...logits].map(([name, { shape }]) => ({ name, shape })) },
    () => `wrote ${logits.size} tensors to ${out}`,
  );
}
