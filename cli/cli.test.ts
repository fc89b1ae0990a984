import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { BudgetError, FormatError, InputError, InterruptedError, UnsupportedError, VerifyError } from "../core/errors.ts";
import { loadConfig } from "./commands/config-file.ts";
import { EXIT, exitCodeOf } from "./exit-codes.ts";
import { toJson, type Io } from "./io.ts";
import { parseBytes, parseGroupSize, parseInteger, parsePairs } from "./options.ts";
import { createProgress } from "./progress.ts";
import { runCli } from "./run.ts";
import { editDistance, suggest } from "./suggest.ts";
import { formatBytes, formatCount, formatDuration, formatTable, paletteFor } from "./text.ts";

const directory = mkdtempSync(join(tmpdir(), "bitwright-cli-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Runs the program with captured streams. */
async function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  let out = "";
  let err = "";
  const io: Io = {
    stdout: (text) => {
      out += text;
    },
    stderr: (text) => {
      err += text;
    },
    stdoutIsTerminal: false,
    stderrIsTerminal: false,
    columns: 100,
    environment: {},
    signal: new AbortController().signal,
  };
  const code = await runCli(args, io);
  return { code, out, err };
}

describe("usage", () => {
  test("--help lists the commands, examples and exit codes on stdout and exits 0", async () => {
    const { code, out, err } = await run("--help");
    expect({ code, err }).toEqual({ code: EXIT.ok, err: "" });
    for (const word of ["calibrate", "eval", "verify", "inspect", "Examples:", "Exit codes:"]) expect(out).toContain(word);
  });
  test("every command has an example in its help", async () => {
    for (const name of [
      "quantize",
      "calibrate",
      "eval",
      "compare",
      "run",
      "verify",
      "inspect",
      "export",
      "resume",
      "methods",
      "formats",
      "doctor",
    ]) {
      const { code, out } = await run(name, "--help");
      expect({ name, code }).toEqual({ name, code: 0 });
      expect(out, name).toContain("Examples:");
    }
  });
  test("a misspelt flag exits 2 and names the right one", async () => {
    const { code, err } = await run("model", "--methd", "rtn");
    expect(code).toBe(EXIT.usage);
    expect(err).toContain("--method");
  });
  test("quantize without --method or --out says what is missing", async () => {
    expect((await run("somewhere")).err).toContain("--method");
    expect(await run("somewhere", "--method", "rtn")).toMatchObject({ code: EXIT.usage });
  });
  test("with --json an error is one object on stdout with its code", async () => {
    const { code, out } = await run("eval", "somewhere", "--json");
    expect(code).toBe(EXIT.usage);
    expect(JSON.parse(out)).toMatchObject({ error: { code: "input.no-data" }, exitCode: 2 });
  });
  test("completion scripts name every command", async () => {
    for (const shell of ["bash", "zsh", "fish"]) {
      const { code, out } = await run("completion", shell);
      expect(code).toBe(0);
      for (const word of ["calibrate", "verify", "group-size"]) expect(out).toContain(word);
    }
    expect((await run("completion", "powershel")).code).toBe(EXIT.usage);
  });
});

describe("exit codes", () => {
  test("each family of errors has its own", () => {
    const cases: readonly [Error, number][] = [
      [new InputError("input.option", "x"), 2],
      [new InputError("input.data", "x"), 7],
      [new VerifyError("verify.gate", "x"), 3],
      [new VerifyError("verify.checksum", "x"), 4],
      [new BudgetError("budget.memory", "x"), 5],
      [new UnsupportedError("unsupported.scheme", "x"), 6],
      [new FormatError("format.magic", "x"), 7],
      [new InterruptedError("x"), 130],
      [new Error("x"), 1],
    ];
    expect(cases.map(([error]) => exitCodeOf(error))).toEqual(cases.map(([, code]) => code));
  });
});

describe("option values", () => {
  test("sizes take decimal and binary units", () => {
    expect(["2GB", "1.5g", "512MiB", "1000"].map((text) => parseBytes("--max-memory", text))).toEqual([2e9, 1.5e9, 536870912, 1000]);
    expect(() => parseBytes("--max-memory", "lots")).toThrowError(/2GB/);
  });
  test("numbers out of range name the range", () => {
    expect(parseInteger("--samples", "12", 1, 100)).toBe(12);
    for (const text of ["0", "101", "1.5", "ten", ""]) expect(() => parseInteger("--samples", text, 1, 100)).toThrowError(/from 1 to 100/);
  });
  test("group sizes are numbers or words", () => {
    expect(["128", "channel", "tensor"].map(parseGroupSize)).toEqual([128, "channel", "tensor"]);
  });
  test("pairs refuse a repeated key and a missing value, and keep odd names as data", () => {
    expect(parsePairs("--scheme", ["alpha=0.5,act=static", "preset=awq"])).toEqual({ alpha: "0.5", act: "static", preset: "awq" });
    expect(() => parsePairs("--scheme", ["alpha=1", "alpha=2"])).toThrowError(/twice/);
    expect(() => parsePairs("--scheme", ["alpha"])).toThrowError(/key=value/);
    expect(Object.hasOwn(parsePairs("--scheme", ["__proto__=1"]), "__proto__")).toBe(true);
  });
});

describe("text", () => {
  test("amounts are short", () => {
    expect([formatBytes(999), formatBytes(1.234e6), formatBytes(5e9)]).toEqual(["999 B", "1.23 MB", "5.00 GB"]);
    expect([formatDuration(3.14), formatDuration(65), formatDuration(3725)]).toEqual(["3.1s", "1m 5s", "1h 2m"]);
    expect([formatCount(950), formatCount(135e6)]).toEqual(["950", "135M"]);
  });
  test("tables line up and have no trailing spaces", () => {
    const table = formatTable(
      [{ title: "a" }, { title: "n", align: "right" }],
      [
        ["xx", "1"],
        ["y", "22"],
      ],
    );
    expect(table).toBe("a    n\n──  ──\nxx   1\ny   22");
  });
  test("NO_COLOR wins over a terminal", () => {
    expect(paletteFor(true, {}).red("x")).toContain("\u001b[31m");
    expect(paletteFor(true, { NO_COLOR: "1" }).red("x")).toBe("x");
    expect(paletteFor(false, {}).red("x")).toBe("x");
  });
  test("JSON keeps infinities as text and maps as objects", () => {
    expect(JSON.parse(toJson({ a: Infinity, b: new Map([["k", 1]]), c: 3n }))).toEqual({ a: "Infinity", b: { k: 1 }, c: 3 });
  });
  test("suggestions are close words only", () => {
    expect(editDistance("smooth", "smoohtquant")).toBe(6);
    expect(suggest("smoothqaunt", ["smoothquant", "rtn", "reorder"])).toEqual(["smoothquant"]);
    expect(suggest("zzz", ["smoothquant", "rtn"])).toEqual([]);
  });
});

describe("progress", () => {
  test("NDJSON events carry the fields of the event, elapsed time and ETA", () => {
    let now = 0;
    const lines: string[] = [];
    const printer = createProgress("ndjson", { write: (text) => lines.push(text), columns: 80, now: () => now });
    printer.report({ phase: "calibrate", done: 0, total: 100, unit: "tokens" });
    now = 1000;
    printer.report({ phase: "calibrate", done: 25, total: 100, unit: "tokens" });
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
      { type: "progress", phase: "calibrate", done: 0, total: 100, unit: "tokens", elapsedSeconds: 0 },
      { type: "progress", phase: "calibrate", done: 25, total: 100, unit: "tokens", elapsedSeconds: 1, etaSeconds: 3 },
    ]);
  });
  test("a terminal line shows percent, speed and ETA, and redraws at most ten times a second", () => {
    let now = 0;
    let text = "";
    const printer = createProgress("terminal", { write: (part) => (text += part), columns: 120, now: () => now });
    for (now = 0; now <= 1000; now += 10) printer.report({ phase: "quantize", done: now * 1e6, total: 4e9, unit: "bytes" });
    expect(text.split("\r").length - 1).toBeLessThanOrEqual(12);
    expect(text).toMatch(/25%.*1\.00 GB\/4\.00 GB.*ETA 3\.0s/);
  });
});

describe("config files", () => {
  const write = (name: string, text: string): string => {
    const path = join(directory, name);
    writeFileSync(path, text);
    return path;
  };
  test("JSON, JavaScript and TypeScript give the same options", async () => {
    const expected = { method: "smoothquant", groupSize: "128", data: ["calib.txt"], scheme: ["alpha=0.5"], force: true };
    const object = `{ "method": "smoothquant", "groupSize": 128, "data": "calib.txt", "scheme": { "alpha": 0.5 }, "force": true }`;
    expect(await loadConfig(write("a.json", object))).toEqual(expected);
    expect(await loadConfig(write("a.mjs", `export default ${object};`))).toEqual(expected);
    expect(await loadConfig(write("a.ts", `const recipe: object = ${object};\nexport default recipe;`))).toEqual(expected);
  });
  test("unknown keys, wrong types, wrong endings and missing files are refused by name", async () => {
    await expect(loadConfig(write("b.json", `{"metod": "rtn"}`))).rejects.toThrowError(/unknown key "metod"/);
    await expect(loadConfig(write("c.json", `{"method": {}}`))).rejects.toThrowError(/method must be text/);
    await expect(loadConfig(write("d.json", `[1]`))).rejects.toThrowError(/must hold an object/);
    await expect(loadConfig(write("e.json", `{`))).rejects.toThrowError(/does not load/);
    await expect(loadConfig(join(directory, "none.json"))).rejects.toThrowError(/no such file/);
    await expect(loadConfig(write("f.yaml", "a: 1"))).rejects.toThrowError(/ending/);
  });
});
