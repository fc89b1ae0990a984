/**
 * Images in memory, and what is read at most.
 * @module
 */
import { FormatError } from "../../../core/errors.ts";

/** 8-bit pixels, row by row, channels of a pixel together: 1 (grey) or 3 (red, green, blue). Alpha is dropped. */
export interface Image {
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 3;
  readonly data: Uint8Array;
}

/** Pixels of the largest image that is decoded: a photograph of 64 megapixels. */
export const MAX_PIXELS: number = 2 ** 26;
/** Largest file. */
export const MAX_FILE_BYTES: number = 2 ** 28;

/** @throws {FormatError} `format.limit`, `format.field` for an image without pixels. */
export function checkSize(width: number, height: number, where: string): void {
  if (width < 1 || height < 1) throw new FormatError("format.field", `${where} is ${width} × ${height} pixels`, { where, width, height });
  if (width * height > MAX_PIXELS) {
    throw new FormatError("format.limit", `${where} is ${width} × ${height} pixels; at most ${MAX_PIXELS} in all are decoded`, {
      where,
      width,
      height,
      limit: MAX_PIXELS,
    });
  }
}

/** The same image with three equal channels, or as it is. */
export function toRgb(image: Image): Image {
  if (image.channels === 3) return image;
  const data = new Uint8Array(3 * image.data.length);
  for (const [i, value] of image.data.entries()) data.fill(value, 3 * i, 3 * i + 3);
  return { ...image, channels: 3, data };
}

/** A wrapper for decoders that throw plain errors. @throws {FormatError} `format.field` naming the file. */
export function decoding<T>(where: string, decode: () => T): T {
  try {
    return decode();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FormatError("format.field", `${where} cannot be decoded: ${reason}`, { where }, { cause });
  }
}
