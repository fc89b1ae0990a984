/**
 * An image as the numbers a model is fed: the steps of its processor, in their order.
 * @module
 */
import { InputError } from "../../../core/errors.ts";
import { toRgb, type Image } from "./image.ts";
import type { ImageSteps } from "./preprocessor.ts";
import { resize } from "./resample.ts";

/** Longest side an image may have after resizing: one that is very wide grows with its shorter side. */
const MAX_SIDE = 2 ** 15;

export interface Pixels {
  readonly height: number;
  readonly width: number;
  readonly channels: 1 | 3;
  /** [channels, height, width] */
  readonly values: Float32Array;
}

/**
 * Resize, cut the middle out, rescale, normalize; each as the processors of transformers do on Pillow images.
 *
 * @param channels - what the model takes: grey becomes three equal channels.
 * @param where - for messages.
 * @throws {InputError} `input.shape` for a coloured image where the model takes grey, for an image too narrow to be resized, and for a mean
 *   of another number of channels.
 */
export function preprocessImage(image: Image, steps: ImageSteps, channels: 1 | 3, where: string): Pixels {
  if (image.channels > channels) {
    throw new InputError("input.shape", `${where} is in colour; the model takes one channel: give grey images`, { where });
  }
  const fitted = crop(resizeBy(channels === 3 ? toRgb(image) : image, steps, where), steps);
  const { width, height, data } = fitted;
  const { rescale, normalize } = steps;
  const area = width * height;
  const values = new Float32Array(channels * area);
  const [means, stds] = [normalize?.mean ?? [0], normalize?.std ?? [1]].map((list) => perChannel(list, channels, where)) as [
    readonly number[],
    readonly number[],
  ];
  for (let c = 0; c < channels; c++) {
    const [mean, std] = [Math.fround(means[c]!), Math.fround(stds[c]!)];
    const source = steps.reversesChannels ? channels - 1 - c : c;
    for (let i = 0; i < area; i++) {
      const pixel = data[i * channels + source]!;
      const scaled = rescale === undefined ? pixel : Math.fround(pixel * rescale);
      values[c * area + i] = normalize === undefined ? scaled : Math.fround(scaled - mean) / std;
    }
  }
  return { height, width, channels, values };
}

function perChannel(list: readonly number[], channels: number, where: string): readonly number[] {
  if (list.length === 1) return Array.from({ length: channels }, () => list[0]!);
  if (list.length === channels) return list;
  throw new InputError("input.shape", `${where} has ${channels} channels; image_mean and image_std have ${list.length}`, {
    where,
    channels,
  });
}

function resizeBy(image: Image, { resize: rule, resampling }: ImageSteps, where: string): Image {
  if (rule === undefined) return image;
  if (rule.kind === "exact") return resize(image, rule.width, rule.height, resampling);
  const [short, long] = [Math.min(image.width, image.height), Math.max(image.width, image.height)];
  const longer = Math.trunc((rule.edge * long) / short);
  if (longer > MAX_SIDE) {
    throw new InputError(
      "input.shape",
      `${where} is ${image.width} × ${image.height}: resized to a shorter side of ${rule.edge} it would be ${longer} long`,
      { where, longer },
    );
  }
  return image.width <= image.height ? resize(image, rule.edge, longer, resampling) : resize(image, longer, rule.edge, resampling);
}

/** The middle; beyond the edges of a smaller image it is black. */
function crop(image: Image, { crop: size }: ImageSteps): Image {
  if (size === undefined || (size.width === image.width && size.height === image.height)) return image;
  const [left, top] = [startOf(image.width, size.width), startOf(image.height, size.height)];
  const { channels } = image;
  const data = new Uint8Array(size.width * size.height * channels);
  const first = Math.max(0, left);
  const last = Math.min(image.width, left + size.width);
  for (let y = Math.max(0, top); y < Math.min(image.height, top + size.height); y++) {
    const row = image.data.subarray((y * image.width + first) * channels, (y * image.width + last) * channels);
    data.set(row, ((y - top) * size.width + first - left) * channels);
  }
  return { width: size.width, height: size.height, channels, data };
}

/** First row or column of the middle part; half a pixel over goes before an image that is too small, and behind one that is too large. */
function startOf(from: number, to: number): number {
  return from >= to ? Math.floor((from - to) / 2) : -Math.ceil((to - from) / 2);
}
