/**
 * Writes ONNX models: to memory with every tensor inline, or to a file with large tensors inline or beside it.
 * @module
 */
import { basename, join, dirname } from "node:path";
import { InputError } from "../../../core/errors.ts";
import { replaceFile, writeFully } from "../atomic.ts";
import { encodeModel, type ExternalPlace, type ExternalPlaces } from "./encode.ts";
import type { MessagePart } from "./message.ts";
import type { OnnxModel } from "./model.ts";
import type { OnnxTensor } from "./tensor.ts";
import { initializersOf } from "./tensors.ts";

/** Longest message that protobuf readers accept (they count in i32). */
const MESSAGE_LIMIT_BYTES = 2 ** 31 - 1;
/** Tensor bytes beyond which a file gets external data unasked. */
const INLINE_LIMIT_BYTES = 1_900_000_000;
/** Smaller tensors stay inline: shapes and scalars, which shape inference must see. */
const EXTERNAL_FROM_BYTES = 1024;
/** Tensors in external data begin at multiples of this, so that they can be mapped. */
const ALIGNMENT = 4096;

/** How large tensors are stored. */
export interface OnnxWriteOptions {
  /** "auto" (default): external when the source had external data or the tensors exceed 1.9 GB. */
  readonly external?: "auto" | "always" | "never";
}

/**
 * The bytes of a ModelProto with every tensor inline. Equal models give equal bytes; entries keep the order they are given in.
 *
 * @throws {UnsupportedError} `unsupported.dtype` for a dtype that ONNX lacks.
 * @throws {InputError} `input.value` when the message is longer than protobuf allows (2 GiB) or a tensor is not in memory.
 */
export function encodeOnnxModel(model: OnnxModel): Uint8Array {
  const { parts, size } = encodeModel(model, new Map());
  assertLength(size);
  const out = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    const bytes = part instanceof Uint8Array ? part : part.bytes;
    if (bytes === undefined) throw new InputError("input.value", "a tensor of the model is not in memory; write it to a file instead");
    out.set(bytes, at);
    at += bytes.byteLength;
  }
  return out;
}

/** The same of a model whose tensors may be on disk: read one at a time, into their place. @throws as {@link encodeOnnxModel}, and what reading throws. */
export async function readOnnxBytes(model: OnnxModel): Promise<Uint8Array> {
  const { parts, size } = encodeModel(model, new Map());
  assertLength(size);
  const out = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    const bytes = await bytesOf(part);
    out.set(bytes, at);
    at += bytes.byteLength;
  }
  return out;
}

/**
 * Write a model to `path`, and with external data the tensors of at least 1 KiB to `<path>_data`. Tensors are read one at a
 * time. Each file appears whole or not at all, the data first.
 *
 * @returns the files written.
 * @throws as {@link encodeOnnxModel}, and what reading the tensors throws.
 */
export async function writeOnnxModel(path: string, model: OnnxModel, options: OnnxWriteOptions = {}): Promise<readonly string[]> {
  const places = isExternal(model, options.external ?? "auto") ? placeTensors(model, `${basename(path)}_data`) : new Map<never, never>();
  const { parts, size } = encodeModel(model, places);
  assertLength(size);
  const files: string[] = [];
  if (places.size > 0) {
    const data = join(dirname(path), `${basename(path)}_data`);
    await replaceFile(data, async (handle) => {
      let at = 0;
      for (const [tensor, { offset }] of places) {
        await writeFully(handle, new Uint8Array(offset - at));
        await writeFully(handle, await bytesOf(tensor));
        at = offset + tensor.byteLength;
      }
    });
    files.push(data);
  }
  await replaceFile(path, async (handle) => {
    for (const part of parts) await writeFully(handle, await bytesOf(part));
  });
  return [path, ...files];
}

async function bytesOf(part: MessagePart): Promise<Uint8Array> {
  return part instanceof Uint8Array ? part : (part.bytes ?? (await part.read()));
}

function assertLength(bytes: number): void {
  if (bytes <= MESSAGE_LIMIT_BYTES) return;
  throw new InputError(
    "input.value",
    `an ONNX file holds at most ${MESSAGE_LIMIT_BYTES} bytes, this one needs ${bytes}; use external data`,
    {
      bytes,
      limit: MESSAGE_LIMIT_BYTES,
    },
  );
}

function isExternal({ graph }: OnnxModel, wanted: "auto" | "always" | "never"): boolean {
  if (wanted !== "auto") return wanted === "always";
  let bytes = 0;
  for (const tensor of initializersOf(graph)) {
    if (tensor.external !== undefined) return true;
    bytes += tensor.byteLength;
  }
  return bytes > INLINE_LIMIT_BYTES;
}

function placeTensors({ graph }: OnnxModel, location: string): ExternalPlaces {
  const places = new Map<OnnxTensor, ExternalPlace>();
  let end = 0;
  for (const tensor of initializersOf(graph)) {
    if (tensor.byteLength < EXTERNAL_FROM_BYTES || tensor.dtype === "STRING" || places.has(tensor)) continue;
    const offset = Math.ceil(end / ALIGNMENT) * ALIGNMENT;
    places.set(tensor, { location, offset });
    end = offset + tensor.byteLength;
  }
  return places;
}
