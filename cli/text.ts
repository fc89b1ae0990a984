/**
 * Text for people: tables, sizes, durations, colours.
 * @module
 */

/** 1234567 → "1.23 MB". Decimal units, as disks and file listings use them. */
export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return unit === 0 ? `${value} B` : `${value.toPrecision(3)} ${units[unit]}`;
}

/** 3725 → "1h 2m", 65.2 → "1m 5s", 3.14159 → "3.1s". */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  if (seconds < 60) return `${seconds.toFixed(1)}s`;
  const whole = Math.floor(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  return h > 0 ? `${h}h ${m}m` : `${m}m ${s}s`;
}

/** 12345678 → "12.3M". */
export function formatCount(count: number): string {
  for (const [limit, unit] of [
    [1e9, "B"],
    [1e6, "M"],
    [1e3, "k"],
  ] as const) {
    if (count >= limit) return `${(count / limit).toPrecision(3)}${unit}`;
  }
  return String(count);
}

/** A column of a table. */
export interface Column {
  readonly title: string;
  readonly align?: "left" | "right";
}

/** Rows under a header, columns padded; no trailing spaces. */
export function formatTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const widths = columns.map((column, i) => Math.max(column.title.length, ...rows.map((row) => (row[i] ?? "").length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => (columns[i]!.align === "right" ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join("  ")
      .trimEnd();
  return [line(columns.map((column) => column.title)), line(widths.map((width) => "─".repeat(width))), ...rows.map(line)].join("\n");
}

/** Wraps text in an ANSI style, or leaves it alone. */
export type Style = (text: string) => string;
export interface Palette {
  readonly bold: Style;
  readonly dim: Style;
  readonly red: Style;
  readonly green: Style;
  readonly yellow: Style;
}

/** Colours for a stream: none when NO_COLOR is set (no-color.org) or it is not a terminal, unless FORCE_COLOR is. */
export function paletteFor(isTerminal: boolean, environment: Readonly<Record<string, string | undefined>>): Palette {
  const noColor = (environment["NO_COLOR"] ?? "") !== "";
  const force = (environment["FORCE_COLOR"] ?? "") !== "" && environment["FORCE_COLOR"] !== "0";
  const on = !noColor && (force || isTerminal);
  const style =
    (open: number, close: number): Style =>
    (text) =>
      on ? `\u001b[${open}m${text}\u001b[${close}m` : text;
  return { bold: style(1, 22), dim: style(2, 22), red: style(31, 39), green: style(32, 39), yellow: style(33, 39) };
}
