/**
 * `doctor`: what this machine and this install can do.
 * @module
 */
import { availableParallelism, freemem, totalmem } from "node:os";
import type { Command } from "commander";
import { createReporter, type GlobalOptions, type Io } from "../io.ts";
import { formatBytes } from "../text.ts";
import { version } from "../version.ts";

export function addDoctor(program: Command, io: Io): void {
  program
    .command("doctor")
    .description("what this machine and this install can do")
    .addHelpText("after", "\nExamples:\n  $ bitwright doctor\n  $ bitwright doctor --json")
    .action(async (options: GlobalOptions) => {
      const reporter = createReporter(io, options);
      const { createEngine } = await import("../../model/engines/index.ts");
      const engines: { readonly name: string; readonly ok: boolean; readonly text: string }[] = [];
      for (const name of ["onnxruntime", "onnxruntime-web", "tfjs"] as const) {
        try {
          const engine = await createEngine(name, { threads: 1 });
          engines.push({ name, ok: true, text: engine.description });
          await engine.close();
        } catch (error) {
          engines.push({ name, ok: false, text: error instanceof Error ? error.message : String(error) });
        }
      }
      const facts = {
        bitwright: version(),
        node: process.version,
        platform: `${process.platform} ${process.arch}`,
        cores: availableParallelism(),
        memory: totalmem(),
        freeMemory: freemem(),
        wasmSimd: WebAssembly.validate(SIMD_PROBE),
        engines,
      };
      reporter.result(facts, () =>
        [
          `bitwright  ${facts.bitwright}`,
          `node       ${facts.node} on ${facts.platform}, ${facts.cores} cores`,
          `memory     ${formatBytes(facts.memory)}, ${formatBytes(facts.freeMemory)} free`,
          `WASM SIMD  ${facts.wasmSimd ? reporter.palette.green("yes") : reporter.palette.red("no: kernels cannot run")}`,
          ...engines.map(
            ({ name, ok, text }) => `${name.padEnd(16)} ${ok ? reporter.palette.green("ok") : reporter.palette.yellow("no")}  ${text}`,
          ),
        ].join("\n"),
      );
    });
}

/** The smallest module with a v128 instruction: `(func (result v128) v128.const 0)`. */
const SIMD_PROBE = Uint8Array.from(
  [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 22, 1, 20, 0, 253, 12].concat(
    Array.from({ length: 16 }, () => 0),
    11,
  ),
);
