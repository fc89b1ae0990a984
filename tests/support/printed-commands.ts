/** The command lines that README, docs and the examples of --help print. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createProgram } from "../../cli/run.ts";
import type { Io } from "../../cli/io.ts";

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
export const program = createProgram(io);

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

export function helpExamples(): string[] {
  return program.commands.flatMap((command) => {
    printed = "";
    command.outputHelp();
    return [...printed.matchAll(/^ +\$ (?:source <\()?((?:bitwright|quantize) .*?)\)?$/gm)].map(([, line]) => line!);
  });
}

/** Words of a shell line: quotes are taken off, comments and redirections end it. */
export function wordsOf(line: string): string[] {
  const words = [...line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(([, double, single, bare]) => double ?? single ?? bare!);
  const end = words.findIndex((word) => ["#", "|", ">", "2>", ";"].includes(word));
  return end < 0 ? words : words.slice(0, end);
}

/** Lines of the documents, with the file each stands in. */
export function documentedCommands(): { readonly file: string; readonly line: string }[] {
  return FILES.flatMap((file) => commandsIn(readFileSync(file, "utf8")).map((line) => ({ file, line })));
}
