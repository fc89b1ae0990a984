/**
 * Mutated compact files, and what must be true of whatever comes out: a typed error or the exact weights, in bounded time and memory.
 */
import { createHash } from "node:crypto";
import { deflateRawSync, inflateRawSync } from "node:zlib";
import { encodeBf16, encodeFloat, F16 } from "../../core/float.ts";
import { FormatError } from "../../core/errors.ts";
import { createRandom, type Random } from "../../core/random.ts";
import { roundHalfEven } from "../../core/round.ts";
import { lazyOf, tensorOf, type Tensor } from "../../core/tensor.ts";
import { memorySource } from "../../formats/containers/bytes.ts";
import { openCompact } from "../../formats/containers/compact/read.ts";
import { compactSource, encodeCompact } from "../../formats/containers/compact/write.ts";
import { checksum } from "../../formats/encodings/compact/checksum.ts";
import { definition, type BlockCoder } from "../../formats/encodings/compact/coder.ts";
import { createCompactCoder } from "../../kernels/compact/coder.ts";

const FOOTER = 32;

async function createSeeds(): Promise<{ files: readonly Uint8Array[]; tensors: ReadonlyMap<string, Tensor> }> {
  const random = createRandom(11);
  const normal = (count: number): Float64Array => Float64Array.from({ length: count }, () => random.normal() * 0.03);
  const tensors = new Map<string, Tensor>([
    ["bf16", { ...tensorOf(Uint16Array.from(normal(48 * 40), encodeBf16), [48, 40]), dtype: "BF16" }],
    [
      "f16",
      {
        ...tensorOf(
          Uint16Array.from(normal(33 * 33), (x) => encodeFloat(F16, x)),
          [33, 33],
        ),
        dtype: "F16",
      },
    ],
    [
      "codes",
      tensorOf(
        Int8Array.from(normal(6000), (x) => roundHalfEven(200 * x)),
        [60, 100],
      ),
    ],
    [
      "plain",
      tensorOf(
        Uint8Array.from({ length: 400 }, () => random.below(256)),
        [400],
      ),
    ],
    ["copy", { ...tensorOf(new Uint16Array(0), [0]), dtype: "BF16" }],
    // All patterns: escapes, and more of them than a block holds.
    [
      "wild",
      {
        ...tensorOf(
          Uint16Array.from({ length: 2048 }, (_, i) => 32 * i),
          [32, 64],
        ),
        dtype: "BF16",
      },
    ],
  ]);
  tensors.set("copy", { ...tensors.get("bf16")!, bytes: tensors.get("bf16")!.bytes.slice() });
  const source = compactSource([...tensors].map(([name, tensor]) => lazyOf(name, tensor)));
  return { files: [await encodeCompact(source, { level: "max" }), await encodeCompact(source, { level: "fast" })], tensors };
}

const NASTY = [0, 1, 2, 3, 4, 7, 8, 15, 16, 127, 128, 254, 255];

/** Changes a few bytes or words, cuts or repeats a run. */
function mutateBytes(bytes: Uint8Array, random: Random): Uint8Array {
  const out = new Uint8Array(bytes);
  const view = new DataView(out.buffer);
  for (let i = 1 + random.below(3) * random.below(3); i > 0; i--) {
    const at = random.below(out.length);
    switch (random.below(6)) {
      case 0:
        out[at]! ^= 1 << random.below(8);
        break;
      case 1:
        out[at] = NASTY[random.below(NASTY.length)]!;
        break;
      case 2:
        if (at + 4 <= out.length) view.setUint32(at & ~3, random.below(2) === 0 ? 0xffffffff : 2 ** random.below(32), true);
        break;
      case 3:
        out.copyWithin(at, random.below(out.length), random.below(out.length));
        break;
      case 4:
        return out.subarray(0, at);
      default:
        out.fill(NASTY[random.below(NASTY.length)]!, at, at + random.below(64));
    }
  }
  return out;
}

/** A change inside the directory, packed and summed again, so that what lies behind the checksum is tried too. */
function mutateDirectory(file: Uint8Array, random: Random): Uint8Array {
  const footer = new DataView(file.buffer, file.byteOffset + file.length - FOOTER, FOOTER);
  const offset = Number(footer.getBigUint64(0, true));
  const plain = mutateBytes(inflateRawSync(file.subarray(offset, file.length - FOOTER)), random);
  const packed = deflateRawSync(plain);
  const out = new Uint8Array(offset + packed.length + FOOTER);
  out.set(file.subarray(0, offset));
  out.set(packed, offset);
  out.set(file.subarray(file.length - FOOTER), offset + packed.length);
  const numbers = new DataView(out.buffer, offset + packed.length);
  numbers.setUint32(8, packed.length, true);
  numbers.setUint32(12, plain.length, true);
  numbers.setUint32(16, checksum(plain), true);
  return out;
}

export interface CompactFuzzResult {
  readonly cases: number;
  /** Cases in which every tensor of the file was read exactly. */
  readonly accepted: number;
  readonly codes: ReadonlyMap<string, number>;
  /** Longest case, milliseconds. */
  readonly slowest: number;
  readonly failures: readonly string[];
}

/** Runs `cases` mutations. Each is read by the kernels and, one in eight, by the definition, which must judge alike. */
export async function fuzzCompact(cases: number, seed: number): Promise<CompactFuzzResult> {
  const { files, tensors } = await createSeeds();
  const hashes = new Map([...tensors].map(([name, { bytes }]) => [name, createHash("sha256").update(bytes).digest("hex")]));
  const known = new Set(hashes.values());
  const kernels = createCompactCoder();
  const random = createRandom(seed);
  const codes = new Map<string, number>();
  const failures: string[] = [];
  let accepted = 0;
  let slowest = 0;
  /** @returns what came of it: "exact", an error's code, or a complaint. */
  const judge = async (bytes: Uint8Array, coder: BlockCoder, label: string): Promise<readonly string[]> => {
    const outcomes: string[] = [];
    const attempt = async (work: () => Promise<void>): Promise<void> => {
      try {
        await work();
      } catch (error) {
        if (!(error instanceof FormatError)) failures.push(`${label}: ${String(error)}`);
        else outcomes.push(error.code);
      }
    };
    await attempt(async () => {
      const file = await openCompact(memorySource("fuzz", bytes), coder);
      for (const [name, lazy] of file.tensors) {
        await attempt(async () => {
          const found = createHash("sha256")
            .update((await lazy.read()).bytes)
            .digest("hex");
          // The directory's own hashes may be changed with the rest: then what is read must be what they say.
          const { sha256 } = await file.stored(name);
          if (found !== Buffer.from(sha256).toString("hex") || !known.has(found)) failures.push(`${label}: ${name} has other weights`);
          outcomes.push("exact");
        });
      }
    });
    return outcomes;
  };
  for (let i = 0; i < cases; i++) {
    const file = files[random.below(files.length)]!;
    const mutated = random.below(4) === 0 ? mutateDirectory(file, random) : mutateBytes(file, random);
    const started = performance.now();
    const outcomes = await judge(mutated, kernels, `case ${i}`);
    slowest = Math.max(slowest, performance.now() - started);
    if (outcomes.length > 0 && outcomes.every((outcome) => outcome === "exact")) accepted++;
    for (const outcome of outcomes) codes.set(outcome, (codes.get(outcome) ?? 0) + 1);
    if (i % 8 === 0) {
      const slow = await judge(mutated, definition, `case ${i} (definition)`);
      const same = slow.length === outcomes.length && slow.every((outcome, k) => (outcome === "exact") === (outcomes[k] === "exact"));
      if (!same) failures.push(`case ${i}: the definition says ${slow.join()}, the kernels ${outcomes.join()}`);
    }
  }
  return { cases, accepted, codes, slowest, failures };
}
