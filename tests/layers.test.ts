import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";

/** A file may import from its own layer or from one listed before it. */
const LAYERS = ["core", "formats", "kernels", "model", "calibrate", "quantize", "cli"];

const layerOf = (path: string): number => LAYERS.indexOf(path.split("/")[0]!);
const files = LAYERS.flatMap((layer) => readdirSync(layer, { recursive: true, encoding: "utf8" }).map((file) => join(layer, file)))
  .map((file) => file.replaceAll("\\", "/"))
  .filter((file) => file.endsWith(".ts") && !file.endsWith(".as.ts") && !file.includes("/generated/"));
const sources = files.filter((file) => !file.endsWith(".test.ts"));

/** Relative imports of a file, resolved against the repository's root. */
function importsOf(file: string): string[] {
  const text = readFileSync(file, "utf8");
  return [...text.matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g)].map(([, target]) => join(dirname(file), target!).replaceAll("\\", "/"));
}

describe("the house", () => {
  test("imports only point down the layer order", () => {
    const upward = sources.flatMap((file) =>
      importsOf(file)
        .filter((target) => layerOf(target) > layerOf(file))
        .map((target) => `${file} imports ${target}`),
    );
    expect(sources.length).toBeGreaterThan(20);
    expect(upward).toEqual([]);
  });

  test("a method, transform, statistic, export or layout imports none of its siblings", () => {
    const rooms = ["quantize/methods", "quantize/transforms", "quantize/exports", "formats/layouts"];
    const sideways = sources.flatMap((file) => {
      const room = rooms.find((name) => file.startsWith(`${name}/`));
      const own = room === undefined ? "" : file.slice(room.length + 1).split("/")[0]!;
      if (room === undefined || own.endsWith(".ts")) return [];
      return importsOf(file)
        .filter(
          (target) => target.startsWith(`${room}/`) && target.slice(room.length + 1).includes("/") && !target.startsWith(`${room}/${own}/`),
        )
        .map((target) => `${file} imports ${target}`);
    });
    expect(sideways).toEqual([]);
  });

  test("source files do not reach into tests, fixtures or the bench", () => {
    const outside = sources.flatMap((file) =>
      importsOf(file).filter((target) => /^(tests|fixtures|bench|examples|scripts)\//.test(target)),
    );
    expect(outside).toEqual([]);
  });

  test("only the command line prints or ends the process", () => {
    const noisy = sources.filter(
      (file) => !file.startsWith("cli/") && /\b(console\.(log|error|warn)|process\.exit)\b/.test(readFileSync(file, "utf8")),
    );
    expect(noisy).toEqual([]);
  });
});
