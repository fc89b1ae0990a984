/**
 * The units of the DFloat11 goldens with the weights they must give, for every decoder.
 * @module
 */
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

const FOLDER = join(import.meta.dirname, "../../fixtures/lossless/df11");

export interface GoldenUnit {
  readonly name: string;
  readonly luts: Uint8Array;
  readonly encodedExponent: Uint8Array;
  readonly signMantissa: Uint8Array;
  /** u32 little-endian, blocks + 1 of them. */
  readonly outputPositions: Uint8Array;
  readonly gaps: Uint8Array;
  /** bf16 patterns of the source, little-endian. */
  readonly expected: Uint8Array;
}

/** Tensors of a safetensors file, read without the code under test. */
function readTensors(path: string): Map<string, Uint8Array> {
  const file = readFileSync(path);
  const end = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, end)) as Record<string, { data_offsets?: [number, number] }>;
  const tensors = new Map<string, Uint8Array>();
  for (const [name, { data_offsets: range }] of Object.entries(header)) {
    if (range !== undefined) tensors.set(name, Uint8Array.from(file.subarray(end + range[0], end + range[1])));
  }
  return tensors;
}

/** All units of the three official artifacts in fixtures/lossless/df11. */
export function goldenUnits(): GoldenUnit[] {
  return [
    { artifact: "edges/artifact", source: "edges/source.safetensors" },
    { artifact: "bert-slice/artifact", source: "bert-slice/source/model.safetensors" },
    { artifact: "llama-slice/artifact", source: "llama-slice/source/model.safetensors" },
  ].flatMap(({ artifact, source }) => {
    const folder = join(FOLDER, artifact);
    const weights = readTensors(join(FOLDER, source));
    const tensors = new Map(
      readdirSync(folder)
        .filter((name) => name.endsWith(".safetensors"))
        .flatMap((name) => [...readTensors(join(folder, name))]),
    );
    const { dfloat11_config: config } = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as {
      dfloat11_config: { pattern_dict: Record<string, string[]> };
    };
    const names = [...tensors.keys()].filter((name) => name.endsWith(".luts")).map((name) => name.slice(0, -".luts".length));
    return names.map((name) => {
      const members = Object.entries(config.pattern_dict).find(([pattern]) => new RegExp(`^(?:${pattern})$`).test(name))![1];
      const expected = (members.length === 0 ? [name] : members.map((member) => `${name}.${member}`)).map((module) =>
        weights.get(`${module}.weight`)!,
      );
      const encodedExponent = tensors.get(`${name}.encoded_exponent`)!;
      const signMantissa = tensors.get(`${name}.sign_mantissa`)!;
      return {
        name,
        luts: tensors.get(`${name}.luts`)!,
        encodedExponent,
        signMantissa,
        outputPositions: completed(tensors.get(`${name}.output_positions`)!, encodedExponent.length, signMantissa.length),
        gaps: tensors.get(`${name}.gaps`)!,
        expected: Buffer.concat(expected),
      };
    });
  });
}

/** The official encoder forgets the last entry when the last code straddles a block and ends on a byte. */
function completed(positions: Uint8Array, streamBytes: number, elements: number): Uint8Array {
  const length = 4 * (Math.ceil(streamBytes / 4096) + 1);
  if (positions.length === length) return positions;
  return Buffer.concat([positions, Buffer.from(Uint32Array.of(elements).buffer)]);
}
