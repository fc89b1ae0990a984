/**
 * What every lossless run does before it writes: where the source is, that the output lies apart from it, and which run is which.
 * @module
 */
import { mkdir, readdir, realpath, stat } from "node:fs/promises";
import { basename, resolve, sep } from "node:path";
import { InputError } from "../../core/errors.ts";
import { version } from "../../core/version.ts";
import type { Model } from "../../model/model.ts";
import { canonicalJson, hashBytes } from "../manifest.ts";
import { PARTIAL, realPlace } from "../output-directory.ts";
import type { QuantizeOptions } from "../types.ts";
import type { LosslessSource } from "./source.ts";

/** @throws {InputError} `input.path` for a model that no file holds. */
export function pathOf(source: string | Model): string {
  if (typeof source === "string") return source;
  if (source.directory !== undefined) return source.directory;
  throw new InputError(
    "input.path",
    "a lossless method gives files back byte for byte, so it starts from files: pass a path, not a model object",
    { option: "source" },
  );
}

/** @throws {InputError} `input.path` when one lies in the other. */
export async function checkApart(path: string, out: string): Promise<void> {
  const isDirectory = (await stat(path).catch(() => undefined))?.isDirectory() === true;
  const source = await realpath(path).catch(() => resolve(path));
  const target = await realPlace(out);
  const inside = (inner: string, outer: string): boolean => inner === outer || inner.startsWith(outer.endsWith(sep) ? outer : outer + sep);
  if (inside(source, target) || (isDirectory && inside(target, source))) {
    throw new InputError("input.path", `the output ${out} and the source ${path} must not lie in each other`, { source, target });
  }
}

/** Equal keys, equal bytes. */
export async function keyOf({ components, others }: LosslessSource, codec: string, { recipe }: QuantizeOptions): Promise<string> {
  const files = components.flatMap((component) => component.files);
  const parts = {
    version: version(),
    codec,
    recipe,
    files: await Promise.all(files.map(async ({ name, path, header }) => [name, hashBytes(header), (await stat(path)).mtimeMs])),
    others,
  };
  return hashBytes(canonicalJson(parts));
}

/** What `resume` needs. */
export function requestOf(path: string, options: QuantizeOptions): Readonly<Record<string, unknown>> {
  const { signal: _signal, onProgress: _onProgress, engine: _engine, calibration: _calibration, ...plain } = options;
  return { source: resolve(path), options: { ...plain, out: resolve(options.out) }, name: basename(path) };
}

/** An empty directory to restore into. @returns whether it was made here. @throws {InputError} `input.path`, `input.output-exists`. */
export async function claimEmpty(artifact: string, out: string): Promise<boolean> {
  if ((await realPlace(out)) === (await realPlace(artifact))) {
    throw new InputError("input.path", `the output ${out} is the artifact itself; choose another --out`, { target: resolve(out) });
  }
  const isNew = (await stat(out).catch(() => undefined)) === undefined;
  await mkdir(out, { recursive: true });
  const names = (await readdir(out)).filter((name) => !name.endsWith(PARTIAL));
  if (names.length > 0)
    throw new InputError("input.output-exists", `${out} is not empty (${names.slice(0, 3).join(", ")}); choose an empty directory`, {
      directory: out,
    });
  return isNew;
}
