/**
 * The identity of a run: same key, same bytes, so that a journal may be gone on with.
 * @module
 */
import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import type { Calibration } from "../calibrate/calibrate.ts";
import { InputError } from "../core/errors.ts";
import type { Model } from "../model/model.ts";
import { canonicalJson, hashBytes } from "./manifest.ts";
import type { Prepared, Target } from "./prepare.ts";
import type { QuantizeOptions } from "./types.ts";
import { version } from "../core/version.ts";

/**
 * Hash of everything that decides the bytes of a target: tool version, recipe, layout, source files and calibration data.
 *
 * Files count by size and time of change, not by content: reading a large model twice would double the cost of starting.
 * Paths count in full: `resume` knows no working directory.
 *
 * @throws {InputError} `input.path` for calibration data that is not there.
 */
export async function runKey({ model, settings, scaleDType }: Prepared, target: Target, options: QuantizeOptions): Promise<string> {
  const calibration =
    typeof options.calibration === "object" ? hashCalibration(options.calibration) : await filesOf([options.calibration ?? []].flat());
  const parts = {
    version: version(),
    recipe: settings.recipe,
    target: target.export.name,
    scaleDType,
    shards: target.layout.shards.map(({ file, layout }) => [file, hashBytes(layout.header)]),
    source: await sourceFiles(model),
    data: await filesOf(options.data ?? []),
    sequences: options.sequences === undefined ? null : hashBytes(canonicalJson(options.sequences)),
    calibration,
    samples: [options.samples, options.sequenceLength, options.packing, options.shuffle].map((value) => value ?? null),
    config: hashBytes(canonicalJson(model.config)),
  };
  return hashBytes(canonicalJson(parts));
}

async function sourceFiles(model: Model): Promise<unknown> {
  const paths = [
    ...new Set([...model.tensors.values()].flatMap(({ location }) => (location === undefined ? [] : [location.path]))),
  ].toSorted();
  return filesOf(paths);
}

async function filesOf(paths: readonly string[]): Promise<unknown> {
  return Promise.all(
    paths.map(async (path) => {
      const facts = await stat(path).catch((cause: unknown) => {
        throw new InputError("input.path", `there is no file or folder ${path}`, { path }, { cause });
      });
      return [resolve(path), facts.size, facts.mtimeMs];
    }),
  );
}

function hashCalibration({ tensors }: Calibration): string {
  const hash = createHash("sha256");
  for (const [name, { bytes }] of [...tensors].toSorted(([a], [b]) => (a < b ? -1 : 1))) hash.update(name).update(bytes);
  return hash.digest("hex");
}
