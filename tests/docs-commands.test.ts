/** Every command line that README, docs, examples of --help and the contributor's guide print is one the program takes. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { createProgram } from "../cli/run.ts";
import type { Io } from "../cli/io.ts";

let printed = "";
const io: Io = {
  stdout: (text) => (printed += text),
  stderr: (text) => (printed += text),
  stdoutIsTerminal: false,
  stderrIsTerminal: false,
  columns: 100,
  environment: {},
  signal: new AbortController().signal,
};
const program = createProgram(io);

const FILES = ["README.md", "CONTRIBUTING.md", "fixtures/README.md", ...markdownIn("docs")];

function markdownIn(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => join(directory, name));
}

/** What is printed in shell blocks and between backticks and calls the program; continued lines joined. */
function commandsIn(text: string): string[] {
  const blocks = [...text.matchAll(/```(?:sh|bash|console)\n(.*?)```/gs)].map(([, body]) => body!);
  const inline = [...text.matchAll(/`((?:npx )?bitwright [^`…]*)`/g)].map(([, line]) => line!);
  return [...blocks, ...inline]
    .flatMap((body) => body.replaceAll("\\\n", " ").split("\n"))
    .flatMap((line) => line.split("&&"))
    .map((line) => line.trim().replace(/^(?:\$ )?(?:npx )?/, ""))
    .filter((line) => /^(?:bitwright|quantize) /.test(line));
}

function helpExamples(): string[] {
  return program.commands.flatMap((command) => {
    printed = "";
    command.outputHelp();
    return [...printed.matchAll(/^ +\$ (?:source <\()?((?:bitwright|quantize) .*?)\)?$/gm)].map(([, line]) => line!);
  });
}

/** Words of a shell line: quotes are taken off, comments and redirections end it. */
function wordsOf(line: string): string[] {
  const words = [...line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(([, double, single, bare]) => double ?? single ?? bare!);
  const end = words.findIndex((word) => ["#", "|", ">", "2>", ";"].includes(word));
  return end < 0 ? words : words.slice(0, end);
}

/** What the program would complain about, if anything. */
function problemOf(line: string): string | undefined {
  const args = wordsOf(line).slice(1);
  if (args[0] === "--help" || args[0] === "--version") return undefined;
  const named = program.commands.find((command) => command.name() === args[0]);
  const command = named ?? program.commands.find((candidate) => candidate.name() === "quantize")!;
  const { operands, unknown } = command.parseOptions(named === undefined ? args : args.slice(1));
  if (unknown.length > 0 && unknown[0] !== "--help") return `unknown ${unknown.join(" ")}`;
  const wanted = command.registeredArguments.length;
  const ellipsis = operands.includes("…") || operands.includes("...");
  if (unknown.length === 0 && !ellipsis && operands.length !== wanted)
    return `${operands.length} arguments, ${wanted} wanted: ${operands.join(" ")}`;
  return undefined;
}

test("commands printed in README and docs parse: every flag exists, every argument is there", () => {
  const lines = FILES.flatMap((file) => commandsIn(readFileSync(file, "utf8")).map((line) => ({ file, line })));
  expect(lines.length).toBeGreaterThan(15);
  expect(
    lines.flatMap(({ file, line }) =>
      [problemOf(line)].filter((problem) => problem !== undefined).map((problem) => `${file}: ${line}: ${problem}`),
    ),
  ).toEqual([]);
});

test("examples in the help of every command parse", () => {
  const lines = helpExamples();
  expect(lines.length).toBeGreaterThan(25);
  expect(
    lines.flatMap((line) => [problemOf(line)].filter((problem) => problem !== undefined).map((problem) => `${line}: ${problem}`)),
  ).toEqual([]);
});

test("the check itself sees a wrong flag and a missing argument", () => {
  expect(problemOf("bitwright ./llama --methd rtn")).toContain("--methd");
  expect(problemOf("bitwright compare ./a --data x.txt")).toContain("1 arguments, 2 wanted");
});
