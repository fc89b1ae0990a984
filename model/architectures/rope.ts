/**
 * Rotary position embeddings: the inverse frequencies of every scaling that transformers
 * knows for these architectures, and the cosine and sine tables as graph values.
 * Formulas follow transformers 5.17 `modeling_rope_utils`, in f32 step by step as there:
 * an angle is position × frequency, so one bit of a frequency is many bits of a late angle.
 * @module
 */
import { UnsupportedError } from "../../core/errors.ts";
import { lazyFloat } from "../../core/tensor.ts";
import type { BlockWriter } from "./block-writer.ts";
import { isPositive, type ConfigReader } from "./config.ts";

/** One variant of rotary embedding, as data. `size` channels of each head rotate. */
export type Rope = RopeBase &
  (
    | { readonly kind: "fixed"; readonly scaling: FixedScaling }
    /** NTK: the base grows with sequences longer than `maxPositions`. */
    | { readonly kind: "dynamic"; readonly factor: number; readonly maxPositions: number }
    /** Divisors per frequency: `long` when the sequence is longer than `original`. */
    | {
        readonly kind: "longrope";
        readonly short: readonly number[];
        readonly long: readonly number[];
        readonly original: number;
        readonly attention: number;
      }
  );

interface RopeBase {
  readonly size: number;
  readonly theta: number;
}

export type FixedScaling =
  | { readonly type: "default" }
  | { readonly type: "linear"; readonly factor: number }
  | { readonly type: "llama3"; readonly factor: number; readonly low: number; readonly high: number; readonly original: number }
  | {
      readonly type: "yarn";
      readonly factor: number;
      readonly fast: number;
      readonly slow: number;
      readonly truncate: boolean;
      readonly original: number;
      readonly attention: number;
    };

const { fround } = Math;

/** theta^(2i/size) for i in 0 .. size/2, each rounded to f32 as torch computes it. */
function powers(theta: number, size: number): number[] {
  return Array.from({ length: Math.ceil(size / 2) }, (_, i) => fround(theta ** fround((2 * i) / size)));
}

/** Inverse frequencies, f32 [size / 2], for `fixed` ropes and as the unscaled base of the others. */
export function inverseFrequencies(theta: number, size: number, scaling: FixedScaling): Float32Array {
  const plain = powers(theta, size).map((power) => fround(1 / power));
  switch (scaling.type) {
    case "default":
      return Float32Array.from(plain);
    case "linear":
      return Float32Array.from(plain, (frequency) => frequency / scaling.factor);
    case "llama3":
      return Float32Array.from(plain, (frequency) => scaleLlama3(frequency, scaling));
    case "yarn":
      return scaleYarn(theta, size, scaling);
    default:
      return scaling satisfies never;
  }
}

/** Long wavelengths are divided by the factor, short ones kept, those between interpolated. */
function scaleLlama3(frequency: number, { factor, low, high, original }: FixedScaling & { type: "llama3" }): number {
  const wavelength = fround((2 * Math.PI) / frequency);
  if (wavelength > original / low) return frequency / factor;
  if (wavelength < original / high) return frequency;
  const smooth = fround(fround(fround(original / wavelength) - low) / (high - low));
  return fround(fround(fround(fround(1 - smooth) * frequency) / factor) + fround(smooth * frequency));
}

/** YaRN (arXiv 2309.00071): a linear ramp from kept to divided frequencies between two numbers of rotations. */
function scaleYarn(theta: number, size: number, { factor, fast, slow, truncate, original }: FixedScaling & { type: "yarn" }): Float32Array {
  const dimension = (rotations: number): number => (size * Math.log(original / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  const lowest = truncate ? Math.floor(dimension(fast)) : dimension(fast);
  const highest = truncate ? Math.ceil(dimension(slow)) : dimension(slow);
  const from = Math.max(lowest, 0);
  const least = Math.min(highest, size - 1);
  const to = from === least ? least + 0.001 : least;
  return Float32Array.from(powers(theta, size), (power, i) => {
    const ramp = Math.min(1, Math.max(0, fround(fround(i - from) / fround(to - from))));
    const kept = fround(1 - ramp);
    return fround(fround(1 / fround(factor * power)) * fround(1 - kept)) + fround(fround(1 / power) * kept);
  });
}

/** Where a family keeps its rotary settings. */
export interface RopeOptions {
  readonly headSize: number;
  readonly maxPositions: number;
  /** Base when config.json names none. */
  readonly theta: number;
  /** Share of a head's channels that rotate; 1 unless the family has partial rotation. */
  readonly partial?: number;
  /** Spellings of scaling types that mean another one in this family. */
  readonly aliases?: Readonly<Record<string, string>>;
  /** `original_max_position_embeddings` of the family when absent at the top of config.json. */
  readonly original?: number;
}

/**
 * The rope of `settings` (`rope_parameters` of transformers 5 or `rope_scaling` before it; undefined = default).
 *
 * @throws {FormatError} `format.config`
 * @throws {UnsupportedError} `unsupported.architecture` for a scaling type outside the list.
 */
export function readRope(config: ConfigReader, settings: ConfigReader | undefined, options: RopeOptions): Rope {
  const theta = settings?.optionalPositive("rope_theta") ?? options.theta;
  const size = Math.floor(options.headSize * (options.partial ?? 1));
  if (size < 2 || size % 2 !== 0) config.fail("head_dim", `a head whose ${size} rotating channels make pairs`);
  if (settings === undefined) return { kind: "fixed", size, theta, scaling: { type: "default" } };
  const written = settings.text(settings.firstOf(["rope_type", "type"]), "default");
  const type = options.aliases !== undefined && Object.hasOwn(options.aliases, written) ? options.aliases[written]! : written;
  const original = (): number =>
    config.optionalSize("original_max_position_embeddings") ??
    options.original ??
    settings.optionalSize("original_max_position_embeddings") ??
    options.maxPositions;
  switch (type) {
    case "default":
      return { kind: "fixed", size, theta, scaling: { type } };
    case "linear":
      return { kind: "fixed", size, theta, scaling: { type, factor: settings.positive("factor") } };
    case "llama3": {
      const low = settings.positive("low_freq_factor");
      const high = settings.positive("high_freq_factor");
      if (high <= low) settings.fail("high_freq_factor", `a number above low_freq_factor ${low}`);
      return { kind: "fixed", size, theta, scaling: { type, factor: settings.positive("factor"), low, high, original: original() } };
    }
    case "yarn":
      return { kind: "fixed", size, theta, scaling: readYarn(settings, theta, original(), options.maxPositions) };
    case "dynamic":
      if (size <= 2) config.fail("head_dim", "more than 2 rotating channels for dynamic rope scaling");
      return { kind: "dynamic", size, theta, factor: settings.positive("factor"), maxPositions: options.maxPositions };
    case "longrope":
      return { size, theta, ...readLongrope(settings, size, original(), options.maxPositions) };
    default:
      throw new UnsupportedError(
        "unsupported.architecture",
        `rope type "${written}" is not known; known are default, linear, dynamic, llama3, yarn, longrope`,
        { ropeType: written },
      );
  }
}

function readYarn(settings: ConfigReader, theta: number, original: number, maxPositions: number): FixedScaling & { type: "yarn" } {
  const factor = settings.optionalPositive("factor") ?? maxPositions / original;
  const mscale = settings.optionalPositive("mscale");
  const mscaleAll = settings.optionalPositive("mscale_all_dim");
  if (theta <= 1) settings.fail("rope_theta", "a base above 1 for yarn");
  const magnitude = (scale: number): number => (factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1);
  const implied = mscale !== undefined && mscaleAll !== undefined ? magnitude(mscale) / magnitude(mscaleAll) : magnitude(1);
  return {
    type: "yarn",
    factor,
    fast: settings.optionalPositive("beta_fast") ?? 32,
    slow: settings.optionalPositive("beta_slow") ?? 1,
    truncate: settings.flag("truncate", true),
    original,
    attention: settings.optionalPositive("attention_factor") ?? implied,
  };
}

function readLongrope(
  settings: ConfigReader,
  size: number,
  original: number,
  maxPositions: number,
): { kind: "longrope"; short: readonly number[]; long: readonly number[]; original: number; attention: number } {
  const divisors = (key: string): readonly number[] => {
    const list = settings.list(key, isPositive, "numbers above 0");
    return list?.length === size / 2 ? list : settings.fail(key, `a list of ${size / 2} numbers, one for each pair of rotating channels`);
  };
  const factor = settings.optionalPositive("factor") ?? maxPositions / original;
  const implied = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original));
  const attention = settings.optionalPositive("attention_factor") ?? implied;
  if (!Number.isFinite(attention)) settings.fail("original_max_position_embeddings", "a length above 1");
  return {
    kind: "longrope",
    short: divisors("short_factor"),
    long: divisors("long_factor"),
    original,
    attention,
  };
}

/** Names of the cosine and sine values of one rope. */
export interface RopeTables {
  readonly cos: string;
  readonly sin: string;
}

/**
 * Write cosine and sine tables of a rope.
 *
 * @param positions - value I64 [batch, sequence].
 * @param suffix - appended to "cos" and "sin", when a model has several ropes.
 * @returns values F32 [batch, sequence, size / 2], as the RotaryEmbedding operator takes them.
 */
export function ropeTables(writer: BlockWriter, positions: string, rope: Rope, suffix = ""): RopeTables {
  const { graph } = writer;
  const frequencies = writeFrequencies(writer, positions, rope, suffix);
  const place = graph.op("Unsqueeze", [graph.op("Cast", [positions], { to: ONNX_FLOAT }), graph.int64([2])]);
  const angle = graph.op("Mul", [place, frequencies]);
  const attention =
    rope.kind === "longrope" ? rope.attention : rope.kind === "fixed" && rope.scaling.type === "yarn" ? rope.scaling.attention : 1;
  const table = (op: "Cos" | "Sin", output: string): string =>
    attention === 1 ? graph.op(op, [angle], {}, output) : graph.op("Mul", [graph.op(op, [angle]), graph.float32(attention)], {}, output);
  return { cos: table("Cos", `cos${suffix}`), sin: table("Sin", `sin${suffix}`) };
}

function writeFrequencies(writer: BlockWriter, positions: string, rope: Rope, suffix: string): string {
  const { graph } = writer;
  const { theta, size } = rope;
  const slot = (name: string, compute: () => Float32Array): string =>
    writer.derived(
      `rotary${suffix}.${name}`,
      lazyFloat(`rotary${suffix}.${name}`, [size / 2], async () => compute()),
    );
  const plain = (): Float32Array => inverseFrequencies(theta, size, { type: "default" });
  const length = (): string => graph.op("Add", [graph.op("ReduceMax", [positions], { keepdims: 0 }), graph.int64(1)]);
  switch (rope.kind) {
    case "fixed":
      return slot("inv_freq", () => inverseFrequencies(theta, size, rope.scaling));
    case "longrope": {
      const divided = (divisors: readonly number[]) => (): Float32Array =>
        Float32Array.from(powers(theta, size), (power, i) => 1 / fround(fround(divisors[i]!) * power));
      const isLong = graph.op("Greater", [length(), graph.int64(rope.original)]);
      return graph.op("Where", [isLong, slot("long_inv_freq", divided(rope.long)), slot("short_inv_freq", divided(rope.short))]);
    }
    case "dynamic": {
      // The grown base is theta · growth^(size / (size - 2)), so frequency i shrinks by growth^(2i / (size - 2)).
      const { factor, maxPositions } = rope;
      const effective = graph.op("Max", [length(), graph.int64(maxPositions)]);
      const ratio = graph.op("Mul", [graph.op("Cast", [effective], { to: ONNX_FLOAT }), graph.float32(factor / maxPositions)]);
      const growth = graph.op("Sub", [ratio, graph.float32(factor - 1)]);
      const exponents = slot("growth_exponents", () => Float32Array.from({ length: size / 2 }, (_, i) => (-2 * i) / (size - 2)));
      return graph.op("Mul", [slot("inv_freq", plain), graph.op("Pow", [growth, exponents])]);
    }
    default:
      return rope satisfies never;
  }
}

/** `TensorProto.DataType` number for Cast. */
const ONNX_FLOAT = 1;
