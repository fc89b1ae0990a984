/**
 * `run`: text from a language model, by its own tokenizer.
 * @module
 */
import type { Command } from "commander";
import { InputError } from "../../core/errors.ts";
import { createReporter, type GlobalOptions, type Io } from "../io.ts";
import { parseInteger } from "../options.ts";
import { addEngineOptions, openEngine, type EngineOptions } from "./engine-options.ts";

interface RunOptions extends GlobalOptions, EngineOptions {
  readonly prompt?: string;
  readonly maxTokens: string;
}

const EXAMPLES = `
Examples:
  $ bitwright run ./llama-w8a8 --prompt "In the beginning" --max-tokens 48`;

export function addRun(program: Command, io: Io): void {
  const command = program
    .command("run <model>")
    .description("greedy text of a model or artifact")
    .option("--prompt <text>", "text to continue")
    .option("--max-tokens <n>", "tokens to generate", "64")
    .addHelpText("after", EXAMPLES);
  addEngineOptions(command);
  command.action((path: string, options: RunOptions) => runModel(path, options, io));
}

async function runModel(path: string, options: RunOptions, io: Io): Promise<void> {
  const reporter = createReporter(io, options);
  if (options.prompt === undefined) throw new InputError("input.option", 'run needs --prompt "text to continue"');
  const { openModel } = await import("../../model/sources/open.ts");
  const { withActivations } = await import("../../model/fake-quant.ts");
  const { loadTokenizer } = await import("../../model/tokenizer.ts");
  const { generate } = await import("../../model/generate.ts");
  const model = withActivations(await openModel(path));
  const tokenizer = await loadTokenizer(path);
  const engine = await openEngine(options, reporter);
  try {
    const prompt = tokenizer.encode(options.prompt);
    const start = performance.now();
    const ids = await generate(model, prompt, {
      engine,
      maxTokens: parseInteger("--max-tokens", options.maxTokens, 1, 2 ** 20),
      ...(tokenizer.eosId === undefined ? {} : { eosIds: [tokenizer.eosId] }),
      signal: reporter.signal,
    });
    const seconds = (performance.now() - start) / 1000;
    const text = tokenizer.decode(ids);
    reporter.result({ prompt: options.prompt, promptIds: prompt, ids, text, seconds }, () => `${options.prompt}${text}`);
  } finally {
    await engine.close();
  }
}
