/**
 * Weights as integer codes: rows of output channels in runs that share a scale, in the dialects that ONNX graphs hold.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { roundHalfAway, roundHalfEven } from "../../core/round.ts";

/**
 * How a run of weights becomes a scale.
 *
 * - `absmax`: scale max|w| / (2^(b-1) - 1), codes -(2^(b-1)-1) to 2^(b-1)-1, half to even: onnxruntime's QInt8.
 * - `extreme`: scale e / -2^(b-1), e the value of largest size (of two equal ones the negative): MatMulNBits as onnxruntime writes it.
 * - `affine`: scale (max - min) / (2^b - 1) of the range widened to hold 0, zero point -min / scale rounded half away from zero.
 */
export type RowDialect = "absmax" | "extreme" | "affine";

/** How rows are quantized. */
export interface RowScheme {
  /** 2 to 8. */
  readonly bits: number;
  /** Weights a scale, counted along a row; the last run of a row may be shorter. */
  readonly group: number;
  readonly dialect: RowDialect;
  /** Try smaller and larger scales around the dialect's and keep the one of least squared error. */
  readonly search: boolean;
  /** Weights of the squared errors that a search adds up, by column. */
  readonly importance?: Float32Array;
  /** `absmax`: the codes of columns 2i and 2i + 1 of a row never add up to more than `sum` in magnitude. */
  readonly pairs?: PairLimit;
}

/** A bound on what two neighbours of a row add up to. */
export interface PairLimit {
  readonly sum: number;
  /** Columns a row, where several rows share one scale. */
  readonly width: number;
}

/** Rows as codes. Codes and zeros count from 0; two's complement codes are those less 2^(bits-1). */
export interface RowCodes {
  /** Shape [rows, cols]. */
  readonly codes: Uint8Array;
  /** Shape [rows, groups]. */
  readonly scales: Float32Array;
  /** Shape [rows, groups]. */
  readonly zeros: Uint8Array;
  readonly groups: number;
  /** Σ w² and Σ (w - ŵ)². */
  readonly signal: number;
  readonly noise: number;
}

/** Multiples of the dialect's scale that a search tries, beside 1. */
const TRIAL_STEPS = 24;
const TRIAL_LOW = 0.6;
const TRIAL_HIGH = 1.2;

const f32 = Math.fround;

/**
 * Quantize rows.
 *
 * @param values - shape [rows, cols], finite; not changed.
 * @throws {InputError} `input.value` for NaN and infinity.
 */
export function quantizeRows(values: Float32Array, rows: number, cols: number, scheme: RowScheme): RowCodes {
  const group = Math.min(scheme.group, Math.max(cols, 1));
  const groups = Math.max(1, Math.ceil(cols / group));
  const codes = new Uint8Array(rows * cols);
  const scales = new Float32Array(rows * groups);
  const zeros = new Uint8Array(rows * groups);
  const trial = new Uint8Array(group);
  let signal = 0;
  let noise = 0;
  for (let row = 0; row < rows; row++) {
    for (let g = 0; g < groups; g++) {
      const from = row * cols + g * group;
      const run = values.subarray(from, Math.min(from + group, (row + 1) * cols));
      const out = codes.subarray(from, from + run.length);
      const base = rangeScale(run, scheme);
      let best = base;
      let noiseOfRun = encodeRun(run, best, scheme, out);
      if (scheme.search && base.scale !== 0) {
        const { importance } = scheme;
        const weigh = (scale: RunScale, part: Uint8Array, plain: number): number =>
          importance === undefined ? plain : weightedError(run, scale, part, importance.subarray(g * group));
        let error = weigh(best, out, noiseOfRun);
        for (let step = 0; step < TRIAL_STEPS; step++) {
          const factor = TRIAL_LOW + ((TRIAL_HIGH - TRIAL_LOW) * step) / (TRIAL_STEPS - 1);
          const other = scaledBy(base, factor);
          const part = trial.subarray(0, run.length);
          const plain = encodeRun(run, other, scheme, part);
          const found = weigh(other, part, plain);
          if (found < error) {
            error = found;
            noiseOfRun = plain;
            best = other;
            out.set(part);
          }
        }
      }
      scales[row * groups + g] = best.scale;
      zeros[row * groups + g] = best.zero;
      noise += noiseOfRun;
      for (let i = 0; i < run.length; i++) signal += run[i]! * run[i]!;
    }
  }
  if (!Number.isFinite(signal)) throw new InputError("input.value", "the weight holds NaN or infinity; such a weight has no scale");
  return { codes, scales, zeros, groups, signal, noise };
}

interface RunScale {
  readonly scale: number;
  readonly zero: number;
}

/** The dialect's scale of a run, all in f32. */
function rangeScale(run: Float32Array, { bits, dialect }: RowScheme): RunScale {
  let min = Infinity;
  let max = -Infinity;
  for (let i = 0; i < run.length; i++) {
    const value = run[i]!;
    if (value < min) min = value;
    if (value > max) max = value;
  }
  const half = 2 ** (bits - 1);
  switch (dialect) {
    case "absmax":
      return { scale: f32(Math.max(Math.abs(min), Math.abs(max)) / (half - 1)), zero: half };
    case "extreme":
      return { scale: f32((Math.abs(max) > Math.abs(min) ? max : min) / -half), zero: half };
    case "affine": {
      const low = Math.min(0, min);
      const scale = f32(f32(Math.max(0, max) - low) / (2 * half - 1));
      return { scale, zero: scale === 0 ? 0 : clamp(roundHalfAway(f32(-low / scale)), 0, 2 * half - 1) };
    }
    default:
      return dialect satisfies never;
  }
}

/** A scale times `factor`, the code that means 0 unmoved: both ends of the range shrink or grow alike. */
function scaledBy({ scale, zero }: RunScale, factor: number): RunScale {
  return { scale: f32(scale * factor), zero };
}

/** Codes of a run into `out`; @returns the squared error. */
function encodeRun(run: Float32Array, { scale, zero }: RunScale, { bits, dialect, pairs }: RowScheme, out: Uint8Array): number {
  const top = 2 ** bits - 1;
  const bottom = dialect === "absmax" ? 1 : 0;
  if (scale === 0) {
    out.fill(zero);
    let lost = 0;
    for (let i = 0; i < run.length; i++) lost += run[i]! * run[i]!;
    return lost;
  }
  const reciprocal = f32(1 / scale);
  let error = 0;
  for (let i = 0; i < run.length; i++) {
    const value = run[i]!;
    let code: number;
    if (dialect === "extreme") code = Math.floor(f32(f32(f32(value * reciprocal) + zero) + 0.5));
    else if (dialect === "absmax") code = roundHalfEven(f32(value / scale)) + zero;
    else code = roundHalfAway(f32(f32(value / scale) + zero));
    code = code < bottom ? bottom : code > top ? top : code;
    out[i] = code;
    const difference = value - (code - zero) * scale;
    error += difference * difference;
  }
  return pairs === undefined ? error : error + limitPairs(run, scale, zero, pairs, out);
}

/** Bring pairs that add up to too much onto the limit, each pair to its nearest point there; @returns the squared error this adds. */
function limitPairs(run: Float32Array, scale: number, zero: number, { sum, width }: PairLimit, out: Uint8Array): number {
  const most = zero - 1;
  let added = 0;
  for (let row = 0; row < run.length; row += width) {
    for (let i = row; i + 1 < Math.min(row + width, run.length); i += 2) {
      const [a, b] = [out[i]! - zero, out[i + 1]! - zero];
      if (Math.abs(a + b) <= sum) continue;
      const total = a + b > 0 ? sum : -sum;
      const [x, y] = [run[i]! / scale, run[i + 1]! / scale];
      const first = clamp(roundHalfEven(x + (total - x - y) / 2), Math.max(-most, total - most), Math.min(most, total + most));
      const second = total - first;
      added += ((x - first) ** 2 + (y - second) ** 2 - (x - a) ** 2 - (y - b) ** 2) * scale * scale;
      out[i] = first + zero;
      out[i + 1] = second + zero;
    }
  }
  return added;
}

function weightedError(run: Float32Array, { scale, zero }: RunScale, codes: Uint8Array, importance: Float32Array): number {
  let error = 0;
  for (let i = 0; i < run.length; i++) error += importance[i]! * (run[i]! - (codes[i]! - zero) * scale) ** 2;
  return error;
}

function clamp(x: number, low: number, high: number): number {
  return x < low ? low : x > high ? high : x;
}

/** The values of rows again, shape [rows, cols]. */
export function decodeRows({ codes, scales, zeros, groups }: RowCodes, rows: number, cols: number, group: number): Float32Array {
  const out = new Float32Array(rows * cols);
  const width = Math.min(group, Math.max(cols, 1));
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) {
      const g = row * groups + Math.floor(col / width);
      out[row * cols + col] = (codes[row * cols + col]! - zeros[g]!) * scales[g]!;
    }
  }
  return out;
}

/** A tensor's layout with one axis brought to the front: [outer, channels, inner] ↔ [channels, outer · inner]. */
export interface RowLayout {
  readonly rows: number;
  readonly cols: number;
  readonly outer: number;
  readonly inner: number;
}

/** @param axis - of the output channels; undefined: the whole tensor is one row. */
export function rowLayout(shape: readonly number[], axis: number | undefined): RowLayout {
  const count = shape.reduce((product, size) => product * size, 1);
  if (axis === undefined) return { rows: 1, cols: count, outer: 1, inner: count };
  const rows = shape[axis]!;
  const inner = shape.slice(axis + 1).reduce((product, size) => product * size, 1);
  return { rows, cols: rows === 0 ? 0 : count / rows, outer: shape.slice(0, axis).reduce((product, size) => product * size, 1), inner };
}

/** Values in row order; the same array when they are so already. */
export function toRows<T extends Float32Array | Uint8Array>(values: T, { rows, cols, outer, inner }: RowLayout): T {
  if (outer === 1) return values;
  const out = values.slice() as T;
  for (let o = 0; o < outer; o++) {
    for (let row = 0; row < rows; row++) {
      const from = (o * rows + row) * inner;
      const to = row * cols + o * inner;
      for (let i = 0; i < inner; i++) out[to + i] = values[from + i]!;
    }
  }
  return out;
}

/** Inverse of {@link toRows}. */
export function fromRows<T extends Float32Array | Uint8Array>(values: T, { rows, cols, outer, inner }: RowLayout): T {
  if (outer === 1) return values;
  const out = values.slice() as T;
  for (let o = 0; o < outer; o++) {
    for (let row = 0; row < rows; row++) {
      const to = (o * rows + row) * inner;
      const from = row * cols + o * inner;
      for (let i = 0; i < inner; i++) out[to + i] = values[from + i]!;
    }
  }
  return out;
}

/** Codes of `bits` (2, 4 or 8) packed along each row of `width` codes, first in the low bits; a row's last byte is filled with `fill`. */
export function packRows(codes: Uint8Array, width: number, bits: number, fill: number): Uint8Array {
  if (bits === 8) return codes;
  const perByte = 8 / bits;
  const bytes = Math.ceil(width / perByte);
  const rows = width === 0 ? 0 : codes.length / width;
  const out = new Uint8Array(rows * bytes);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < bytes * perByte; i++) {
      const code = (i < width ? codes[row * width + i]! : fill) & (2 ** bits - 1);
      const at = row * bytes + Math.floor(i / perByte);
      out[at] = out[at]! | (code << (bits * (i % perByte)));
    }
  }
  return out;
}

/** Codes that count from 0, of `bits`, as two's complement of a byte, one a byte. */
export function toSigned(codes: Uint8Array, bits: number): Uint8Array {
  const half = 2 ** (bits - 1);
  return codes.map((code) => (code - half) & 255);
}
