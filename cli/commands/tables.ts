/**
 * `methods` and `formats`: the tables of the library, printed.
 * @module
 */
import type { Command } from "commander";
import { createReporter, type GlobalOptions, type Io } from "../io.ts";
import { formatTable } from "../text.ts";

export function addMethods(program: Command, io: Io): void {
  program
    .command("methods")
    .description("methods, transforms, statistics and the keys of --scheme")
    .addHelpText("after", "\nExamples:\n  $ bitwright methods\n  $ bitwright methods --json")
    .action(async (options: GlobalOptions) => {
      const { describeMethods } = await import("../../quantize/describe.ts");
      const reporter = createReporter(io, options);
      const found = describeMethods();
      const rows = (items: readonly { readonly name: string; readonly summary: string }[]): string =>
        formatTable(
          [{ title: "name" }, { title: "what it does" }],
          items.map(({ name, summary }) => [name, summary]),
        );
      const { bold } = reporter.palette;
      reporter.result(found, () =>
        [
          bold("Methods and transforms (--method a+b: transforms first, one method last)"),
          rows([...found.transforms, ...found.methods]),
          "",
          bold("Keys of --scheme"),
          rows(found.schemeKeys),
          "",
          bold("Statistics (calibrate --statistics)"),
          rows(found.statistics),
        ].join("\n"),
      );
    });
}

export function addFormats(program: Command, io: Io): void {
  program
    .command("formats")
    .description("what can be read and written")
    .addHelpText("after", "\nExamples:\n  $ bitwright formats")
    .action(async (options: GlobalOptions) => {
      const { describeFormats } = await import("../../quantize/describe.ts");
      const reporter = createReporter(io, options);
      const found = describeFormats();
      reporter.result({ formats: found }, () =>
        formatTable(
          [{ title: "format" }, { title: "read" }, { title: "write" }, { title: "what" }],
          found.map(({ name, reads, writes, summary }) => [name, reads ? "yes" : "", writes ? "yes" : "", summary]),
        ),
      );
    });
}
