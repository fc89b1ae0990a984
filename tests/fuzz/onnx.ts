/**
 * Mutated ONNX files, and what must be true of whatever comes out: a typed error, or a model that can be rewritten,
 * looked through and written again.
 */
import { readFileSync } from "node:fs";
import { QuantError } from "../../core/errors.ts";
import { createRandom, type Random } from "../../core/random.ts";
import { parseOnnx } from "../../formats/containers/onnx/read.ts";
import { mapTensors } from "../../formats/containers/onnx/tensors.ts";
import { encodeOnnxModel } from "../../formats/containers/onnx/write.ts";
import { bodiesOf } from "../../model/onnx/bodies.ts";
import { inlineFunctions } from "../../model/onnx/inline.ts";
import { findOnnxSites, findQuantizedSites } from "../../model/onnx/sites.ts";

/** Small files that between them have every message and every kind of attribute. */
const SEEDS = [
  "zoo/flow-17",
  "zoo/styles-17",
  "zoo/unknown-17",
  "zoo/int4-21",
  "zoo/old-8",
  "zoo/nbits4-17-zp",
  "zoo/external",
  "hostile/name-proto",
  "hostile/unsorted",
  "hostile/function-bomb",
];

/** Most bytes of tensors that a mutated file of a few kB may turn into. */
const MAX_BYTES = 50e6;
/** Nodes inlining may add: enough to reach it, few enough that a case takes milliseconds. */
const MAX_ADDED = 1000;

/** A field as it stands on the wire, its payload taken apart where it looks like a message. */
interface Field {
  number: number;
  wire: number;
  value: bigint;
  bytes: Uint8Array;
  children?: Field[];
}

/** A copy whose bytes are shared: they are replaced, never written to. */
const clone = (field: Field): Field => ({ ...field, ...(field.children && { children: field.children.map(clone) }) });

function readVarint(bytes: Uint8Array, at: number): [value: bigint, end: number] | undefined {
  let value = 0n;
  for (let i = 0; i < 10 && at + i < bytes.length; i++) {
    value |= BigInt(bytes[at + i]! & 0x7f) << BigInt(7 * i);
    if (bytes[at + i]! < 0x80) return [value, at + i + 1];
  }
  return undefined;
}

function decode(bytes: Uint8Array, depth = 0): Field[] | undefined {
  const fields: Field[] = [];
  let at = 0;
  while (at < bytes.length) {
    const tag = readVarint(bytes, at);
    if (tag === undefined || tag[0] >> 3n === 0n || tag[0] > 2n ** 20n) return undefined;
    const [number, wire] = [Number(tag[0] >> 3n), Number(tag[0] & 7n)];
    at = tag[1];
    const field: Field = { number, wire, value: 0n, bytes: new Uint8Array() };
    if (wire === 0) {
      const value = readVarint(bytes, at);
      if (value === undefined) return undefined;
      [field.value, at] = value;
    } else {
      const size = wire === 2 ? readVarint(bytes, at) : wire === 1 ? ([8n, at] as const) : wire === 5 ? ([4n, at] as const) : undefined;
      if (size === undefined || BigInt(bytes.length - size[1]) < size[0]) return undefined;
      at = size[1] + Number(size[0]);
      field.bytes = bytes.subarray(size[1], at);
      const children = wire === 2 && depth < 12 && field.bytes.length > 1 ? decode(field.bytes, depth + 1) : undefined;
      if (children !== undefined) field.children = children;
    }
    fields.push(field);
  }
  return fields;
}

function varint(value: bigint): number[] {
  const out: number[] = [];
  let rest = BigInt.asUintN(64, value);
  for (; rest >= 0x80n; rest >>= 7n) out.push(Number(rest & 0x7fn) | 0x80);
  return [...out, Number(rest)];
}

function encode(fields: readonly Field[]): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const { number, wire, value, bytes, children } of fields) {
    const payload = children === undefined ? bytes : encode(children);
    const head = varint(BigInt(number * 8 + wire));
    if (wire === 0) head.push(...varint(value));
    if (wire === 2) head.push(...varint(BigInt(payload.length)));
    parts.push(Uint8Array.from(head), ...(wire === 0 ? [] : [payload]));
  }
  return Buffer.concat(parts);
}

const INTEGERS = [0n, 1n, 2n, 7n, 25n, 26n, 99n, -1n, 2n ** 20n, 2n ** 31n, 2n ** 32n, 2n ** 40n, 2n ** 53n, 2n ** 62n, -(2n ** 63n)];
const WORDS = ["", "__proto__", "constructor", "x", "w", "Constant", "Identity", "Transpose", "If", "Loop", "MatMul", "Gemm", "Reshape", "DequantizeLinear", "ai.onnx", "local", "Twice",
  "../x", "/dev/zero", "location", "offset", "\u0000", "value", "perm", "axis"]; // prettier-ignore

/** One change that keeps lengths true, so that it is reached. */
function mutateField(root: Field[], random: Random): void {
  const lists: Field[][] = [];
  const all: Field[] = [];
  const visit = (list: Field[]): void => {
    lists.push(list);
    for (const field of list) {
      all.push(field);
      if (field.children !== undefined) visit(field.children);
    }
  };
  visit(root);
  const list = lists[random.below(lists.length)]!;
  const place = random.below(list.length || 1);
  const field = random.below(2) === 0 ? all[random.below(all.length || 1)] : list[place];
  if (field === undefined) return;
  switch (random.below(8)) {
    case 0:
      list.splice(place, 1);
      break;
    case 1:
      list.splice(random.below(list.length + 1), 0, clone(field));
      break;
    case 2:
      field.number = 1 + random.below(27);
      break;
    case 3: {
      const other = all[random.below(all.length || 1)] ?? field;
      const { number } = field;
      delete field.children;
      Object.assign(field, clone(other), { number });
      break;
    }
    case 4:
      list.push(...list.splice(place, 1));
      break;
    default:
      if (field.wire === 0) field.value = INTEGERS[random.below(INTEGERS.length)]!;
      else if (field.wire === 2 && (field.children === undefined || random.below(3) === 0)) {
        delete field.children;
        const texts = all.filter(({ wire, children }) => wire === 2 && children === undefined);
        const other = texts[random.below(texts.length || 1)];
        field.bytes =
          random.below(2) === 0 && other !== undefined ? other.bytes : new TextEncoder().encode(WORDS[random.below(WORDS.length)]);
      } else if (field.children !== undefined) field.children = field.children.slice(0, random.below(field.children.length || 1));
  }
}

function mutateBytes(bytes: Uint8Array, random: Random): Uint8Array {
  let result = bytes.slice();
  for (let i = 1 + random.below(3); i > 0 && result.length > 0; i--) {
    const at = random.below(result.length);
    const choice = random.below(4);
    if (choice === 0) result[at]! ^= 1 << random.below(8);
    else if (choice === 1) result[at] = [0, 1, 0x0b, 0x0c, 0x7f, 0x80, 0xff][random.below(7)]!;
    else if (choice === 2) result = result.slice(0, at);
    else
      result = Buffer.concat([result.subarray(0, at), result.subarray(random.below(result.length)).subarray(0, 100), result.subarray(at)]);
  }
  return result;
}

function mutate(bytes: Uint8Array, fields: readonly Field[], random: Random): Uint8Array {
  if (random.below(4) === 0) return mutateBytes(bytes, random);
  const copy = fields.map(clone);
  for (let i = 1 + random.below(3); i > 0; i--) mutateField(copy, random);
  return encode(copy);
}

function require(holds: boolean, claim: string): asserts holds {
  if (!holds) throw new Error(`fuzz: ${claim}`);
}

async function checkModel(bytes: Uint8Array): Promise<void> {
  const model = await parseOnnx(bytes, "fuzz");
  require(!("polluted" in {}) && Object.getPrototypeOf({}) === Object.prototype, "prototypes are untouched");
  let total = 0;
  await mapTensors(model, async (tensor) => {
    total += tensor.byteLength;
    require(total <= MAX_BYTES, "a small file stays small in memory");
    if (tensor.dtype !== "STRING") require((await tensor.read()).byteLength === tensor.byteLength, "tensors have their length");
    return tensor;
  });
  const written = encodeOnnxModel(model);
  const again = encodeOnnxModel(await parseOnnx(written, "again"));
  require(Buffer.from(written).equals(again), "what was written reads as what was written");
  const inlined = inlineFunctions(model, MAX_ADDED);
  const nodes = bodiesOf(inlined).reduce((sum, body) => sum + body.nodes.length, 0);
  require(nodes <= MAX_ADDED + bodiesOf(model).reduce((sum, body) => sum + body.nodes.length, 0), "inlining is bounded");
  const sites = findOnnxSites(inlined);
  require(new Set(sites.map(({ name }) => name)).size === sites.length, "site names are unique");
  findQuantizedSites(inlined);
  for (const { weight } of sites) {
    total += weight.tensor.byteLength;
    require(total <= 2 * MAX_BYTES, "weights of a small file stay small in memory");
    require((await weight.tensor.read()).byteLength === weight.tensor.byteLength, "weights fill their shape");
  }
  await parseOnnx(encodeOnnxModel(await mapTensors(inlined, async (tensor) => tensor)), "inlined");
}

export interface FuzzResult {
  readonly cases: number;
  readonly accepted: number;
  readonly codes: ReadonlyMap<string, number>;
  /** Slowest case, ms. */
  readonly slowest: number;
  readonly failures: readonly string[];
}

/** Run seeded cases. @param fixtures - folder of `zoo` and `hostile`. */
export async function fuzzOnnx(cases: number, seed: number, fixtures = "fixtures/onnx"): Promise<FuzzResult> {
  const seeds = SEEDS.map((name) => {
    const bytes = new Uint8Array(readFileSync(`${fixtures}/${name}.onnx`));
    return { bytes, fields: decode(bytes)! };
  });
  const codes = new Map<string, number>();
  const failures: string[] = [];
  let [accepted, slowest] = [0, 0];
  for (let i = 0; i < cases; i++) {
    const random = createRandom(seed + i);
    const { bytes, fields } = seeds[i % seeds.length]!;
    const mutated = mutate(bytes, fields, random);
    const start = performance.now();
    try {
      await checkModel(mutated);
      accepted++;
    } catch (error) {
      if (error instanceof QuantError) codes.set(error.code, (codes.get(error.code) ?? 0) + 1);
      else failures.push(`case ${i} (seed ${seed}): ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    }
    slowest = Math.max(slowest, performance.now() - start);
  }
  return { cases, accepted, codes, slowest, failures };
}
