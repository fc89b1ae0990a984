/**
 * runCli: arguments → one library call → printed result → exit code.
 * @module
 */
import { Command, CommanderError } from "commander";
import { InterruptedError, QuantError } from "../core/errors.ts";
import { commandFirst, meantCommand } from "./arguments.ts";
import { commands } from "./commands/index.ts";
import { EXIT, exitCodeOf, ReportedExit, type ExitCode } from "./exit-codes.ts";
import { toJson, type Io } from "./io.ts";
import { suggest } from "./suggest.ts";
import { paletteFor } from "./text.ts";
import { version } from "./version.ts";

const INTRODUCTION = `Compress any model, on any machine, for any runtime, and prove it.

Both bins, quantize and bitwright, are this program. npm has an unrelated package called "quantize":
without an install, run it as npx bitwright.`;

const EXAMPLES = `
Examples:
  $ bitwright ./llama --method smoothquant --data calib.txt --out ./llama-w8a8
  $ bitwright ./llama --method rtn --bits w4a16 --group-size 128 --out ./llama-w4a16
  $ bitwright ./llama --method rtn --bits fp8 --out ./llama-fp8 --dry-run
  $ bitwright eval ./llama-w8a8 --data test.txt --window 512 --reference ./llama --json
  $ bitwright verify ./llama-w8a8 --source ./llama

Exit codes: 0 ok · 1 unexpected · 2 usage · 3 quality gate missed · 4 verification failed · 5 over the memory or disk budget
            6 unsupported model or scheme · 7 bad input file · 130 interrupted, resumable`;

/** Options of every command, added here once. */
function addGlobalOptions(command: Command): void {
  command
    .option("--json", "print one JSON object on stdout")
    .option("--quiet", "print errors only")
    .option("--no-progress", "no progress on stderr")
    .option("--progress <mode>", "auto, plain, ndjson (one JSON event a line on stderr) or none");
}

/** Every command with its options, ready to parse. */
export function createProgram(io: Io): Command {
  const program = new Command("bitwright").description(INTRODUCTION).version(version(), "-V, --version").addHelpText("after", EXAMPLES);
  const configure = (command: Command): void => {
    command.exitOverride().configureOutput({ writeOut: io.stdout, writeErr: io.stderr });
    command.showSuggestionAfterError(true).showHelpAfterError("(run with --help for the options)");
    command.configureHelp({ helpWidth: 120 });
  };
  configure(program);
  for (const add of commands) add(program, io);
  for (const command of program.commands) {
    addGlobalOptions(command);
    configure(command);
  }
  return program;
}

/** @returns the exit code; never throws, never ends the process. */
export async function runCli(args: readonly string[], io: Io): Promise<ExitCode> {
  const program = createProgram(io);
  const names = program.commands.map((command) => command.name());
  try {
    if (args.length === 0) {
      io.stderr(program.helpInformation());
      return EXIT.usage;
    }
    await program.parseAsync([...commandFirst(args, names)], { from: "user" });
    return EXIT.ok;
  } catch (error) {
    const code = report(error, args, io);
    const meant = code === EXIT.usage ? meantCommand(args, names) : undefined;
    if (meant !== undefined) io.stderr(`(did you mean the command ${meant}?)\n`);
    return code;
  }
}

function report(error: unknown, args: readonly string[], io: Io): ExitCode {
  if (error instanceof CommanderError) {
    // Commander has printed its message; help and version are not errors.
    if (error.exitCode === 0) return EXIT.ok;
    const message = error.message.replace(/^error: /, "");
    if (args.includes("--json")) io.stdout(`${toJson({ error: { message, code: "input.option", details: {} }, exitCode: EXIT.usage })}\n`);
    return EXIT.usage;
  }
  if (error instanceof ReportedExit) {
    io.stderr(`${error.message}\n`);
    return error.exitCode;
  }
  const code = exitCodeOf(error);
  const message =
    error instanceof InterruptedError && keepsNothing(args) ? "nothing was saved; run the same command again" : messageOf(error);
  const palette = paletteFor(io.stderrIsTerminal, io.environment);
  if (args.includes("--json")) {
    const known = error instanceof QuantError ? { code: error.code, details: error.details } : { code: "unexpected" };
    io.stdout(`${toJson({ error: { message, ...known }, exitCode: code })}\n`);
  }
  if (error instanceof InterruptedError) {
    io.stderr(`${palette.yellow("interrupted")}: ${message.replace(/^interrupted[;:] /, "")}\n`);
  } else if (error instanceof QuantError) {
    io.stderr(`${palette.red("error")} ${palette.dim(`[${error.code}]`)}: ${error.message}${hint(error)}\n`);
  } else {
    io.stderr(`${palette.red("unexpected error")}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    io.stderr("This is a fault of bitwright: please report it with the command and the text above.\n");
  }
  return code;
}

/** Commands that start from the beginning after an interruption. */
const RESTARTED: ReadonlySet<string> = new Set(["calibrate", "eval", "compare", "run", "verify", "export"]);

function keepsNothing(args: readonly string[]): boolean {
  return RESTARTED.has(args.find((arg) => !arg.startsWith("-")) ?? "");
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** "did you mean" for errors whose details carry the word and the known ones. */
function hint({ details, message }: QuantError): string {
  const { known } = details;
  const word = details["word"] ?? details["given"];
  if (typeof word !== "string" || !Array.isArray(known) || message.includes("did you mean")) return "";
  const close = suggest(
    word,
    known.filter((item): item is string => typeof item === "string"),
  );
  return close.length === 0 ? "" : ` (did you mean ${close.join(" or ")}?)`;
}
