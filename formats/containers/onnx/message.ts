/**
 * A protobuf message under construction: bytes, and tensors whose bytes come when it is written.
 * @module
 */
import protobuf from "protobufjs/minimal.js";
import { InputError } from "../../../core/errors.ts";
import type { OnnxInt } from "./model.ts";
import type { OnnxTensor } from "./tensor.ts";

const VARINT = 0;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;

/** Part of a message: bytes as they stand, or those of a tensor. */
export type MessagePart = Uint8Array | OnnxTensor;

/** Fields in the order they are added. */
export class Message {
  #size = 0;
  readonly #parts: MessagePart[] = [];
  #writer = protobuf.Writer.create();

  /** Bytes so far. */
  get size(): number {
    return this.#size + this.#writer.len;
  }

  /** Everything so far, in order. */
  get parts(): readonly MessagePart[] {
    this.#flush();
    return this.#parts;
  }

  /** @throws {InputError} `input.value` unless it is an int64. */
  integer(field: number, value: OnnxInt): void {
    const whole = typeof value === "bigint" ? BigInt.asIntN(64, value) === value : Number.isSafeInteger(value);
    if (!whole) {
      throw new InputError("input.value", `an ONNX integer must be whole and an int64 (beyond 2^53 - 1 as a bigint), got ${value}`, {
        value: String(value),
      });
    }
    this.#tag(field, VARINT).int64(typeof value === "bigint" ? longOf(value) : value);
  }

  float(field: number, value: number): void {
    this.#tag(field, FIXED32).float(value);
  }

  text(field: number, value: string): void {
    this.bytes(field, encodeText(value));
  }

  bytes(field: number, value: Uint8Array): void {
    this.#tag(field, LENGTH_DELIMITED).bytes(value);
  }

  /** A bytes field that holds a tensor's bytes. */
  tensor(field: number, tensor: OnnxTensor): void {
    this.#tag(field, LENGTH_DELIMITED).uint32(tensor.byteLength);
    this.#add(tensor, tensor.byteLength);
  }

  message(field: number, write: (inner: Message) => void): void {
    const inner = new Message();
    write(inner);
    if (inner.#parts.length === 0) {
      this.bytes(field, inner.#writer.finish());
      return;
    }
    // Beyond 2^32 the length is wrong, and nobody asks for the parts of a message that long.
    this.#tag(field, LENGTH_DELIMITED).uint32(inner.size);
    for (const part of inner.parts) this.#add(part, part.byteLength);
  }

  /** Fields that stand as they were read. */
  fields(bytes: Uint8Array): void {
    if (bytes.byteLength > 0) this.#add(bytes, bytes.byteLength);
  }

  #tag(field: number, wireType: number): protobuf.Writer {
    return this.#writer.uint32(field * 8 + wireType);
  }

  #add(part: MessagePart, bytes: number): void {
    this.#flush();
    this.#parts.push(part);
    this.#size += bytes;
  }

  #flush(): void {
    if (this.#writer.len === 0) return;
    this.#size += this.#writer.len;
    this.#parts.push(this.#writer.finish());
    this.#writer = protobuf.Writer.create();
  }
}

function longOf(value: bigint): protobuf.Long {
  const low = Number(BigInt.asIntN(32, value));
  const high = Number(BigInt.asIntN(32, value >> 32n));
  return { low, high, unsigned: false };
}

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** First of the lone surrogates that stand for bytes, less the first byte that needs one. */
const ESCAPE = 0xdc00;

/** UTF-8; U+DC80 to U+DCFF give the bytes 80 to FF, as {@link decodeText} made them. */
export function encodeText(text: string): Uint8Array {
  if (!/\p{Surrogate}/u.test(text)) return ENCODER.encode(text);
  const bytes: number[] = [];
  for (const character of text) {
    const code = character.codePointAt(0)!;
    if (code >= ESCAPE + 0x80 && code <= ESCAPE + 0xff) bytes.push(code - ESCAPE);
    else for (const byte of ENCODER.encode(character)) bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

/** UTF-8 as text; each byte that belongs to no character becomes a lone surrogate, so that nothing is lost. */
export function decodeText(bytes: Uint8Array): string {
  try {
    return DECODER.decode(bytes);
  } catch {
    return decodeEscaped(bytes);
  }
}

function decodeEscaped(bytes: Uint8Array): string {
  const parts: string[] = [];
  let at = 0;
  while (at < bytes.length) {
    const length = characterBytes(bytes[at]!);
    let character: string | undefined;
    try {
      if (length > 0) character = DECODER.decode(bytes.subarray(at, at + length));
    } catch {
      character = undefined;
    }
    parts.push(character ?? String.fromCharCode(ESCAPE + bytes[at]!));
    at += character === undefined ? 1 : length;
  }
  return parts.join("");
}

/** Bytes of the UTF-8 character that begins with `first`; 0 if none does. */
function characterBytes(first: number): number {
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return 2;
  if (first >= 0xe0 && first <= 0xef) return 3;
  return first >= 0xf0 && first <= 0xf4 ? 4 : 0;
}
