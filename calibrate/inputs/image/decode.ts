/**
 * Image files by their first bytes.
 * @module
 */
import { UnsupportedError } from "../../../core/errors.ts";
import { decodeJpeg, isJpeg } from "./jpeg.ts";
import type { Image } from "./image.ts";
import { decodePng, isPng } from "./png.ts";

const DECODERS = [
  { is: isPng, decode: decodePng },
  { is: isJpeg, decode: decodeJpeg },
] as const;

/** @throws {FormatError} for damaged files, {UnsupportedError} `unsupported.format` for what is neither PNG nor JPEG. */
export function decodeImage(bytes: Uint8Array, where: string): Image {
  const decoder = DECODERS.find(({ is }) => is(bytes));
  if (decoder !== undefined) return decoder.decode(bytes, where);
  throw new UnsupportedError("unsupported.format", `${where} is neither PNG nor JPEG; convert it to one of them`, { where });
}
