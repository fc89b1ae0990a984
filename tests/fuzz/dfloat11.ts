/**
 * Mutated DFloat11 artifacts: every read gives the exact weights or a typed error.
 *
 * The artifact is a small one of this tool, with checksums. One file at a time is damaged in one of several ways: bits
 * flipped, bytes overwritten, runs moved or zeroed, the file cut or lengthened, numbers of a header or of the manifest changed.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { QuantError } from "../../core/errors.ts";
import { createRandom, type Random } from "../../core/random.ts";
import { encodeSafetensors } from "../../formats/containers/safetensors/write.ts";
import { openDFloat11 } from "../../quantize/lossless/open.ts";
import { quantize } from "../../quantize/quantize.ts";

export interface FuzzReport {
  readonly cases: number;
  /** Cases in which every weight came out right. */
  readonly exact: number;
  readonly codes: ReadonlyMap<string, number>;
  readonly slowest: number;
  readonly failures: readonly string[];
}

/** Gaussian weights as bf16 bytes. */
function gaussian(random: Random, count: number): Uint8Array {
  const words = new Uint32Array(Float32Array.from({ length: count }, () => random.normal() * 0.02).buffer);
  return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
}

async function makeArtifact(directory: string): Promise<{ readonly artifact: string; readonly weights: ReadonlyMap<string, Uint8Array> }> {
  const random = createRandom(11);
  const tensors = new Map(
    (
      [
        ["model.embed_tokens.weight", 40, 32],
        ["model.layers.0.self_attn.q_proj.weight", 32, 32],
        ["model.layers.0.mlp.up_proj.weight", 500, 32],
        ["model.layers.1.mlp.up_proj.weight", 3, 32],
        ["model.norm.weight", 1, 32],
      ] as const
    ).map(([name, rows, cols]) => [
      name,
      { dtype: "BF16" as const, shape: name.includes("norm") ? [cols] : [rows, cols], bytes: gaussian(random, rows * cols) },
    ]),
  );
  const [source, artifact] = [join(directory, "source"), join(directory, "artifact")];
  mkdirSync(source, { recursive: true });
  writeFileSync(join(source, "model.safetensors"), encodeSafetensors(tensors));
  writeFileSync(join(source, "config.json"), `{"model_type": "x"}`);
  await quantize(source, { recipe: { method: ["dfloat11"] }, out: artifact, workers: 0 });
  return { artifact, weights: new Map([...tensors].map(([name, { bytes }]) => [name, bytes])) };
}

/** One way to damage bytes; always gives others than it was given. */
function damage(random: Random, original: Uint8Array, isText: boolean): Uint8Array {
  let bytes = original.slice();
  const place = (): number => random.below(bytes.length);
  const headerEnd = isText ? bytes.length : Math.min(bytes.length, 8 + new DataView(bytes.buffer).getUint32(0, true));
  for (let i = 0, changes = 1 + random.below(3); i < changes && bytes.length > 0; i++) {
    switch (random.below(isText ? 6 : 9)) {
      case 0:
        bytes[place()]! ^= 1 << random.below(8);
        break;
      case 1:
        bytes = bytes.slice(0, place());
        break;
      case 2:
        bytes = new Uint8Array(Buffer.concat([bytes, Uint8Array.from({ length: 1 + random.below(16) }, () => random.below(256))]));
        break;
      case 3: {
        // A digit of the header or of the text: sizes, offsets, shapes, hashes.
        const digits: number[] = [];
        for (let at = 0; at < Math.min(headerEnd, bytes.length); at++) if (bytes[at]! >= 48 && bytes[at]! <= 57) digits.push(at);
        if (digits.length > 0) bytes[digits[random.below(digits.length)]!] = 48 + random.below(10);
        break;
      }
      case 4: {
        const from = place();
        bytes.fill(0, from, from + 1 + random.below(64));
        break;
      }
      case 5: {
        const [from, to] = [place(), place()];
        bytes.copyWithin(to, from, from + 1 + random.below(200));
        break;
      }
      case 6:
        bytes[headerEnd + random.below(Math.max(1, bytes.length - headerEnd))] = random.below(256);
        break;
      case 7: {
        const at = headerEnd + random.below(Math.max(1, bytes.length - headerEnd));
        bytes.fill(255, at, at + 1 + random.below(8));
        break;
      }
      default: {
        // Exchange two runs of the data: counts and sums stay the same.
        const length = 1 + random.below(8);
        const [a, b] = [
          headerEnd + random.below(Math.max(1, bytes.length - headerEnd)),
          headerEnd + random.below(Math.max(1, bytes.length - headerEnd)),
        ];
        const run = bytes.slice(a, a + length);
        bytes.copyWithin(a, b, b + length);
        if (b < bytes.length) bytes.set(run.subarray(0, bytes.length - b), b);
      }
    }
  }
  return bytes;
}

/** @param seed - case i uses seed + i, so that a failure can be repeated alone. */
export async function fuzzDfloat11(cases: number, seed: number, directory: string): Promise<FuzzReport> {
  const { artifact, weights } = await makeArtifact(directory);
  const files = readdirSync(artifact).toSorted();
  const originals = new Map(files.map((name) => [name, new Uint8Array(readFileSync(join(artifact, name)))]));
  const codes = new Map<string, number>();
  const failures: string[] = [];
  let exact = 0;
  let slowest = 0;
  for (let i = 0; i < cases; i++) {
    const random = createRandom(seed + i);
    const name = files[random.below(files.length)]!;
    writeFileSync(join(artifact, name), damage(random, originals.get(name)!, name.endsWith(".json")));
    const started = performance.now();
    try {
      const { tensors } = await openDFloat11(artifact);
      const wrong: string[] = [];
      for (const [tensor, wanted] of weights) {
        const found = tensors.get(tensor);
        // A tensor that is not there is as good as an error: nobody takes other weights for it.
        if (found !== undefined && Buffer.compare((await found.read()).bytes, wanted) !== 0) wrong.push(tensor);
      }
      if (wrong.length === 0) exact++;
      else failures.push(`seed ${seed + i}, ${name}: wrong weights in ${wrong.join(", ")}`);
    } catch (error) {
      if (error instanceof QuantError) codes.set(error.code, (codes.get(error.code) ?? 0) + 1);
      else failures.push(`seed ${seed + i}, ${name}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    }
    slowest = Math.max(slowest, performance.now() - started);
    writeFileSync(join(artifact, name), originals.get(name)!);
  }
  return { cases, exact, codes, slowest, failures };
}
