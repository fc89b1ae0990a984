/**
 * The calibration file: safetensors with `<module>.<statistic>` tensors and one metadata key, and the same
 * metadata as readable JSON beside it.
 *
 *   calibration.safetensors   tensors; `__metadata__["bitwright.calibration"]` = JSON of CalibrationRecord
 *   calibration.json          that record, for people; never read back
 * @module
 */
import { z } from "zod";
import { FormatError, InputError } from "../core/errors.ts";
import type { Tensor } from "../core/tensor.ts";
import { writeFileAtomic } from "../formats/containers/atomic.ts";
import { openFileSource } from "../formats/containers/bytes.ts";
import { openSafetensors } from "../formats/containers/safetensors/read.ts";
import { writeSafetensors } from "../formats/containers/safetensors/write.ts";
import { sitesOf, type Model } from "../model/model.ts";
import { createCalibration, type Calibration } from "./calibrate.ts";
import { fingerprintModel } from "./fingerprint.ts";

export const CALIBRATION_KEY = "bitwright.calibration";
const VERSION = 1;

const count = z.number().int().nonnegative();
/** What the metadata key holds. */
const recordSchema = z.object({
  version: z.literal(VERSION),
  statistics: z.array(z.string().min(1)).min(1).max(1000),
  samples: count,
  tokens: count,
  source: z.object({
    family: z.string(),
    fingerprint: z.string().regex(/^[0-9a-f]{64}$/),
    engine: z.string(),
    batchTokens: count,
    paths: z.array(z.string()).optional(),
    sequenceLength: count.optional(),
    seed: z.number().int().optional(),
  }),
});

/**
 * Write `path` and the readable record beside it, both whole or not at all.
 *
 * @param path - ends in ".safetensors".
 * @throws {InputError} `input.path` for another ending.
 */
export async function writeCalibration(path: string, calibration: Calibration): Promise<void> {
  const recordPath = readablePath(path);
  const { statistics, samples, tokens, source } = calibration;
  const record = { version: VERSION, statistics, samples, tokens, source } satisfies z.infer<typeof recordSchema> | object;
  await writeSafetensors(path, calibration.tensors, { [CALIBRATION_KEY]: JSON.stringify(record) });
  await writeFileAtomic(recordPath, `${JSON.stringify(record, undefined, 2)}\n`);
}

/** Where the readable record of a calibration file lies. @throws {InputError} `input.path` unless `path` ends in ".safetensors". */
export function readablePath(path: string): string {
  if (path.endsWith(".safetensors")) return path.replace(/\.safetensors$/, ".json");
  throw new InputError("input.path", `a calibration file ends in .safetensors, got ${path}`, { path });
}

export interface ReadCalibrationOptions {
  /** Refuse a file that was made for another model than this. */
  readonly model?: Model;
  /** Take a file made for another model all the same, as long as the shapes of its tensors fit. */
  readonly force?: boolean;
}

/**
 * @throws {FormatError} what the safetensors reader throws, and `format.field` when the file is no calibration.
 * @throws {InputError} `input.value` / `input.shape` when it was made for another model, naming both.
 */
export async function readCalibration(path: string, { model, force = false }: ReadCalibrationOptions = {}): Promise<Calibration> {
  const source = await openFileSource(path);
  try {
    const file = await openSafetensors(source);
    const record = parseRecord(path, file.metadata);
    const tensors = new Map<string, Tensor>();
    for (const [name, lazy] of file.tensors) {
      if (!record.statistics.some((statistic) => name.endsWith(`.${statistic}`) || name.includes(`.${statistic}.`))) {
        throw new FormatError(
          "format.field",
          `${path}: tensor "${name}" belongs to none of the statistics ${record.statistics.join(", ")}`,
          {
            path,
            tensor: name,
          },
        );
      }
      tensors.set(name, await lazy.read());
    }
    const { version: _, source: origin, ...parts } = record;
    const calibration = createCalibration({ ...parts, source: withoutUndefined(origin), tensors });
    if (model !== undefined) checkModel(path, calibration, model, force);
    return calibration;
  } finally {
    await source.close();
  }
}

function parseRecord(path: string, metadata: Readonly<Record<string, string>>): z.infer<typeof recordSchema> {
  const text = Object.hasOwn(metadata, CALIBRATION_KEY) ? metadata[CALIBRATION_KEY] : undefined;
  if (text === undefined) {
    throw new FormatError(
      "format.field",
      `${path} is not a calibration file: it has no metadata "${CALIBRATION_KEY}"; make one with: bitwright calibrate`,
      {
        path,
      },
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new FormatError("format.field", `${path}: metadata "${CALIBRATION_KEY}" is not JSON`, { path }, { cause: error });
  }
  const parsed = recordSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw new FormatError("format.field", `${path}: metadata "${CALIBRATION_KEY}", ${issue.path.join(".") || "record"}: ${issue.message}`, {
    path,
  });
}

/** Optional fields left out, as the interfaces have them. */
function withoutUndefined({ paths, sequenceLength, seed, ...rest }: z.infer<typeof recordSchema>["source"]): Calibration["source"] {
  return {
    ...rest,
    ...(paths !== undefined && { paths }),
    ...(sequenceLength !== undefined && { sequenceLength }),
    ...(seed !== undefined && { seed }),
  };
}

function checkModel(path: string, calibration: Calibration, model: Model, force: boolean): void {
  const { family, fingerprint } = calibration.source;
  const expected = fingerprintModel(model);
  if (fingerprint !== expected && !force) {
    throw new InputError(
      "input.value",
      `${path} was made for another model (${family}, ${fingerprint.slice(0, 12)}; this is ${model.facts.family}, ${expected.slice(0, 12)}): calibrate this model, or use --force`,
      { path, fingerprint, expected },
    );
  }
  for (const site of sitesOf(model)) {
    for (const statistic of ["absmax", "minmax", "meanabs", "hessian"]) {
      const channels = calibration.get(site.name, statistic)?.shape.at(-1);
      if (channels === undefined || channels === site.cols) continue;
      throw new InputError("input.shape", `${path}: ${site.name}.${statistic} has ${channels} channels, the site has ${site.cols} inputs`, {
        path,
        site: site.name,
        channels,
        expected: site.cols,
      });
    }
  }
}
