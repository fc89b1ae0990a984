/**
 * Mutated bitwright artifacts: every read gives weights of the right count or a typed error.
 *
 * Bytes of the safetensors file and of the config are changed, cut, moved, or replaced by numbers that parsers fear.
 */
import { bfp, NVFP4, parseBlockFormat } from "../../core/blocks/format.ts";
import { quantizeBlocks } from "../../core/blocks/quantize.ts";
import { QuantError } from "../../core/errors.ts";
import { createRandom, type Random } from "../../core/random.ts";
import { elementCount } from "../../core/dtype.ts";
import type { Tensor } from "../../core/tensor.ts";
import { memorySource } from "../../formats/containers/bytes.ts";
import { openSafetensors } from "../../formats/containers/safetensors/read.ts";
import { encodeSafetensors } from "../../formats/containers/safetensors/write.ts";
import { bitwrightConfig, encodeBitwright, readBitwrightModules, type BitwrightModule } from "../../formats/layouts/bitwright/bitwright.ts";

export interface FuzzReport {
  /** Cases in which every weight could be read. */
  readonly read: number;
  readonly codes: ReadonlyMap<string, number>;
  readonly slowest: number;
  readonly failures: readonly string[];
}

function makeArtifact(): { readonly file: Uint8Array; readonly config: string } {
  const random = createRandom(5);
  const formats = [
    bfp(4),
    bfp(11, 16),
    bfp(8),
    bfp(16),
    parseBlockFormat("mxfp6")!,
    parseBlockFormat("mxfp4")!,
    parseBlockFormat("mxfp8")!,
    NVFP4,
  ];
  const tensors = new Map<string, Tensor>();
  const modules = formats.map((format, i): BitwrightModule => {
    const [rows, cols] = [3 + i, 40];
    const quantized = quantizeBlocks(
      Float32Array.from({ length: rows * cols }, () => random.normal()),
      rows,
      cols,
      format,
    );
    const module = { name: `layer.${i}`, shape: [rows, cols], channelAxis: 0, weight: quantized.scheme, activations: {} } as const;
    for (const [name, tensor] of encodeBitwright(module, quantized)) tensors.set(name, tensor);
    return module;
  });
  return { file: encodeSafetensors(tensors), config: JSON.stringify(bitwrightConfig(modules)) };
}

const FEARED = ["0", "-1", "1e308", "4294967296", "9007199254740993", "null", '"x"', "[]", "{}", "1.5", "17", '"__proto__"'];

function damageText(random: Random, text: string): string {
  const numbers = [...text.matchAll(/-?\d+|"[a-z0-9_]+"/g)];
  let out = text;
  for (let i = 0, changes = 1 + random.below(2); i < changes && out.length > 0; i++) {
    const kind = random.below(4);
    const at = random.below(out.length);
    if (kind === 0) out = out.slice(0, at);
    else if (kind === 1) out = out.slice(0, at) + String.fromCharCode(32 + random.below(90)) + out.slice(at + 1);
    else {
      const match = numbers[random.below(numbers.length)]!;
      out = out.slice(0, match.index) + FEARED[random.below(FEARED.length)]! + out.slice(match.index + match[0].length);
    }
  }
  return out;
}

function damageBytes(random: Random, original: Uint8Array): Uint8Array {
  const bytes = original.slice();
  const header = 8 + new DataView(bytes.buffer).getUint32(0, true);
  for (let i = 0, changes = 1 + random.below(4); i < changes; i++) {
    const at = random.below(2) === 0 ? random.below(header) : random.below(bytes.length);
    switch (random.below(4)) {
      case 0:
        bytes[at] = random.below(256);
        break;
      case 1:
        bytes.fill(random.below(2) * 255, at, at + random.below(64));
        break;
      case 2:
        bytes.copyWithin(at, random.below(bytes.length), random.below(bytes.length));
        break;
      default:
        return bytes.slice(0, at);
    }
  }
  return bytes;
}

/** @param cases - artifacts to damage. @param seed - of the damage. */
export async function fuzzBitwright(cases: number, seed: number): Promise<FuzzReport> {
  const { file, config } = makeArtifact();
  const codes = new Map<string, number>();
  const failures: string[] = [];
  let [read, slowest] = [0, 0];
  for (let i = 0; i < cases; i++) {
    const random = createRandom(seed + i);
    const inText = random.below(2) === 0;
    const bytes = inText ? file : damageBytes(random, file);
    const text = inText ? damageText(random, config) : config;
    const started = performance.now();
    try {
      let parsed: unknown;
      try {
        parsed = JSON.parse(text);
      } catch {
        // Text that is no JSON never reaches the reader of the layout.
        continue;
      }
      const container = await openSafetensors(memorySource("fuzz", bytes));
      for (const module of readBitwrightModules(container.tensors, parsed)) {
        const weights = await module.readFloat();
        if (weights.length !== elementCount(module.shape))
          failures.push(`case ${i}: ${weights.length} weights for ${JSON.stringify(module.shape)}`);
      }
      read++;
    } catch (error) {
      if (error instanceof QuantError) codes.set(error.code, (codes.get(error.code) ?? 0) + 1);
      else failures.push(`case ${i}: ${String(error)}`);
    }
    slowest = Math.max(slowest, performance.now() - started);
  }
  return { read, codes, slowest, failures };
}
