/**
 * Layouts: how an artifact directory says which module is quantized how, and where its numbers are.
 * @module
 */
import type { QuantScheme, SiteActivations } from "../../core/scheme.ts";
import type { LazyTensor } from "../../core/tensor.ts";
import type { Checkpoint } from "../checkpoint.ts";

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
}

export interface ArtifactLayout {
  readonly name: string;
  /** Whether a parsed config.json says that the directory has this layout. */
  matches(config: Readonly<Record<string, unknown>>): boolean;
  /** Reads small tensors only; weights are read on demand. @throws {FormatError} and {UnsupportedError}. */
  read(checkpoint: Checkpoint): Promise<LayoutReading>;
}
