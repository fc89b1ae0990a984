/**
 * Which units a source has, and in which order their weights stand.
 * @module
 */
import { join } from "node:path";
import { byteLength } from "../../core/dtype.ts";
import { InputError, QuantError, UnsupportedError } from "../../core/errors.ts";
import type { TensorSpec } from "../../formats/containers/container.ts";
import { findUnits, type UnitPattern, type UnitPlan } from "../../formats/layouts/dfloat11/units.ts";
import { openModel } from "../../model/sources/open.ts";
import { CASTABLE } from "./cast.ts";
import type { FileRange } from "./job.ts";
import type { Component, LosslessSource } from "./source.ts";
import type { Recipe } from "../types.ts";

/** Units of one component and the tensors behind them. */
export interface ComponentUnits {
  readonly component: Component;
  readonly units: readonly UnitPlan[];
  /** Every tensor, in file order, as it will be stored when it stays plain. */
  readonly tensors: ReadonlyMap<string, FileRange>;
}

const EMBEDDING = /(?:^|\.)(?:embed_tokens|word_embeddings|wte|shared|embed_in|tok_embeddings)$/;
const HEAD_CLASS = /(?:ForCausalLM|LMHeadModel|ForConditionalGeneration|ForMaskedLM|ForPreTraining)$/;
const HEAD_TENSOR = /(?:^|\.)(?:lm_head|embed_out|decoder|output)\.weight$/;

/**
 * @returns units of every component; those without any are there too.
 * @throws {InputError} `input.option` for patterns that match nothing or overlap; {UnsupportedError} `unsupported.dtype` for a model
 *   that has nothing to compress, naming the way out.
 */
export async function unitsOf(
  source: LosslessSource,
  recipe: Recipe,
  accepts: (spec: TensorSpec) => boolean,
  notes: string[],
): Promise<readonly ComponentUnits[]> {
  const patterns = recipe.patterns ?? [];
  const listed: ComponentUnits[] = [];
  const unmatched = new Map<string, InputError>(
    patterns.map(({ pattern }) => [pattern, new InputError("input.option", `--pattern "${pattern}" matches nothing`)]),
  );
  for (const component of source.components) {
    const tensors = rangesOf(component, recipe);
    const facts = source.isFile ? undefined : await graphFacts(join(source.root, component.prefix));
    const ordered = inOrder([...tensors.values()].filter(accepts), facts?.order ?? []);
    const units = patterns.length === 0 ? findUnits(ordered) : matchPatterns(ordered, patterns, unmatched);
    listed.push({ component, units: keepTied(component, units, tensors, facts?.tied, recipe, notes), tensors });
  }
  for (const error of unmatched.values()) throw error;
  for (const { units } of listed) checkUnits(units);
  if (listed.every(({ units }) => units.length === 0)) throw nothingToCompress(listed);
  noteCopied(listed, notes);
  return listed;
}

/** Tensors as the run sees them: with `--cast`, wide floats are bf16. */
function rangesOf({ files }: Component, { cast }: Recipe): ReadonlyMap<string, FileRange> {
  const ranges = new Map<string, FileRange>();
  for (const { tensors } of files) {
    for (const { name, dtype, shape, byteLength: bytes, location } of tensors) {
      const place = { name, shape, path: location!.path, offset: location!.offset };
      const isCast = cast === "bf16" && CASTABLE.has(dtype);
      ranges.set(
        name,
        isCast
          ? { ...place, dtype: "BF16", byteLength: byteLength("BF16", shape), castFrom: dtype }
          : { ...place, dtype, byteLength: bytes },
      );
    }
  }
  return ranges;
}

/** Weights in the order in which the graph uses them, and whether the head is the embedding; undefined when the architecture is not known. */
async function graphFacts(directory: string): Promise<{ readonly order: readonly string[]; readonly tied: boolean } | undefined> {
  try {
    const model = await openModel(directory);
    return {
      order: model.blocks.flatMap(({ sites }) => sites.map(({ weight, name }) => (model.tensors.has(weight) ? weight : `${name}.weight`))),
      tied: model.facts.tiedHead,
    };
  } catch (error) {
    // Bytes can be compressed whatever the architecture; the graph only orders them.
    if (error instanceof QuantError) return undefined;
    throw error;
  }
}

/** What the graph names in its order, at the places where such tensors stand in the file; the rest keeps its place. */
function inOrder(tensors: readonly FileRange[], order: readonly string[]): readonly FileRange[] {
  const rank = new Map(order.map((name, at) => [name, at]));
  const named = tensors.filter(({ name }) => rank.has(name)).toSorted((a, b) => rank.get(a.name)! - rank.get(b.name)!);
  let next = 0;
  return tensors.map((tensor) => (rank.has(tensor.name) ? named[next++]! : tensor));
}

/** Each pattern alone, since in a directory of several models it need not match in all of them. */
function matchPatterns(
  tensors: readonly FileRange[],
  patterns: readonly UnitPattern[],
  unmatched: Map<string, InputError>,
): readonly UnitPlan[] {
  return patterns.flatMap((pattern) => {
    try {
      const units = findUnits(tensors, [pattern]);
      unmatched.delete(pattern.pattern);
      return units;
    } catch (error) {
      const isNoMatch = error instanceof InputError && error.details["pattern"] === pattern.pattern && error.details["name"] === undefined;
      if (!isNoMatch) throw error;
      if (unmatched.has(pattern.pattern)) unmatched.set(pattern.pattern, error);
      return [];
    }
  });
}

/** A tied embedding stays plain: the official loader would leave the head without values. */
function keepTied(
  { config, prefix }: Component,
  units: readonly UnitPlan[],
  tensors: ReadonlyMap<string, FileRange>,
  fromGraph: boolean | undefined,
  recipe: Recipe,
  notes: string[],
): readonly UnitPlan[] {
  const architectures = config?.["architectures"];
  const className = Array.isArray(architectures) ? String(architectures[0]) : "";
  const hasHead = [...tensors.keys()].some((name) => HEAD_TENSOR.test(name));
  const tied = !hasHead && HEAD_CLASS.test(className) && (fromGraph ?? config?.["tie_word_embeddings"] !== false);
  if (!tied) return units;
  const embedding = units.find(({ name, attributes }) => attributes.length === 0 && EMBEDDING.test(name));
  if (embedding === undefined) return units;
  const asked = recipe.scheme?.["tied"];
  const name = `${prefix}${embedding.name}`;
  const isNamed = (recipe.patterns ?? []).length > 0;
  if (asked === "compress" || (isNamed && asked === undefined)) {
    notes.push(
      `tied head: ${name} is compressed, stored once. The official loader cannot tie the head to it; this tool's reader can. --scheme tied=plain makes it loadable there`,
    );
    return units;
  }
  notes.push(
    `tied head: ${name} is the head as well and stays uncompressed, since the official loader cannot tie to a compressed embedding; --scheme tied=compress stores it compressed for this tool's reader`,
  );
  return units.filter((unit) => unit !== embedding);
}

/** @throws {InputError} `input.option` for a tensor in two units, or one pattern whose units differ. */
function checkUnits(units: readonly UnitPlan[]): void {
  const owner = new Map<string, string>();
  const attributes = new Map<string, string>();
  for (const { name, pattern, tensors, attributes: own } of units) {
    for (const tensor of tensors) {
      const other = owner.get(tensor);
      if (other !== undefined)
        throw new InputError("input.option", `--pattern: ${tensor} would be in two units, ${other} and ${name}`, {
          tensor,
          units: [other, name],
        });
      owner.set(tensor, name);
    }
    const known = attributes.get(pattern) ?? own.join();
    if (known !== own.join()) {
      throw new InputError(
        "input.option",
        `--pattern "${pattern}" matches modules with different weights (${known} and ${own.join()}); name the attributes they share, or give each kind a pattern`,
        { pattern },
      );
    }
    attributes.set(pattern, known);
  }
}

function nothingToCompress(listed: readonly ComponentUnits[]): UnsupportedError | InputError {
  const all = listed.flatMap(({ tensors }) => [...tensors.values()]);
  const wide = all.filter(({ dtype, shape }) => shape.length === 2 && CASTABLE.has(dtype));
  if (wide.length > 0) {
    const dtype = wide[0]!.dtype;
    return new UnsupportedError(
      "unsupported.dtype",
      `the weights are ${dtype} (${wide.length} matrices, first ${wide[0]!.name}); DFloat11 holds bf16. --cast bf16 rounds them first, which is lossy; ` +
        `lossless for ${dtype}: --codec compact where it takes the dtype, or the bf16 revision of the model`,
      { dtype, tensor: wide[0]!.name },
    );
  }
  return new UnsupportedError(
    "unsupported.dtype",
    `there is no 2-D bf16 weight to compress among ${all.length} tensors; --pattern names modules by hand`,
    { tensors: all.length },
  );
}

/** Says what is only copied, so that nobody wonders about the size. */
function noteCopied(listed: readonly ComponentUnits[], notes: string[]): void {
  const bytes = new Map<string, { count: number; bytes: number }>();
  for (const { units, tensors } of listed) {
    const inside = new Set(units.flatMap((unit) => unit.tensors));
    for (const { name, dtype, byteLength: size } of tensors.values()) {
      if (inside.has(name)) continue;
      const entry = bytes.get(dtype) ?? { count: 0, bytes: 0 };
      bytes.set(dtype, { count: entry.count + 1, bytes: entry.bytes + size });
    }
  }
  for (const [dtype, entry] of bytes)
    notes.push(`${entry.count} ${dtype} tensors outside units (${entry.bytes} bytes) are copied as they are`);
}
