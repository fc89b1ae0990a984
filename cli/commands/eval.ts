/**
 * `eval`: perplexity, KL and top-1 agreement on text, or logits of given ids to a file.
 * @module
 */
import type { Command } from "commander";
import { InputError } from "../../core/errors.ts";
import { createReporter, type GlobalOptions, type Io } from "../io.ts";
import { collect, parseInteger } from "../options.ts";
import { formatBytes, formatDuration } from "../text.ts";
import { addEngineOptions, evaluationProgress, openEngine, type EngineOptions } from "./engine-options.ts";

interface EvalOptions extends GlobalOptions, EngineOptions {
  readonly data?: readonly string[];
  readonly ids?: string;
  readonly logitsOut?: string;
  readonly window?: string;
  readonly maxTokens?: string;
  readonly reference?: string;
  readonly kv?: string;
  readonly calibrationData?: readonly string[];
  readonly samples?: string;
  readonly seqLen?: string;
}

const EXAMPLES = `
Examples:
  $ bitwright eval ./llama --data test.txt --window 512
  $ bitwright eval ./llama-w8a8 --data test.txt --window 512 --reference ./llama --json
  $ bitwright eval ./llama --data test.txt --window 512 --kv bfp12:block=32,centre=mean --calibration-data calib.txt --json
  $ bitwright eval ./llama-w8a8 --ids ids.json --logits-out logits.safetensors     # ids.json: [[1, 2, 3], [4, 5]]

Perplexity: the text is tokenized once, cut into windows that do not overlap, the tail is dropped; the mean cross
entropy of window - 1 predictions is averaged over windows and exponentiated.

A cache (--kv): keys and values are stored in the format and read back before every use, for prompts and generated tokens alike; the
bytes of the buffers are counted. Formats: bfp12, bfp16, bfp<8+p>, mxint8, mxfp8, mxfp6, mxfp4, nvfp4, int8, f16, bf16; keys: block=n,
v=<format> (default as keys), q=<format> (default float), mode=all|stream (window=128,sinks=0), centre=none|mean,
order=none|norm|absmax|score, scale=floor|even|ceil|rceil|mse.`;

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
    .option("--kv <scheme>", "store keys and values in a format while evaluating, e.g. bfp12:block=32,v=f16; see below")
    .option("--calibration-data <file>", "text for the statistics of --kv (centre=mean, order=score|absmax); repeatable", collect)
    .option("--samples <n>", "with --calibration-data: sequences to use (default 16)")
    .option("--seq-len <n>", "with --calibration-data: tokens a sequence (default 512, at most the model's positions)")
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
    const source = withActivations(await openModel(path));
    const cached = options.kv === undefined ? undefined : await openCache(source, options.kv, options, path, engine, reporter);
    const model = cached?.model ?? source;
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
    const cache = cached === undefined ? undefined : { scheme: options.kv, ...cached.use() };
    reporter.result({ model: path, engine: engine.description, ...result, ...(cache === undefined ? {} : { cache }) }, () =>
      [
        `perplexity  ${result.perplexity.toFixed(4)}   (${result.tokens} predictions, window ${result.window})`,
        ...(result.kl === undefined ? [] : [`KL          ${result.kl.toPrecision(4)} nats to ${options.reference}`]),
        ...(result.top1 === undefined ? [] : [`top-1       ${(100 * result.top1).toFixed(2)} % agreement`]),
        ...(cache === undefined
          ? []
          : [
              `cache       ${formatBytes(cache.bytes)}, ${cache.bytesPerToken.toFixed(1)} bytes a token, ${(100 * cache.ratio).toFixed(1)} % of 16 bits`,
            ]),
        `time        ${formatDuration(result.seconds)} on ${engine.description}`,
      ].join("\n"),
    );
  } finally {
    await engine.close();
  }
}

/** Sequences for the statistics of a cache when nothing is said: their mean and order hardly move beyond. */
const CACHE_SAMPLES = 16;

/** The model with a cache as `--kv` says in every attention. */
async function openCache(
  model: import("../../model/model.ts").Model,
  text: string,
  options: EvalOptions,
  path: string,
  engine: import("../../model/engines/engine.ts").Engine,
  reporter: import("../io.ts").Reporter,
): Promise<import("../../model/kv/apply.ts").CachedModel> {
  const { parseKv, needsCalibration } = await import("../../quantize/kv/spec.ts");
  const { createKvScheme } = await import("../../quantize/kv/scheme.ts");
  const { withKvCache } = await import("../../model/kv/apply.ts");
  const { loadCalibrationSequences } = await import("../../calibrate/samples.ts");
  const { tokenSample } = await import("../../model/inputs.ts");
  const spec = parseKv(text);
  const data = options.calibrationData;
  if (data === undefined || !needsCalibration(spec)) return withKvCache(model, await createKvScheme(model, spec, undefined));
  const sequences = await loadCalibrationSequences(model, data, {
    samples: options.samples === undefined ? CACHE_SAMPLES : parseInteger("--samples", options.samples, 1, 2 ** 24),
    ...(options.seqLen === undefined ? {} : { sequenceLength: parseInteger("--seq-len", options.seqLen, 1, 2 ** 24) }),
  });
  const scheme = await createKvScheme(model, spec, {
    samples: sequences.map((ids) => tokenSample(model, ids)),
    engine,
    signal: reporter.signal,
    onProgress: evaluationProgress(reporter),
  });
  return withKvCache(model, scheme);
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
