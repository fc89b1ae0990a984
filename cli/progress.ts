/**
 * Progress on stderr: one rewritten line with ETA on a terminal, a line every
 * few seconds elsewhere, NDJSON for programs, or nothing.
 * @module
 */
import type { ProgressEvent } from "../quantize/types.ts";
import { formatBytes, formatCount, formatDuration } from "./text.ts";

export type ProgressMode = "terminal" | "plain" | "ndjson" | "none";

export interface ProgressPrinter {
  readonly report: (event: ProgressEvent) => void;
  /** Clears or ends the current line, so that other text can follow. */
  readonly end: () => void;
}

/** Where progress goes and how it is told the time. */
export interface ProgressOutput {
  write(text: string): void;
  /** Columns of the terminal. */
  readonly columns: number;
  /** Milliseconds, any origin. */
  now(): number;
}

/** Milliseconds between two redraws of a terminal line, and between two plain lines. */
const REDRAW_MS = { terminal: 100, plain: 5000, ndjson: 200, none: Infinity } as const;

export function createProgress(mode: ProgressMode, output: ProgressOutput): ProgressPrinter {
  let phase = "";
  let phaseStart = 0;
  let firstDone = 0;
  let lastDraw = -Infinity;
  let lineOpen = false;

  const clear = (): void => {
    if (lineOpen && mode === "terminal") output.write("\r\u001b[2K");
    lineOpen = false;
  };

  const report = (event: ProgressEvent): void => {
    if (mode === "none") return;
    const now = output.now();
    if (event.phase !== phase) {
      phase = event.phase;
      phaseStart = now;
      firstDone = event.done;
      lastDraw = -Infinity;
    }
    const finished = event.done >= event.total;
    if (now - lastDraw < REDRAW_MS[mode] && !finished) return;
    lastDraw = now;
    const elapsed = (now - phaseStart) / 1000;
    const rate = elapsed > 0 ? (event.done - firstDone) / elapsed : 0;
    const eta = rate > 0 ? (event.total - event.done) / rate : undefined;
    if (mode === "ndjson") {
      output.write(
        `${JSON.stringify({ type: "progress", ...event, elapsedSeconds: elapsed, ...(eta === undefined ? {} : { etaSeconds: eta }) })}\n`,
      );
      return;
    }
    const line = progressLine(event, rate, eta);
    if (mode === "plain") {
      output.write(`${line}\n`);
      return;
    }
    output.write(`\r\u001b[2K${line.slice(0, Math.max(20, output.columns - 1))}`);
    lineOpen = true;
    if (finished) {
      output.write("\n");
      lineOpen = false;
    }
  };
  return { report, end: clear };
}

function progressLine({ phase, done, total, unit, detail }: ProgressEvent, rate: number, eta: number | undefined): string {
  const percent = total > 0 ? Math.floor((100 * done) / total) : 100;
  const filled = Math.floor(percent / 5);
  const amount = unit === "bytes" ? formatBytes : formatCount;
  const speed =
    rate > 0
      ? `  ${amount(unit === "bytes" ? Math.floor(rate) : rate >= 10 ? Math.floor(rate) : Number(rate.toFixed(1)))}${unit === "bytes" ? "" : ` ${unit}`}/s`
      : "";
  const remaining = eta === undefined || done >= total ? "" : `  ETA ${formatDuration(eta)}`;
  return `${phase.padEnd(9)} ${"█".repeat(filled)}${"░".repeat(20 - filled)} ${String(percent).padStart(3)}%  ${amount(done)}/${amount(total)}${unit === "bytes" ? "" : ` ${unit}`}${speed}${remaining}${detail === undefined ? "" : `  ${detail}`}`;
}
