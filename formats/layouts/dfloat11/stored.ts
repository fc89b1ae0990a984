/**
 * The six tensors of a unit as a file holds them: names, dtypes, shapes.
 *
 * Source: DFloat11 0.5.0, `compress_model` and `load_and_replace_tensors`.
 * @module
 */
import { FormatError } from "../../../core/errors.ts";
import type { LazyTensor } from "../../../core/tensor.ts";
import type { TensorSpec } from "../../containers/container.ts";
import { checkUnit, type Df11Structure } from "../../encodings/dfloat11/decode.ts";
import { BLOCK_BYTES, GAP_BYTES_PER_BLOCK, MAX_DECODE_ROWS, MAX_UNIT_ELEMENTS } from "../../encodings/dfloat11/fields.ts";

/** Endings of the stored tensors' names behind the unit's module path. */
export const SUFFIXES = ["luts", "encoded_exponent", "sign_mantissa", "output_positions", "gaps", "split_positions"] as const;
export type Suffix = (typeof SUFFIXES)[number];

/** Sizes that fix the stored tensors' shapes. */
export interface UnitSizes {
  /** Decode rows and the row of lengths. */
  readonly rows: number;
  readonly elements: number;
  readonly streamBytes: number;
  readonly blocks: number;
  /** Tensors in the unit. */
  readonly parts: number;
}

/** Stored tensors of a unit. @param name - its module path. */
export function storedTensors(name: string, { rows, elements, streamBytes, blocks, parts }: UnitSizes): readonly TensorSpec[] {
  const bytes = (suffix: Suffix, length: number): TensorSpec => ({ name: `${name}.${suffix}`, dtype: "U8", shape: [length] });
  return [
    { name: `${name}.luts`, dtype: "U8", shape: [rows, 256] },
    bytes("encoded_exponent", streamBytes),
    bytes("sign_mantissa", elements),
    bytes("output_positions", 4 * (blocks + 1)),
    bytes("gaps", blocks * GAP_BYTES_PER_BLOCK),
    { name: `${name}.split_positions`, dtype: "I64", shape: [parts - 1] },
  ];
}

/** The stored tensors of every unit in a file or directory, by module path. */
export function findStoredUnits(tensors: ReadonlyMap<string, LazyTensor>): ReadonlyMap<string, ReadonlyMap<Suffix, LazyTensor>> {
  const units = new Map<string, ReadonlyMap<Suffix, LazyTensor>>();
  for (const name of tensors.keys()) {
    if (!name.endsWith(".encoded_exponent")) continue;
    const unit = name.slice(0, -".encoded_exponent".length);
    const parts = new Map<Suffix, LazyTensor>();
    for (const suffix of SUFFIXES) {
      const tensor = tensors.get(`${unit}.${suffix}`);
      if (tensor === undefined) {
        throw new FormatError("format.missing", `DFloat11 unit ${unit} has encoded_exponent but no ${suffix}`, { unit, missing: suffix });
      }
      const wanted = suffix === "split_positions" ? "I64" : "U8";
      const rank = suffix === "luts" ? 2 : 1;
      if (tensor.dtype !== wanted || tensor.shape.length !== rank) {
        const found = `${tensor.dtype} [${tensor.shape.join(", ")}]`;
        throw new FormatError("format.field", `DFloat11 unit ${unit}: ${suffix} is ${found}, must be ${wanted} of rank ${rank}`, {
          unit,
          found,
        });
      }
      parts.set(suffix, tensor);
    }
    units.set(unit, parts);
  }
  return units;
}

/** Small tensors of a stored unit, and how long its streams are. */
export interface UnitIndex extends Df11Structure {
  readonly name: string;
}

/**
 * Reads what is needed before any weight can be: lengths are checked before anything is read.
 *
 * @param read - bytes of one stored tensor.
 * @throws {FormatError} `format.field` / `format.limit` naming the unit.
 */
export async function readUnitIndex(
  name: string,
  lengths: ReadonlyMap<Suffix, number>,
  read: (suffix: Suffix) => Promise<Uint8Array>,
): Promise<UnitIndex> {
  const fail = (text: string): FormatError => new FormatError("format.field", `DFloat11 unit ${name}: ${text}`, { unit: name });
  const length = (suffix: Suffix): number => lengths.get(suffix)!;
  if (length("luts") > (MAX_DECODE_ROWS + 1) * 256) throw fail(`luts has ${length("luts")} bytes, at most ${(MAX_DECODE_ROWS + 1) * 256}`);
  if (length("sign_mantissa") > MAX_UNIT_ELEMENTS) throw fail(`${length("sign_mantissa")} elements, at most ${MAX_UNIT_ELEMENTS}`);
  if (length("output_positions") % 4 !== 0) throw fail(`output_positions has ${length("output_positions")} bytes, not a multiple of 4`);
  if (length("split_positions") > 8 * length("sign_mantissa") + 8) throw fail("split_positions has more entries than there are elements");
  const splits = await read("split_positions");
  const view = new DataView(splits.buffer, splits.byteOffset, splits.byteLength);
  const splitPositions: number[] = [];
  for (let at = 0; at < splits.byteLength; at += 8) {
    const position = view.getBigInt64(at, true);
    if (position < 0n || position > BigInt(length("sign_mantissa")))
      throw fail(`split_positions holds ${position}, elements are ${length("sign_mantissa")}`);
    splitPositions.push(Number(position));
  }
  const positions = await read("output_positions");
  const outputPositions = completePositions(new Uint32Array(positions.slice().buffer), length("encoded_exponent"), length("sign_mantissa"));
  const index: UnitIndex = {
    name,
    luts: await read("luts"),
    gaps: await read("gaps"),
    outputPositions,
    splitPositions,
    encodedExponent: { length: length("encoded_exponent") },
    signMantissa: { length: length("sign_mantissa") },
  };
  checkUnit(name, index);
  return index;
}

/**
 * The official encoder leaves one entry out when the last code straddles a block and ends on a byte: no code starts in the last block, so its
 * first element is the one behind the unit, as its end is. Nothing else is put right.
 */
function completePositions(positions: Uint32Array, streamBytes: number, elements: number): Uint32Array {
  const blocks = Math.ceil(streamBytes / BLOCK_BYTES);
  if (positions.length !== blocks || positions.at(-1) !== elements) return positions;
  const complete = new Uint32Array(blocks + 1).fill(elements);
  complete.set(positions);
  return complete;
}

/** Element ranges of a unit's tensors in its stream. */
export function memberRanges({ splitPositions, signMantissa }: UnitIndex): readonly { readonly from: number; readonly to: number }[] {
  return [...splitPositions, signMantissa.length].map((to, i) => ({ from: i === 0 ? 0 : splitPositions[i - 1]!, to }));
}
