/**
 * PNG (W3C PNG specification, third edition): every colour type, 1 to 16 bits, Adam7 from 8 bits.
 *
 * Only the chunks that make the pixels reach the decoder, their data inflated here first: it then cannot unpack to more
 * than the image needs.
 * @module
 */
import { crc32, deflateSync, inflateSync } from "node:zlib";
import { convertIndexedToRgb, decode, type DecodedPng } from "fast-png";
import { FormatError, UnsupportedError } from "../../../core/errors.ts";
import { checkSize, decoding, type Image } from "./image.ts";

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a] as const;
/** Bytes of a pass that Adam7 may begin: seven passes, at most one filter byte a row each. */
const ADAM7_PASSES = 7;

interface Chunk {
  readonly type: string;
  readonly data: Uint8Array;
}

export function isPng(bytes: Uint8Array): boolean {
  return SIGNATURE.every((byte, i) => bytes[i] === byte);
}

/** @throws {FormatError} naming the file; {UnsupportedError} `unsupported.format` for interlaced images of less than 8 bits. */
export function decodePng(bytes: Uint8Array, where: string): Image {
  const chunks = readChunks(bytes, where);
  const header = chunks[0]!;
  if (header.type !== "IHDR" || header.data.length !== 13) throw broken(where, "it does not begin with a header");
  const view = new DataView(header.data.buffer, header.data.byteOffset, 13);
  const [width, height, depth, colour, interlace] = [
    view.getUint32(0),
    view.getUint32(4),
    header.data[8]!,
    header.data[9]!,
    header.data[12]!,
  ];
  checkSize(width, height, where);
  const channels = CHANNELS.get(colour);
  if (channels === undefined || ![1, 2, 4, 8, 16].includes(depth)) throw broken(where, `colour type ${colour} with ${depth} bits`);
  if (interlace !== 0 && depth < 8) {
    throw new UnsupportedError("unsupported.format", `${where} is interlaced with ${depth} bits a pixel; save it without interlacing`, {
      where,
      depth,
    });
  }
  const row = Math.ceil((width * channels * depth) / 8) + 1;
  const most = row * height + (interlace === 0 ? 0 : ADAM7_PASSES * (height + row));
  const packed = Buffer.concat(chunks.filter(({ type }) => type === "IDAT").map(({ data }) => data));
  const raw = decoding(where, () => inflateSync(packed, { maxOutputLength: most }));
  if (raw.length < row * height) throw broken(where, `its pixels take ${raw.length} bytes, not ${row * height}`);
  const kept = chunks.filter(({ type }) => type === "IHDR" || type === "PLTE");
  const file = encodeChunks([...kept, { type: "IDAT", data: deflateSync(raw, { level: 0 }) }, { type: "IEND", data: new Uint8Array(0) }]);
  return decoding(where, () => toImage(decode(file), colour, where));
}

/** Values a pixel has, by colour type. */
const CHANNELS: ReadonlyMap<number, number> = new Map([
  [0, 1],
  [2, 3],
  [3, 1],
  [4, 2],
  [6, 4],
]);

/** Chunks up to the last, checksums checked. */
function readChunks(bytes: Uint8Array, where: string): readonly Chunk[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const chunks: Chunk[] = [];
  for (let at = SIGNATURE.length; ;) {
    if (at + 12 > bytes.length) throw broken(where, `it ends at byte ${bytes.length}, before its last chunk`);
    const length = view.getUint32(at);
    if (length > bytes.length - at - 12) throw broken(where, `a chunk of ${length} bytes at byte ${at} runs over its end`);
    const body = bytes.subarray(at + 4, at + 8 + length);
    if (crc32(body) !== view.getUint32(at + 8 + length)) {
      throw new FormatError("format.checksum", `${where} is damaged: the chunk at byte ${at} fails its checksum`, { where, offset: at });
    }
    const type = String.fromCharCode(...body.subarray(0, 4));
    chunks.push({ type, data: body.subarray(4) });
    if (type === "IEND") return chunks;
    at += 12 + length;
  }
}

function encodeChunks(chunks: readonly Chunk[]): Uint8Array {
  const parts: Uint8Array[] = [Uint8Array.from(SIGNATURE)];
  for (const { type, data } of chunks) {
    const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
    const [length, checksum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    checksum.writeUInt32BE(crc32(body));
    parts.push(length, body, checksum);
  }
  return Buffer.concat(parts);
}

/** 8 bits a value: 16 keep their upper byte, fewer are spread over 0 to 255. */
function toImage(png: DecodedPng, colour: number, where: string): Image {
  const { width, height, depth } = png;
  if (colour === 3) {
    if (png.palette === undefined || png.palette.length === 0) throw broken(where, "it has no palette");
    return { width, height, channels: 3, data: convertIndexedToRgb(png) };
  }
  const channels = CHANNELS.get(colour)!;
  const kept = channels >= 3 ? 3 : 1;
  const data = new Uint8Array(width * height * kept);
  if (depth < 8) {
    const [perByte, most] = [8 / depth, 2 ** depth - 1];
    const row = Math.ceil(width / perByte);
    for (let i = 0; i < data.length; i++) {
      const [x, y] = [i % width, Math.floor(i / width)];
      const byte = png.data[y * row + Math.floor(x / perByte)]!;
      data[i] = (255 / most) * ((byte >> (8 - depth * ((x % perByte) + 1))) & most);
    }
  } else {
    const shift = depth - 8;
    for (let pixel = 0; pixel < width * height; pixel++)
      for (let c = 0; c < kept; c++) data[pixel * kept + c] = png.data[pixel * channels + c]! >> shift;
  }
  return { width, height, channels: kept, data };
}

function broken(where: string, why: string): FormatError {
  return new FormatError("format.field", `${where} is not a sound PNG: ${why}`, { where });
}
