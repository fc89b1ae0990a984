/**
 * Layouts: how an artifact directory says which module is quantized how, and where its numbers are.
 * @module
 */
import type { QuantScheme, SiteActivations } from "../../core/scheme.ts";
import type { LazyTensor } from "../../core/tensor.ts";
import type { Checkpoint } from "../checkpoint.ts";
import type { Df11Structure } from "../encodings/dfloat11/decode.ts";

/** An artifact, seen as the float model it stands for. */
export interface LayoutReading {
  /** Names of the float model; quantized weights are dequantized when read (F32), everything else is as stored. */
  readonly tensors: ReadonlyMap<string, LazyTensor>;
  /** How activations are quantized when the model runs, by module; modules that leave them alone are absent. */
  readonly activations: ReadonlyMap<string, SiteActivations>;
  /** Scheme of each quantized weight, by module. */
  readonly weights: ReadonlyMap<string, QuantScheme>;
  /** Name of the on-disk format, e.g. "int-quantized". */
  readonly format: string;
  /** The float model's config.json, when it is not the directory's own. */
  readonly config?: Readonly<Record<string, unknown>>;
}

/** Faster ways that higher layers have; without them a layout uses the definitions. */
export interface LayoutTools {
  /**
   * bf16 patterns of elements [from, to) of a DFloat11 unit whose structure has been checked.
   *
   * @param read - bytes [from, to) of one of the unit's two streams.
   */
  readonly decodeDfloat11?: (
    unit: Df11Structure & { readonly name: string },
    range: { readonly from: number; readonly to: number },
    read: (stream: "encoded_exponent" | "sign_mantissa", from: number, to: number) => Promise<Uint8Array>,
  ) => Promise<Uint8Array>;
}

export interface ArtifactLayout {
  readonly name: string;
  /** Whether a parsed config.json says that the directory has this layout. */
  matches(config: Readonly<Record<string, unknown>>): boolean;
  /** Reads small tensors only; weights are read on demand. @throws {FormatError} and {UnsupportedError}. */
  read(checkpoint: Checkpoint, tools?: LayoutTools): Promise<LayoutReading>;
}
