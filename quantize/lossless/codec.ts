/**
 * Lossless codecs: how the weights of one unit become stored tensors, and back.
 *
 * A codec runs in a worker thread and sees one unit. It reads the unit in
 * strips and never holds all of it, so memory does not grow with the unit.
 * Work has two steps. `survey` reads the unit once and says what will be
 * stored, with exact sizes, or why it cannot be; files are laid out from that.
 * `encode` reads it again, writes the stored tensors, and decodes every strip it
 * wrote before it goes on.
 * @module
 */
import type { TensorSpec } from "../../formats/containers/container.ts";
import type { JobContext } from "../../kernels/pool.ts";

export type CodecName = "df11" | "compact-max" | "compact-fast";

/** A tensor whose bytes are read piece by piece. */
export interface ReadableTensor extends TensorSpec {
  readonly byteLength: number;
  /** Fill `out` with the bytes from `offset` on. `out` may lie in shared memory. */
  readInto(offset: number, out: Uint8Array): Promise<void>;
}

/** The weights of one unit, in stream order. */
export interface SourceUnit {
  /** Module path, e.g. "model.layers.3". */
  readonly name: string;
  readonly tensors: readonly ReadableTensor[];
}

/** What a codec found out about a unit; plain data that crosses threads. */
export type UnitSurvey =
  | {
      /** Stored tensors by full name; their sizes are exact. */
      readonly stored: readonly TensorSpec[];
      /** Whatever `encode` needs again, as structured-clone data. */
      readonly state: unknown;
    }
  | {
      /** Why the codec (or the loader it writes for) cannot hold the unit: a stable word and a sentence. */
      readonly refusal: { readonly reason: string; readonly text: string };
    };

export type HeldSurvey = Extract<UnitSurvey, { stored: unknown }>;

/** Where stored tensors go. Every byte of every stored tensor is written once, in any order. */
export interface UnitSink {
  /** `bytes` may be reused by the caller once the promise resolves. */
  write(tensor: string, offset: number, bytes: Uint8Array): Promise<void>;
  /** Fill `out` with bytes that were written, from where they are. */
  read(tensor: string, offset: number, out: Uint8Array): Promise<void>;
}

/** A unit as stored: tensors by full name. */
export type StoredUnit = ReadonlyMap<string, ReadableTensor>;

/** Takes decoded bytes: of member `tensor` (by index), from byte `offset` on, in order. `bytes` may be reused afterwards. */
export type DecodedSink = (tensor: number, offset: number, bytes: Uint8Array) => Promise<void> | void;

/** A part of a stored unit that can be decoded apart; plain data. */
export interface UnitPart {
  /** Of each member, in order, the bytes that the part holds. */
  readonly runs: readonly { readonly member: number; readonly offset: number; readonly bytes: number }[];
  /** Whatever `decode` needs, as structured-clone data. */
  readonly state: unknown;
}

export interface UnitCodec {
  readonly name: CodecName;
  readonly summary: string;
  /** Whether a tensor of this dtype and shape may be in a unit. */
  accepts(spec: TensorSpec): boolean;
  survey(unit: SourceUnit, context: JobContext): Promise<UnitSurvey>;
  /**
   * @param onSource - sees the source bytes of each member in order, for hashing.
   * @throws {VerifyError} `verify.mismatch` when what was written does not decode to what was read.
   */
  encode(unit: SourceUnit, survey: HeldSurvey, sink: UnitSink, context: JobContext, onSource: DecodedSink): Promise<void>;
  /**
   * @param members - the unit's tensors in stream order, with source dtype and shape.
   * @param part - of it; all of the unit when absent.
   * @throws {FormatError} naming the unit, for bytes that are not a unit; flipped bits that decode are found by the caller's checksums.
   */
  decode(
    name: string,
    stored: StoredUnit,
    members: readonly TensorSpec[],
    context: JobContext,
    emit: DecodedSink,
    part?: UnitPart,
  ): Promise<void>;
  /** Parts of at most about `bytes` decoded bytes. @throws {FormatError} as `decode`, for what is seen without decoding. */
  split(name: string, stored: StoredUnit, members: readonly TensorSpec[], bytes: number): Promise<readonly UnitPart[]>;
}
