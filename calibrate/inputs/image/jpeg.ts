/**
 * JPEG: baseline and progressive, turned upright as its EXIF orientation says.
 * @module
 */
import jpeg from "jpeg-js";
import { FormatError } from "../../../core/errors.ts";
import { checkSize, decoding, MAX_PIXELS, type Image } from "./image.ts";

/** Memory the decoder may take: coefficients of 64 megapixels in three channels. */
const MAX_MEMORY_MB = 2048;
const ORIENTATION = 0x0112;

export function isJpeg(bytes: Uint8Array): boolean {
  return bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff;
}

/** @throws {FormatError} naming the file. */
export function decodeJpeg(bytes: Uint8Array, where: string): Image {
  const { width, height, orientation } = readHeader(bytes, where);
  checkSize(width, height, where);
  const decoded = decoding(where, () =>
    jpeg.decode(bytes, {
      useTArray: true,
      formatAsRGBA: false,
      tolerantDecoding: false,
      maxResolutionInMP: Math.ceil(MAX_PIXELS / 1e6),
      maxMemoryUsageInMB: MAX_MEMORY_MB,
    }),
  );
  if (decoded.width !== width || decoded.height !== height || decoded.data.length !== 3 * width * height) {
    throw broken(where, `its header says ${width} × ${height}, its data ${decoded.width} × ${decoded.height}`);
  }
  return turn({ width, height, channels: 3, data: decoded.data }, orientation);
}

/** Size and orientation from the segments before the first scan. */
function readHeader(bytes: Uint8Array, where: string): { width: number; height: number; orientation: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let orientation = 1;
  for (let at = 2; at + 4 <= bytes.length;) {
    if (bytes[at] !== 0xff) throw broken(where, `no segment begins at byte ${at}`);
    const marker = bytes[at + 1]!;
    if (marker === 0xff) {
      at++;
      continue;
    }
    const length = view.getUint16(at + 2);
    if (length < 2 || at + 2 + length > bytes.length) throw broken(where, `a segment of ${length} bytes at byte ${at} runs over its end`);
    const isFrame = marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc;
    if (isFrame && length >= 8) return { height: view.getUint16(at + 5), width: view.getUint16(at + 7), orientation };
    if (marker === 0xe1) orientation = readOrientation(bytes.subarray(at + 4, at + 2 + length)) ?? orientation;
    if (marker === 0xda || marker === 0xd9) break;
    at += 2 + length;
  }
  throw broken(where, "it has no frame");
}

/** The orientation of an EXIF segment (TIFF 6.0, section 2; EXIF 2.3, tag 274), if it has one. */
function readOrientation(segment: Uint8Array): number | undefined {
  if (segment.length < 14 || Buffer.from(segment.subarray(0, 6)).toString("latin1") !== "Exif\0\0") return undefined;
  const tiff = new DataView(segment.buffer, segment.byteOffset + 6, segment.byteLength - 6);
  const little = tiff.getUint16(0) === 0x4949;
  const start = tiff.getUint32(4, little);
  if (start + 2 > tiff.byteLength) return undefined;
  const count = tiff.getUint16(start, little);
  for (let i = 0; i < count; i++) {
    const entry = start + 2 + 12 * i;
    if (entry + 12 > tiff.byteLength) return undefined;
    if (tiff.getUint16(entry, little) === ORIENTATION) return tiff.getUint16(entry + 8, little);
  }
  return undefined;
}

/** Orientation 2 to 8: where the first row and column of the file belong. Others leave the image as it is. */
function turn(image: Image, orientation: number): Image {
  if (orientation < 2 || orientation > 8) return image;
  const { width, height, data } = image;
  const isTransposed = orientation >= 5;
  const [w, h] = isTransposed ? [height, width] : [width, height];
  const fromRight = orientation === 2 || orientation === 3 || orientation === 7 || orientation === 8;
  const fromBottom = orientation === 3 || orientation === 4 || orientation === 6 || orientation === 7;
  const out = new Uint8Array(data.length);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const [column, row] = isTransposed ? [y, x] : [x, y];
      const source = (fromBottom ? height - 1 - row : row) * width + (fromRight ? width - 1 - column : column);
      for (let c = 0; c < 3; c++) out[(y * w + x) * 3 + c] = data[source * 3 + c]!;
    }
  }
  return { width: w, height: h, channels: 3, data: out };
}

function broken(where: string, why: string): FormatError {
  return new FormatError("format.field", `${where} is not a sound JPEG: ${why}`, { where });
}
