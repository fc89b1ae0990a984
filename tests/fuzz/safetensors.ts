/**
 * Mutated safetensors, index and config files, and what must be true of whatever comes out: a typed error or correct data.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { QuantError } from "../../core/errors.ts";
import type { QuantScheme } from "../../core/scheme.ts";
import { createRandom, type Random } from "../../core/random.ts";
import { tensorOf, type Tensor } from "../../core/tensor.ts";
import { openCheckpoint, parseConfig, parseIndex } from "../../formats/checkpoint.ts";
import { memorySource } from "../../formats/containers/bytes.ts";
import { encodeSafetensors } from "../../formats/containers/safetensors/write.ts";
import { openSafetensors } from "../../formats/containers/safetensors/read.ts";
import { parseQuantizationConfig } from "../../formats/layouts/compressed-tensors/config.ts";
import { quantizationConfig } from "../../formats/layouts/compressed-tensors/groups.ts";
import { readModules } from "../../formats/layouts/compressed-tensors/read.ts";
import { encodeModule, type Site } from "../../formats/layouts/compressed-tensors/write.ts";
import { findLayout } from "../../formats/layouts/index.ts";

/** Largest sum of floats a mutated artifact of a few kB may turn into; more would be memory a file can ask for. */
const MAX_ELEMENTS = 10_000_000;

interface Seeds {
  readonly safetensors: readonly Uint8Array[];
  readonly config: Uint8Array;
  readonly index: Uint8Array;
}

const scheme = (
  format: QuantScheme["format"],
  granularity: QuantScheme["granularity"],
  timing: QuantScheme["timing"] = "static",
): QuantScheme => ({
  format,
  granularity,
  timing,
  scale: "f32",
  dialect: "compressed-tensors",
});

/** Small well-formed files: an artifact with three schemes, a plain file, an index. */
function createSeeds(): Seeds {
  const int8 = scheme({ kind: "int", bits: 8, symmetric: true }, { kind: "channel" });
  const sites: Record<string, Site> = {
    "model.layers.0.o_proj": {
      weight: int8,
      input: scheme({ kind: "int", bits: 8, symmetric: true }, { kind: "tensor" }),
      inputScale: 0.5,
      rows: 4,
      cols: 8,
    },
    "model.layers.0.down_proj": {
      weight: scheme({ kind: "int", bits: 3, symmetric: false }, { kind: "group", size: 4 }),
      rows: 4,
      cols: 8,
    },
    "model.layers.0.fc1": { weight: scheme({ kind: "float", format: "e4m3" }, { kind: "tensor" }), rows: 4, cols: 8 },
  };
  const tensors = new Map<string, Tensor>([["model.norm.weight", tensorOf(Float32Array.of(1, 2, 3), [3])]]);
  for (const [module, site] of Object.entries(sites)) {
    const isFloat = site.weight.format.kind === "float";
    const scales = new Float32Array(site.weight.granularity.kind === "group" ? 8 : site.weight.granularity.kind === "tensor" ? 1 : 4).fill(
      0.5,
    );
    const codes = isFloat
      ? ({ kind: "u8", data: new Uint8Array(32).fill(0x38) } as const)
      : ({ kind: "i8", data: new Int8Array(32).fill(-3) } as const);
    const zeros = site.weight.granularity.kind === "group" ? { zeros: new Float32Array(8).fill(1) } : {};
    const quantized = { shape: [4, 8], channelAxis: 0, scheme: site.weight, codes, scales, ...zeros };
    for (const [name, tensor] of encodeModule(module, quantized, site)) tensors.set(name, tensor);
  }
  const config = {
    architectures: ["LlamaForCausalLM"],
    hidden_size: 8,
    rope_parameters: { rope_theta: 1e4 },
    quantization_config: quantizationConfig(
      Object.entries(sites).map(([module, site]) => ({ module, ...site })),
      ["lm_head", "re:.*router$"],
    ),
  };
  const plain = new Map<string, Tensor>([
    ["a", tensorOf(Uint16Array.of(1, 2, 3, 4), [2, 2])],
    ["b.scalar", tensorOf(Float64Array.of(7), [])],
    ["empty", tensorOf(new Int8Array(0), [0, 5])],
  ]);
  const text = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
  return {
    safetensors: [encodeSafetensors(tensors, { format: "pt" }), encodeSafetensors(plain)],
    config: text(config),
    index: text({
      metadata: { total_size: 16 },
      weight_map: { a: "one.safetensors", "b.scalar": "two.safetensors", empty: "two.safetensors" },
    }),
  };
}

const NUMBERS = [
  "-1",
  "0",
  "1",
  "3",
  "1.5",
  "1e3",
  "4294967296",
  "9007199254740993",
  "18446744073709551615",
  "1e400",
  "-0",
  "00",
  "null",
  "true",
  '""',
  "[]",
  "{}",
  "NaN",
];
const WORDS = [
  "__proto__", "constructor", "__metadata__", "dtype", "shape", "data_offsets", "F32", "I8", "F4", "I32", "weights", "targets", "Linear", "int", "float", "channel", "group",
  "block", "token", "pack-quantized", "int-quantized", "naive-quantized", "mixed-precision", "re:.*", "re:(a+)+$", "re:(", "../x.safetensors", "/dev/zero", "model.layers.0.fc1", "\\ud800", "\\u0000",
]; // prettier-ignore

/** Change a few things about JSON text: tokens swapped for nasty ones, doubled, dropped, nested. */
function mutateText(text: string, random: Random): string {
  let result = text;
  for (let i = 1 + random.below(2) * random.below(3); i > 0; i--) {
    const tokens = [...result.matchAll(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[[\]{},:]/g)];
    const token = tokens[random.below(tokens.length || 1)];
    if (token === undefined) return result;
    const [found] = token;
    const replace = (by: string): string => result.slice(0, token.index) + by + result.slice(token.index + found.length);
    // Half the time the text stays JSON: a value for a value of its kind, from the list or from elsewhere in the file.
    if (random.below(2) === 0) {
      const kinds = tokens.filter(([other]) => /^["\d-]/.test(other) && other !== found);
      const other = kinds[random.below(kinds.length || 1)]?.[0] ?? "1";
      const isText = found.startsWith('"');
      if (isText) result = replace(random.below(2) === 0 && other.startsWith('"') ? other : `"${WORDS[random.below(WORDS.length)]}"`);
      else if (/^[\d-]|true|false|null/.test(found))
        result = replace(random.below(2) === 0 ? other : NUMBERS[random.below(NUMBERS.length)]!);
      continue;
    }
    const choice = random.below(6);
    if (choice === 0) result = replace("");
    else if (choice === 1) result = replace(found + found);
    else if (choice === 2) result = replace(`"${WORDS[random.below(WORDS.length)]}"`);
    else if (choice === 3) result = replace(NUMBERS[random.below(NUMBERS.length)]!);
    else if (choice === 4) result = replace(`${"[".repeat(1 + random.below(100))}${found}`);
    else {
      // An entry from elsewhere: duplicates, and values where others belong.
      const from = random.below(result.length);
      const piece = result.slice(from, from + random.below(80));
      const at = random.below(result.length);
      result = result.slice(0, at) + piece + result.slice(at);
    }
  }
  return result;
}

/** Change bytes anywhere: flips, special values, cuts, insertions. */
function mutateBytes(bytes: Uint8Array, random: Random): Uint8Array {
  let result = bytes.slice();
  for (let i = 1 + random.below(4); i > 0; i--) {
    if (result.length === 0) return result;
    const at = random.below(result.length);
    const choice = random.below(5);
    if (choice === 0) result[at]! ^= 1 << random.below(8);
    else if (choice === 1) result[at] = [0, 0x20, 0x22, 0x5c, 0x7b, 0x7d, 0x7f, 0x80, 0xff][random.below(9)]!;
    else if (choice === 2) result = result.slice(0, at);
    else if (choice === 3)
      result = Uint8Array.from([...result.subarray(0, at), ...result.subarray(random.below(result.length)), ...result.subarray(at)]).slice(
        0,
        20_000,
      );
    else result[random.below(Math.min(9, result.length))] = random.below(256);
  }
  return result;
}

/** Mutate the header and, mostly, keep its length field true, so that the mutation is reached. */
function mutateSafetensors(bytes: Uint8Array, random: Random): Uint8Array {
  if (random.below(3) === 0) return mutateBytes(bytes, random);
  const headerBytes = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = new TextEncoder().encode(mutateText(new TextDecoder().decode(bytes.subarray(8, 8 + headerBytes)), random));
  const out = new Uint8Array(8 + header.length + bytes.length - 8 - headerBytes);
  new DataView(out.buffer).setBigUint64(0, BigInt(header.length), true);
  out.set(header, 8);
  out.set(bytes.subarray(8 + headerBytes), 8 + header.length);
  return out;
}

/** What a file that was accepted must be: covered exactly once, with bytes where its header says. */
async function checkAccepted(bytes: Uint8Array): Promise<void> {
  const file = await openSafetensors(memorySource("fuzz", bytes));
  const headerBytes = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + headerBytes))) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const names = Object.keys(header).filter((name) => name !== "__metadata__");
  require(names.length === file.tensors.size, "every tensor of the header is there");
  let covered = 0;
  for (const name of names) {
    const { dtype, shape, data_offsets: [begin, end] } = header[name]!; // prettier-ignore
    const tensor = await file.tensors.get(name)!.read();
    require(tensor.dtype === dtype && JSON.stringify(tensor.shape) === JSON.stringify(shape), "dtype and shape are the header's");
    require(Buffer.from(tensor.bytes).equals(bytes.subarray(8 + headerBytes + begin, 8 + headerBytes + end)), "bytes are the file's");
    covered += end - begin;
  }
  require(covered === bytes.length - 8 - headerBytes, "every byte belongs to a tensor");
}

function require(holds: boolean, claim: string): asserts holds {
  if (!holds) throw new Error(`fuzz: ${claim}`);
}

async function checkArtifact(safetensors: Uint8Array, config: Uint8Array): Promise<void> {
  const parsed = parseConfig(config);
  require(Object.getPrototypeOf(parsed) === Object.prototype && !("polluted" in {}), "prototypes are untouched");
  findLayout(parsed);
  const file = await openSafetensors(memorySource("fuzz", safetensors));
  const modules = await readModules(file.tensors, parseQuantizationConfig(parsed["quantization_config"]));
  let elements = 0;
  for (const stored of modules.values()) {
    const { rows, cols } = stored;
    elements += rows * cols;
    require(elements <= MAX_ELEMENTS, "a small file stays small in memory");
    const weights = await stored.readFloat();
    require(weights.length === rows * cols, "weights fill their shape");
  }
}

async function checkDirectory(directory: string, files: Readonly<Record<string, Uint8Array>>): Promise<void> {
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(directory, name), bytes);
  const checkpoint = await openCheckpoint(directory);
  try {
    for (const tensor of checkpoint.tensors.values())
      require((await tensor.read()).bytes.length === tensor.byteLength, "tensors have their length");
    const reading = await findLayout(checkpoint.config)?.read(checkpoint);
    if (reading !== undefined) for (const tensor of reading.tensors.values()) await tensor.read();
  } finally {
    await checkpoint.close();
  }
}

export interface FuzzResult {
  readonly cases: number;
  /** Cases that were read without an error. */
  readonly accepted: number;
  /** Error codes seen, with counts. */
  readonly codes: ReadonlyMap<string, number>;
  /** Slowest case, ms. */
  readonly slowest: number;
  /** Anything that was neither a typed error nor correct data, with the case that did it. */
  readonly failures: readonly string[];
}

/**
 * Run seeded cases: a third mutated tensor files, a third mutated configs, the rest indexes and whole directories.
 *
 * @param directory - a scratch folder of this run.
 */
export async function fuzzSafetensors(cases: number, seed: number, directory: string): Promise<FuzzResult> {
  const seeds = createSeeds();
  const text = (bytes: Uint8Array, random: Random): Uint8Array =>
    random.below(4) === 0 ? mutateBytes(bytes, random) : new TextEncoder().encode(mutateText(new TextDecoder().decode(bytes), random));
  const codes = new Map<string, number>();
  const failures: string[] = [];
  let accepted = 0;
  let slowest = 0;
  for (let i = 0; i < cases; i++) {
    const random = createRandom(seed + i);
    const artifact = seeds.safetensors[0]!;
    const start = performance.now();
    try {
      switch (i % 6) {
        case 0:
        case 1:
          await checkAccepted(mutateSafetensors(seeds.safetensors[i % 2]!, random));
          break;
        case 2:
        case 3:
          await checkArtifact(artifact, text(seeds.config, random));
          break;
        case 4:
          if (i % 4 === 0) parseIndex(text(seeds.index, random));
          else await checkArtifact(mutateSafetensors(artifact, random), seeds.config);
          break;
        default: {
          const plain = seeds.safetensors[1]!;
          const files =
            random.below(2) === 0
              ? { "model.safetensors": mutateSafetensors(artifact, random), "config.json": text(seeds.config, random) }
              : {
                  "one.safetensors": mutateSafetensors(plain, random),
                  "two.safetensors": plain,
                  "model.safetensors.index.json": text(seeds.index, random),
                };
          await checkDirectory(join(directory, "case"), files);
        }
      }
      accepted++;
    } catch (error) {
      if (error instanceof QuantError) codes.set(error.code, (codes.get(error.code) ?? 0) + 1);
      else failures.push(`case ${i} (seed ${seed}): ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    }
    slowest = Math.max(slowest, performance.now() - start);
  }
  return { cases, accepted, codes, slowest, failures };
}
