/**
 * Sources of named inputs: files → samples that are read when it is their turn.
 * @module
 */
import type { Tensor } from "../../core/tensor.ts";
import type { ValueType } from "../../model/graph/graph.ts";
import type { ImageSteps } from "./image/preprocessor.ts";

/** Some samples of one file that are read together. */
export interface InputItem {
  /** For messages: the file, or the file and its line. */
  readonly where: string;
  /** Samples: rows along the batch axis of every tensor, or 1 for everything as it is. */
  readonly rows: number;
  /** The inputs by name, of all rows. */
  read(): Promise<ReadonlyMap<string, Tensor>>;
}

/** What a source may know of the model. */
export interface SourceContext {
  readonly inputs: readonly ValueType[];
  /** The steps of the model's image processor. @throws where there is none. */
  readonly imageSteps: () => Promise<ImageSteps>;
}

/** A file → its items, in order. Reads no more than is needed to count them. */
export type InputSource = (path: string, context: SourceContext) => Promise<readonly InputItem[]>;
