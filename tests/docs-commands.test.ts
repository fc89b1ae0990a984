/** Every command line that README, docs, examples of --help and the contributor's guide print is one the program takes. */
import { expect, test } from "vitest";
import { documentedCommands, helpExamples, program, wordsOf } from "./support/printed-commands.ts";

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
  const lines = documentedCommands();
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
