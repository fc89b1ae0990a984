/**
 * Which tensors make a DFloat11 unit, found from their names.
 *
 * A unit is one module: a repeated block (all its Linear weights share one code
 * and one stream) or a single Embedding or Linear. The order of attributes in
 * a unit fixes every byte, so it follows the published artifacts where there are any.
 *
 * Source: DFloat11 0.5.0 `compress_model`; orders as in the released config.json files.
 * @module
 */
import { InputError } from "../../../core/errors.ts";
import type { TensorSpec } from "../../containers/container.ts";
import { compileFullMatch } from "./full-match.ts";

/** One unit: its module path and the weights it holds, in stream order. */
export interface UnitPlan {
  readonly name: string;
  /** Key of `pattern_dict` that the unit belongs to, a Python regular expression. */
  readonly pattern: string;
  /** Module names below `name`; empty for a standalone Embedding or Linear. */
  readonly attributes: readonly string[];
  /** Tensor names, in stream order. */
  readonly tensors: readonly string[];
  readonly elements: number;
}

/** A pattern given by the caller: the modules it matches become units of these attributes ([] = standalone). */
export interface UnitPattern {
  readonly pattern: string;
  readonly attributes?: readonly string[];
}

/**
 * Attribute orders of released artifacts; an attribute that is in none comes after those that are, in the
 * caller's order. FLUX keeps k, v, q in its `add_*` trio.
 */
const PUBLISHED_ORDERS: readonly (readonly string[])[] = [
  ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
  [
    "norm1.linear",
    "norm1_context.linear",
    "attn.to_q",
    "attn.to_k",
    "attn.to_v",
    "attn.add_k_proj",
    "attn.add_v_proj",
    "attn.add_q_proj",
    "attn.to_out.0",
    "attn.to_add_out",
    "ff.net.0.proj",
    "ff.net.2",
    "ff_context.net.0.proj",
    "ff_context.net.2",
  ],
  ["norm.linear", "proj_mlp", "proj_out", "attn.to_q", "attn.to_k", "attn.to_v"],
  ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense", "intermediate.dense", "output.dense"],
];

/** Top-level embeddings and heads that become standalone units whatever their size. */
const STANDALONE = /(?:^|\.)(?:embed_tokens|word_embeddings|wte|lm_head|shared|embed_in|embed_out)$/;
/** Other top-level matrices become units from this many elements on: below it, tables and index outweigh the gain in load time. */
const STANDALONE_ELEMENTS = 2 ** 20;

/** Module path and repeated prefix of a weight: "model.layers.3.mlp.up_proj.weight" → model.layers.3, mlp.up_proj. */
interface Place {
  readonly tensor: TensorSpec;
  readonly module: string;
  /** Shortest prefix that ends in a number, with that number; undefined outside repeated blocks. */
  readonly block?: { readonly prefix: string; readonly index: string; readonly attribute: string };
}

function placeOf(tensor: TensorSpec): Place {
  const module = tensor.name.replace(/\.weight$/, "");
  const match = /^((?:[^.]+\.)*?)(\d+)\.(.+)$/.exec(module);
  return match === null ? { tensor, module } : { tensor, module, block: { prefix: match[1]!, index: match[2]!, attribute: match[3]! } };
}

/** Only 2-D bf16 `.weight` tensors: what a Linear or Embedding holds and the loader can view back. */
function isCandidate({ name, dtype, shape }: TensorSpec): boolean {
  return dtype === "BF16" && shape.length === 2 && name.endsWith(".weight");
}

const count = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** Python regular expression that matches `text` literally. */
export function escapePattern(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
}

/**
 * Find units.
 *
 * @param tensors - all tensors of the source, in graph order where one is known, else file order.
 * @param patterns - overrides: only modules these match become units; an empty list finds units by itself.
 * @returns units in the order of their first tensor.
 * @throws {InputError} `input.option` for a pattern that is not one, matches nothing, or names an attribute that is not there.
 */
export function findUnits(tensors: readonly TensorSpec[], patterns: readonly UnitPattern[] = []): readonly UnitPlan[] {
  const places = tensors.filter(isCandidate).map(placeOf);
  return patterns.length === 0 ? findByName(places) : patterns.flatMap((pattern) => findByPattern(places, pattern));
}

function findByName(places: readonly Place[]): readonly UnitPlan[] {
  const blocks = new Map<string, Place[]>();
  for (const place of places) {
    const standalone = place.block === undefined;
    if (standalone && !STANDALONE.test(place.module) && count(place.tensor.shape) < STANDALONE_ELEMENTS) continue;
    const name = place.block === undefined ? place.module : `${place.block.prefix}${place.block.index}`;
    const list = blocks.get(name);
    if (list === undefined) blocks.set(name, [place]);
    else list.push(place);
  }
  const units = [...blocks].map(([name, members]): UnitPlan => {
    const first = members[0]!;
    if (first.block === undefined) return unitOf(name, escapePattern(name), [], members);
    const ordered = orderAttributes(members.map((place) => place.block!.attribute));
    const byAttribute = new Map(members.map((place) => [place.block!.attribute, place]));
    return unitOf(
      name,
      `${escapePattern(first.block.prefix)}\\d+`,
      ordered,
      ordered.map((attribute) => byAttribute.get(attribute)!),
    );
  });
  return separatePatterns(units);
}

/** Blocks of one prefix whose attributes differ need patterns of their own: the numbers are listed. */
function separatePatterns(units: readonly UnitPlan[]): readonly UnitPlan[] {
  const variants = new Map<string, Map<string, string[]>>();
  const keyOf = ({ attributes }: UnitPlan): string => JSON.stringify(attributes);
  for (const unit of units) {
    const byAttributes = variants.get(unit.pattern) ?? new Map<string, string[]>();
    byAttributes.set(keyOf(unit), [...(byAttributes.get(keyOf(unit)) ?? []), /(\d+)$/.exec(unit.name)?.[1] ?? ""]);
    variants.set(unit.pattern, byAttributes);
  }
  return units.map((unit) => {
    const byAttributes = variants.get(unit.pattern)!;
    if (byAttributes.size === 1) return unit;
    return { ...unit, pattern: unit.pattern.replace(/\\d\+$/, `(${byAttributes.get(keyOf(unit))!.join("|")})`) };
  });
}

function findByPattern(places: readonly Place[], { pattern, attributes }: UnitPattern): readonly UnitPlan[] {
  const matches = compileFullMatch(pattern);
  const units = new Map<string, Place[]>();
  for (const place of places) {
    const parts = place.module.split(".");
    // The longest module path that matches owns the tensor; a pattern for a block never matches the Linear inside it as well.
    for (let length = parts.length; length > 0; length--) {
      const name = parts.slice(0, length).join(".");
      if (!matches(name)) continue;
      const list = units.get(name);
      if (list === undefined) units.set(name, [place]);
      else list.push(place);
      break;
    }
  }
  if (units.size === 0) {
    const some = places.slice(0, 3).map(({ module }) => module);
    throw new InputError(
      "input.option",
      `--pattern "${pattern}" matches no module with a 2-D bf16 weight${some.length === 0 ? "" : `; there are for example ${some.join(", ")}`}`,
      { pattern },
    );
  }
  return [...units].map(([name, members]) => {
    const inside = new Map(members.filter(({ module }) => module !== name).map((place) => [place.module.slice(name.length + 1), place]));
    const wanted = attributes ?? orderAttributes([...inside.keys()]);
    if (wanted.length === 0) {
      const own = members.filter(({ module }) => module === name);
      if (own.length === 0)
        throw new InputError("input.option", `--pattern "${pattern}": ${name} has no weight of its own; name its attributes`, {
          pattern,
          name,
        });
      return unitOf(name, pattern, [], own);
    }
    const chosen = wanted.map((attribute) => {
      const place = inside.get(attribute);
      if (place !== undefined) return place;
      throw new InputError(
        "input.option",
        `--pattern "${pattern}": ${name} has no 2-D bf16 ${attribute}.weight; it has ${[...inside.keys()].join(", ")}`,
        {
          word: attribute,
          known: [...inside.keys()],
        },
      );
    });
    return unitOf(name, pattern, wanted, chosen);
  });
}

function unitOf(name: string, pattern: string, attributes: readonly string[], members: readonly Place[]): UnitPlan {
  return {
    name,
    pattern,
    attributes,
    tensors: members.map(({ tensor }) => tensor.name),
    elements: members.reduce((sum, { tensor }) => sum + count(tensor.shape), 0),
  };
}

/** Published order when one lists most of the attributes; the rest follow as they came. */
function orderAttributes(attributes: readonly string[]): readonly string[] {
  const known = (order: readonly string[]): number => attributes.filter((attribute) => order.includes(attribute)).length;
  const best = PUBLISHED_ORDERS.reduce((a, b) => (known(b) > known(a) ? b : a));
  if (known(best) === 0) return attributes;
  const rank = (attribute: string): number => (best.includes(attribute) ? best.indexOf(attribute) : best.length);
  return attributes
    .map((attribute, at) => ({ attribute, at }))
    .toSorted((a, b) => rank(a.attribute) - rank(b.attribute) || a.at - b.at)
    .map(({ attribute }) => attribute);
}
