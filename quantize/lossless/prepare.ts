/**
 * Source and recipe → everything known before the first byte is written: units, what their codec says to them, files.
 * @module
 */
import { basename, extname, resolve } from "node:path";
import { elementCount } from "../../core/dtype.ts";
import { InputError, UnsupportedError } from "../../core/errors.ts";
import { byteLength } from "../../core/dtype.ts";
import { createPool, type Pool } from "../../kernels/pool.ts";
import type { Plan, QuantizeOptions, Recipe } from "../types.ts";
import type { HeldSurvey, UnitCodec, UnitSurvey } from "./codec.ts";
import { CODECS } from "./codecs.ts";
import { run, type FileRange, type LosslessResult, type LosslessTask, type UnitRef } from "./job.ts";
import { codecName } from "./options.ts";
import { layoutComponent, type ComponentLayout } from "./layout.ts";
import { openLosslessSource, type Component, type LosslessSource } from "./source.ts";
import { unitsOf } from "./units.ts";

/** A unit and what its codec said. */
export interface PreparedUnit {
  readonly ref: UnitRef;
  readonly pattern: string;
  readonly attributes: readonly string[];
  readonly elements: number;
  readonly survey: UnitSurvey;
}

export interface PreparedComponent {
  readonly component: Component;
  readonly units: readonly PreparedUnit[];
  /** Tensors stored as they are. */
  readonly plain: readonly FileRange[];
  readonly tensors: ReadonlyMap<string, FileRange>;
  readonly layout: ComponentLayout;
}

export interface PreparedLossless {
  readonly source: LosslessSource;
  readonly codec: UnitCodec;
  readonly components: readonly PreparedComponent[];
  readonly plan: Plan;
}

export type LosslessPool = Pool<LosslessTask, LosslessResult>;

export function createLosslessPool(workers: number): LosslessPool {
  const module = new URL(`./job${extname(new URL(import.meta.url).pathname)}`, import.meta.url);
  return createPool<LosslessTask, LosslessResult>({ workers, module, run });
}

/** @throws {InputError} `input.option` for options that do not go with a lossless method, and for a codec without units. */
export function codecOf(recipe: Recipe): UnitCodec {
  const name = codecName(recipe);
  const codec = CODECS.get(name);
  if (codec !== undefined) return codec;
  throw new InputError("input.option", `--codec ${name} has no units; codecs that have: ${[...CODECS.keys()].join(", ")}`, {
    option: "codec",
    known: [...CODECS.keys()],
  });
}

/**
 * Find the units and read them once: what cannot be held is known before anything is written.
 *
 * @throws {InputError}, {FormatError}, {UnsupportedError}.
 */
export async function prepareLossless(path: string, options: Omit<QuantizeOptions, "out">, pool: LosslessPool): Promise<PreparedLossless> {
  const { recipe } = options;
  const codec = codecOf(recipe);
  const source = await openLosslessSource(path);
  const notes = [...source.notes];
  const found = await unitsOf(source, recipe, (spec) => codec.accepts(spec), notes);
  const flat = found.flatMap(({ units, tensors }) =>
    units.map((unit): UnitRef => ({ name: unit.name, tensors: unit.tensors.map((name) => tensors.get(name)!) })),
  );
  const surveys = await surveyAll(flat, codec, pool, options);
  const casts = found.flatMap(({ tensors }) => [...tensors.values()].filter(({ castFrom }) => castFrom !== undefined));
  if (casts.length > 0)
    notes.push(`--cast bf16 is lossy: ${casts.length} tensors are rounded to bf16; restore gives the rounded model back, not the source`);
  let next = 0;
  const components = found.map(({ component, units, tensors }): PreparedComponent => {
    const prepared = units.map(({ pattern, attributes, elements }): PreparedUnit => {
      const at = next++;
      return { ref: flat[at]!, pattern, attributes, elements, survey: surveys[at]! };
    });
    for (const { ref, survey } of prepared) {
      if ("refusal" in survey) notes.push(`${component.prefix}${ref.name} stays uncompressed: ${survey.refusal.text}`);
    }
    const held = prepared.flatMap(({ ref, survey }) => ("refusal" in survey ? [] : [{ name: ref.name, stored: survey.stored }]));
    const inside = new Set(prepared.flatMap(({ ref, survey }) => ("refusal" in survey ? [] : ref.tensors.map(({ name }) => name))));
    const plain = [...tensors.values()].filter(({ name }) => !inside.has(name));
    checkNames(component, held, plain);
    return { component, units: prepared, plain, tensors, layout: layoutComponent(component, held, plain, source.isFile) };
  });
  return { source, codec, components, plan: planOf(path, source, codec, components, options, notes) };
}

async function surveyAll(
  units: readonly UnitRef[],
  codec: UnitCodec,
  pool: LosslessPool,
  { signal, onProgress }: Omit<QuantizeOptions, "out">,
): Promise<readonly UnitSurvey[]> {
  const size = ({ tensors }: UnitRef): number => tensors.reduce((sum, { byteLength: bytes }) => sum + bytes, 0);
  const total = units.reduce((sum, unit) => sum + size(unit), 0);
  const order = units.map((_, i) => i).toSorted((a, b) => size(units[b]!) - size(units[a]!) || a - b);
  let done = 0;
  const results = await pool.map(
    order.map((i): LosslessTask => ({ kind: "survey", codec: codec.name, unit: units[i]! })),
    {
      ...(signal && { signal }),
      onProgress: (bytes) => onProgress?.({ phase: "read", done: Math.min(total, (done += bytes)), total, unit: "bytes" }),
    },
  );
  const surveys: UnitSurvey[] = [];
  for (const [position, i] of order.entries()) surveys[i] = results[position]!.survey!;
  return surveys;
}

/** A source tensor may be called like a stored one: then nobody could tell them apart. */
function checkNames({ prefix }: Component, held: readonly { readonly stored: HeldSurvey["stored"] }[], plain: readonly FileRange[]): void {
  const stored = new Set(held.flatMap((unit) => unit.stored.map(({ name }) => name)));
  const clash = plain.find(({ name }) => stored.has(name));
  if (clash === undefined) return;
  throw new UnsupportedError(
    "unsupported.format",
    `${prefix}${clash.name} is called like a tensor that a compressed unit needs; is the source compressed already?`,
    { tensor: clash.name },
  );
}

/** Loader-visible tables, per weight of the unit. */
function bitsPerWeight({ elements, survey }: PreparedUnit): number {
  if ("refusal" in survey) return 16;
  return (8 * survey.stored.reduce((sum, { dtype, shape }) => sum + byteLength(dtype, shape), 0)) / elements;
}

const MIB = 2 ** 20;

function planOf(
  path: string,
  source: LosslessSource,
  codec: UnitCodec,
  components: readonly PreparedComponent[],
  { recipe, workers }: Omit<QuantizeOptions, "out">,
  notes: readonly string[],
): Plan {
  const files = components.flatMap(({ layout }) => layout.files);
  const outputBytes = files.reduce((sum, { layout }) => sum + layout.fileBytes, 0);
  const sourceBytes = source.components.reduce((sum, component) => sum + component.files.reduce((all, { bytes }) => all + bytes, 0), 0);
  const tensors = components.flatMap((component) => [...component.tensors.values()]);
  const units = components.flatMap(({ component, units: all }) => all.map((unit) => ({ prefix: component.prefix, unit })));
  const weights = units.reduce((sum, { unit }) => sum + unit.elements, 0);
  const bits = units.reduce((sum, { unit }) => sum + unit.elements * bitsPerWeight(unit), 0);
  const declared = components[0]?.component.config?.["model_type"];
  return {
    version: 1,
    source: {
      path: basename(resolve(path)),
      family: typeof declared === "string" ? declared : source.isFile ? "file" : "unknown",
      parameters: tensors.reduce((sum, { shape }) => sum + elementCount(shape), 0),
      bytes: sourceBytes,
    },
    recipe,
    transforms: [],
    method: recipe.method[0]!,
    sites: [],
    exports: [codec.name],
    pairs: [],
    scaleDType: "BF16",
    arithmetic: "f32",
    notes,
    lossless: {
      codec: codec.name,
      units: units.map(({ prefix, unit }) => ({
        name: prefix + unit.ref.name,
        tensors: unit.ref.tensors.map(({ name }) => name),
        elements: unit.elements,
        bitsPerWeight: bitsPerWeight(unit),
        ...("refusal" in unit.survey && { refusal: unit.survey.refusal.text }),
      })),
    },
    estimate: {
      outputBytes,
      diskBytes: outputBytes + 32 * MIB,
      memoryBytes: 150 * MIB + Math.max(1, workers ?? 2) * 48 * MIB,
      seconds: 0.5 + sourceBytes / 500e6,
      bitsPerWeight: weights === 0 ? 16 : bits / weights,
    },
  };
}
