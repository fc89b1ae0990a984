/**
 * Resizing as Pillow does it, bit for bit: antialiased filters in two passes, first along rows, coefficients in fixed point, each pass
 * rounded to 8 bits (Pillow 13, Image.resize without a box).
 * @module
 */
import type { Image } from "./image.ts";

/** Pillow's numbers of its filters, as preprocessor_config.json has them. */
export type Resampling = 0 | 1 | 2 | 3 | 4 | 5;

interface Filter {
  /** Half width, in pixels of the smaller image. */
  readonly support: number;
  weight(distance: number): number;
}

/** Fraction bits of a coefficient: with 8 bits of pixel and 2 of headroom they fill 32. */
const PRECISION = 22;
/** Sharpness of the cubic: Keys' value. */
const CUBIC = -0.5;

const sinc = (x: number): number => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

const FILTERS: Readonly<Record<Exclude<Resampling, 0>, Filter>> = {
  1: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
  2: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  3: {
    support: 2,
    weight(distance) {
      const x = Math.abs(distance);
      if (x < 1) return ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * CUBIC : 0;
    },
  },
  4: { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  5: { support: 1, weight: (x) => (Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x))) },
};

/** @returns the image itself when it has the size already. */
export function resize(image: Image, width: number, height: number, resampling: Resampling): Image {
  if (image.width === width && image.height === height) return image;
  if (resampling === 0) return pickNearest(image, width, height);
  const filter = FILTERS[resampling];
  return resizeColumns(resizeRows(image, width, filter), height, filter);
}

function pickNearest(image: Image, width: number, height: number): Image {
  const { channels } = image;
  const columns = nearestPlaces(image.width, width);
  const rows = nearestPlaces(image.height, height);
  const data = new Uint8Array(width * height * channels);
  let at = 0;
  for (const row of rows) {
    for (const column of columns) {
      const source = (row * image.width + column) * channels;
      for (let c = 0; c < channels; c++) data[at++] = image.data[source + c]!;
    }
  }
  return { width, height, channels, data };
}

/** Steps are added up, not multiplied: at exact halves the two differ. */
function nearestPlaces(from: number, to: number): Int32Array {
  const step = from / to;
  const places = new Int32Array(to);
  let place = step / 2;
  for (let i = 0; i < to; i++, place += step) places[i] = Math.min(Math.floor(place), from - 1);
  return places;
}

/** For each place of the result: its first source pixel, how many, and their coefficients. */
interface Kernels {
  readonly first: Int32Array;
  readonly count: Int32Array;
  readonly size: number;
  /** Fixed point, `size` to a place. */
  readonly weights: Int32Array;
}

function kernelsFor(from: number, to: number, filter: Filter): Kernels {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const support = filter.support * stretch;
  const size = 2 * Math.ceil(support) + 1;
  const kernels = { first: new Int32Array(to), count: new Int32Array(to), size, weights: new Int32Array(to * size) };
  const exact = new Float64Array(size);
  for (let place = 0; place < to; place++) {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const count = Math.min(from, Math.trunc(centre + support + 0.5)) - first;
    let total = 0;
    for (let i = 0; i < count; i++) {
      exact[i] = filter.weight((i + first - centre + 0.5) * (1 / stretch));
      total += exact[i]!;
    }
    for (let i = 0; i < count; i++) {
      const weight = (total === 0 ? exact[i]! : exact[i]! / total) * 2 ** PRECISION;
      kernels.weights[place * size + i] = Math.trunc(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    kernels.first[place] = first;
    kernels.count[place] = count;
  }
  return kernels;
}

function resizeRows(image: Image, width: number, filter: Filter): Image {
  if (image.width === width) return image;
  const { height, channels, data: source } = image;
  const { first, count, size, weights } = kernelsFor(image.width, width, filter);
  const data = new Uint8Array(width * height * channels);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const start = (y * image.width + first[x]!) * channels;
      for (let c = 0; c < channels; c++) {
        let sum = 2 ** (PRECISION - 1);
        for (let i = 0; i < count[x]!; i++) sum += source[start + i * channels + c]! * weights[x * size + i]!;
        data[(y * width + x) * channels + c] = clip(sum);
      }
    }
  }
  return { width, height, channels, data };
}

function resizeColumns(image: Image, height: number, filter: Filter): Image {
  if (image.height === height) return image;
  const { width, channels, data: source } = image;
  const { first, count, size, weights } = kernelsFor(image.height, height, filter);
  const row = width * channels;
  const data = new Uint8Array(row * height);
  const sums = new Float64Array(row);
  for (let y = 0; y < height; y++) {
    sums.fill(2 ** (PRECISION - 1));
    for (let i = 0; i < count[y]!; i++) {
      const weight = weights[y * size + i]!;
      const start = (first[y]! + i) * row;
      for (let x = 0; x < row; x++) sums[x]! += source[start + x]! * weight;
    }
    for (let x = 0; x < row; x++) data[y * row + x] = clip(sums[x]!);
  }
  return { width, height, channels, data };
}

/** Fixed point to 8 bits: the fraction is cut off, the rest kept in range. */
function clip(sum: number): number {
  return Math.min(255, Math.max(0, Math.floor(sum / 2 ** PRECISION)));
}
