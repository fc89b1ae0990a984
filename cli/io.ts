/**
 * What a command may touch of the outside: two streams, the environment, a
 * signal. Tests hand in their own.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { createProgress, type ProgressMode, type ProgressPrinter } from "./progress.ts";
import { paletteFor, type Palette } from "./text.ts";

export interface Io {
  /** Results. */
  readonly stdout: (text: string) => void;
  /** Progress, warnings, errors. */
  readonly stderr: (text: string) => void;
  readonly stdoutIsTerminal: boolean;
  readonly stderrIsTerminal: boolean;
  readonly columns: number;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Aborted by the first Ctrl-C. */
  readonly signal: AbortSignal;
}

/** Options every command has. */
export interface GlobalOptions {
  readonly json?: boolean;
  readonly quiet?: boolean;
  /** `--no-progress` gives false, `--progress ndjson` a mode. */
  readonly progress?: boolean | string;
}

/** What a command prints with. */
export interface Reporter {
  readonly progress: ProgressPrinter;
  readonly palette: Palette;
  /** The result: `text` for people, or with --json one object on stdout. */
  readonly result: (value: unknown, text: () => string) => void;
  /** A line on stderr, unless --quiet. */
  readonly note: (text: string) => void;
  readonly signal: AbortSignal;
}

/** @throws {InputError} `input.option` for an unknown progress mode. */
export function createReporter(io: Io, options: GlobalOptions): Reporter {
  const progress = createProgress(progressMode(io, options), { write: io.stderr, columns: io.columns, now: () => performance.now() });
  return {
    progress,
    palette: paletteFor(io.stdoutIsTerminal, io.environment),
    result: (value, text) => {
      progress.end();
      if (options.json === true) io.stdout(`${toJson(value)}\n`);
      else if (options.quiet !== true) io.stdout(`${text()}\n`);
    },
    note: (text) => {
      progress.end();
      if (options.quiet !== true) io.stderr(`${text}\n`);
    },
    signal: io.signal,
  };
}

function progressMode(io: Io, { quiet, progress }: GlobalOptions): ProgressMode {
  if (typeof progress === "string") {
    if (progress === "ndjson" || progress === "none" || progress === "plain") return progress;
    if (progress !== "auto") {
      throw new InputError("input.option", `--progress "${progress}" must be auto, plain, ndjson or none`, { progress });
    }
  }
  if (quiet === true || progress === false) return "none";
  return io.stderrIsTerminal ? "terminal" : "plain";
}

/** JSON with the values JSON lacks written as strings: Infinity, NaN; bigint as a number when it is exact. */
export function toJson(value: unknown): string {
  return JSON.stringify(
    value,
    (_key, item: unknown) => {
      if (typeof item === "number" && !Number.isFinite(item)) return String(item);
      if (typeof item === "bigint") return item <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(item) : String(item);
      return item instanceof Map ? Object.fromEntries(item) : item;
    },
    2,
  );
}
