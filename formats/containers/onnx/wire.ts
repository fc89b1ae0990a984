/**
 * Protobuf's wire format over a file: fields one after the other, through a window, payloads left where they are.
 * @module
 */
import protobuf from "protobufjs/minimal.js";
import { FormatError } from "../../../core/errors.ts";
import type { SyncByteSource } from "../container.ts";
import { decodeText } from "./message.ts";
import type { OnnxInt } from "./model.ts";

export const VARINT = 0;
export const FIXED64 = 1;
export const LENGTH_DELIMITED = 2;
const START_GROUP = 3;
const END_GROUP = 4;
export const FIXED32 = 5;

/** Bytes read ahead. */
const WINDOW_BYTES = 64 * 2 ** 10;
/** A tag of at most 5 bytes and a varint of at most 10. */
const LONGEST_HEAD = 15;
/** Groups inside one another; ONNX has none. */
const MAX_GROUPS = 100;
/**
 * What the structure of one file may take in memory, in rough bytes: each message counts 256, each of its fields 128,
 * each text and list what it holds. Tensors do not count. Real models of 100,000 nodes take a tenth of it.
 */
const STRUCTURE_LIMIT = 2 ** 30;
const MESSAGE_COST = 256;
const FIELD_COST = 128;
const ENTRY_COST = 16;

/** Bytes from `start` up to `end` of the file. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** One field: `start` and `end` bound its payload, `at` is where its tag begins. */
export interface WireField extends Range {
  readonly number: number;
  readonly wireType: number;
  readonly at: number;
  /** Value of a varint. */
  readonly varint: protobuf.Long;
}

const ZERO = { low: 0, high: 0, unsigned: true } as protobuf.Long;

/** Reads messages of one file. */
export class WireReader {
  readonly #source: SyncByteSource;
  #window = new Uint8Array();
  #from = 0;
  #reader = protobuf.Reader.create(this.#window);
  #structure = 0;

  constructor(source: SyncByteSource) {
    this.#source = source;
  }

  get name(): string {
    return this.#source.name;
  }

  get size(): number {
    return this.#source.size;
  }

  /** The fields of the message in a range. Counts as one message. @throws {FormatError} for what is no protobuf. */
  *fields({ start, end }: Range): Generator<WireField> {
    this.spend(MESSAGE_COST);
    let at = start;
    while (at < end) {
      const field = this.#field(at, end);
      if (field.wireType === END_GROUP) throw this.broken(at, "a group ends that never began");
      yield field;
      at = field.end;
    }
  }

  /** All fields of a message, by number; those of numbers not in `known`, or of another wire type, stay behind as bytes. */
  message(
    range: Range | readonly Range[],
    known: Readonly<Record<string, number>>,
  ): { readonly fields: readonly WireField[]; readonly unknownFields?: Uint8Array } {
    const numbers = new Set(Object.values(known));
    const fields: WireField[] = [];
    const unknown: Uint8Array[] = [];
    for (const piece of "start" in range ? [range] : range) {
      for (const field of this.fields(piece)) {
        this.spend(FIELD_COST);
        if (numbers.has(field.number)) fields.push(field);
        else unknown.push(this.bytes({ start: field.at, end: field.end }));
      }
    }
    return { fields, ...(unknown.length > 0 && { unknownFields: Buffer.concat(unknown) }) };
  }

  /** A copy of the bytes of a range, counted as structure. */
  bytes(range: Range): Uint8Array {
    this.spend(range.end - range.start);
    return this.copy(range);
  }

  /** A copy of the bytes of a range. */
  copy({ start, end }: Range): Uint8Array {
    const out = new Uint8Array(end - start);
    if (start >= this.#from && end <= this.#from + this.#window.byteLength) {
      out.set(this.#window.subarray(start - this.#from, end - this.#from));
    } else this.#source.readIntoSync(start, out);
    return out;
  }

  text(field: WireField): string {
    if (field.wireType !== LENGTH_DELIMITED) throw this.broken(field.at, "a text is not stored as one");
    return decodeText(this.bytes(field));
  }

  integer(field: WireField): OnnxInt {
    if (field.wireType !== VARINT) throw this.broken(field.at, "an integer is not stored as one");
    return integerOf(field.varint);
  }

  /** An integer that must be an int32, such as an enum or a version. */
  small(field: WireField): number {
    const value = this.integer(field);
    if (typeof value === "bigint" || value !== (value | 0)) throw this.broken(field.at, `${value} is no int32`);
    return value;
  }

  float(field: WireField): number {
    if (field.wireType !== FIXED32) throw this.broken(field.at, "a float is not stored as one");
    this.#load(field.start, 4);
    return this.#reader.float();
  }

  /** The varints of a range (a packed field), in order. */
  *varints({ start, end }: Range): Generator<protobuf.Long> {
    let at = start;
    while (at < end) {
      this.#load(at, 10);
      const value = this.#varint(at);
      at = this.#position();
      if (at > end) throw this.broken(start, "a packed field ends inside a number");
      yield value;
    }
  }

  /** Numbers of a repeated int64 field: one by one or packed. */
  *integers(field: WireField): Generator<OnnxInt> {
    if (field.wireType === LENGTH_DELIMITED) {
      for (const value of this.varints(field)) {
        this.spend(ENTRY_COST);
        yield integerOf(value);
      }
    } else yield this.integer(field);
  }

  /** Memory that the model takes, counted up to the limit. @throws {FormatError} `format.limit` */
  spend(cost: number): void {
    this.#structure += cost;
    if (this.#structure <= STRUCTURE_LIMIT) return;
    throw new FormatError("format.limit", `${this.name}: the graph without its tensors takes more than ${STRUCTURE_LIMIT} bytes`, {
      file: this.name,
      limit: STRUCTURE_LIMIT,
    });
  }

  broken(at: number, problem: string): FormatError {
    return new FormatError("format.field", `${this.name}: ${problem} (byte ${at})`, { file: this.name, offset: at });
  }

  #field(at: number, end: number, groups = 0): WireField {
    this.#load(at, LONGEST_HEAD);
    const tag = this.#varint(at);
    if (tag.high !== 0) throw this.broken(at, "a field number is longer than 32 bits");
    const [number, wireType] = [tag.low >>> 3, tag.low & 7];
    if (number === 0) throw this.broken(at, "field number 0");
    let start = this.#position();
    let stop = start;
    let varint = ZERO;
    switch (wireType) {
      case VARINT:
        varint = this.#varint(at);
        stop = this.#position();
        break;
      case FIXED64:
        stop += 8;
        break;
      case FIXED32:
        stop += 4;
        break;
      case LENGTH_DELIMITED: {
        const length = this.#varint(at);
        start = this.#position();
        stop = start + (length.high >>> 0) * 2 ** 32 + (length.low >>> 0);
        break;
      }
      case START_GROUP:
        stop = this.#groupEnd(number, start, end, groups);
        break;
      case END_GROUP:
        break;
      default:
        throw this.broken(at, `wire type ${wireType}`);
    }
    if (stop > end) {
      throw new FormatError("format.truncated", `${this.name}: field ${number} at byte ${at} ends at byte ${stop}, its message at ${end}`, {
        file: this.name,
        offset: at,
        end: stop,
        limit: end,
      });
    }
    return { number, wireType, at, start, end: stop, varint };
  }

  #groupEnd(number: number, start: number, end: number, groups: number): number {
    if (groups >= MAX_GROUPS) throw this.broken(start, `groups nest deeper than ${MAX_GROUPS}`);
    let at = start;
    while (at < end) {
      const field = this.#field(at, end, groups + 1);
      at = field.end;
      if (field.wireType !== END_GROUP) continue;
      if (field.number !== number) throw this.broken(field.at, `group ${number} ends as ${field.number}`);
      return at;
    }
    throw this.broken(start, `group ${number} never ends`);
  }

  /** Put the reader at `at` with `length` bytes ahead, as far as the file goes. */
  #load(at: number, length: number): void {
    const inside = at >= this.#from && at + length <= this.#from + this.#window.byteLength;
    if (!inside) {
      const take = Math.min(Math.max(length, WINDOW_BYTES), this.#source.size - at);
      this.#window = new Uint8Array(Math.max(0, take));
      this.#source.readIntoSync(at, this.#window);
      this.#from = at;
      this.#reader = protobuf.Reader.create(this.#window);
    }
    this.#reader.pos = at - this.#from;
  }

  #position(): number {
    return this.#from + this.#reader.pos;
  }

  #varint(at: number): protobuf.Long {
    try {
      return this.#reader.uint64();
    } catch (cause) {
      const ended = this.#reader.pos >= this.#reader.len;
      throw new FormatError(
        ended ? "format.truncated" : "format.field",
        `${this.name}: ${ended ? "the file ends inside a number" : "a number is longer than 10 bytes"} (byte ${at})`,
        { file: this.name, offset: at },
        { cause },
      );
    }
  }
}

/** A varint as int64. */
export function integerOf({ low, high }: protobuf.Long): OnnxInt {
  const value = (high | 0) * 2 ** 32 + (low >>> 0);
  return Number.isSafeInteger(value) ? value : (BigInt(high | 0) << 32n) | BigInt(low >>> 0);
}

/** The payload of a field that must be a message. */
export function message(reader: WireReader, field: WireField): Range {
  if (field.wireType !== LENGTH_DELIMITED) throw reader.broken(field.at, `field ${field.number} is not stored as a message`);
  return field;
}
