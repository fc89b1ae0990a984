/**
 * Images as tokens: a convolution over patches, a learned token in front, learned positions.
 * @module
 */
import { FormatError } from "../../core/errors.ts";
import type { BlockWriter } from "./block-writer.ts";
import type { ConfigReader } from "./config.ts";

/** Images and the grid that cuts them. */
export interface PatchGrid {
  readonly channels: number;
  readonly image: number;
  readonly patch: number;
  /** Patches of an image. */
  readonly patches: number;
}

/** @throws {FormatError} `format.config` when the patches do not fit the image. */
export function readPatchGrid(config: ConfigReader, defaults: { readonly image: number; readonly patch: number }): PatchGrid {
  const image = config.size("image_size", defaults.image);
  const patch = config.size("patch_size", defaults.patch);
  if (patch > image) {
    throw new FormatError("format.config", `config.json: patch_size is ${patch}, larger than image_size ${image}`, { patch, image });
  }
  return { channels: config.size("num_channels", 3), image, patch, patches: Math.floor(image / patch) ** 2 };
}

/** Slots of the embedding's tensors. */
export interface PatchNames {
  /** Convolution [hidden, channels, patch, patch]. */
  readonly projection: string;
  readonly bias: boolean;
  /** The token in front: slot and stored shape. */
  readonly token: readonly [slot: string, shape: readonly number[]];
  /** Positions, the token's first: slot and stored shape. */
  readonly positions: readonly [slot: string, shape: readonly number[]];
}

/**
 * Declare the input "pixel_values" F32 [batch, channels, image, image] and embed it. The convolution stays float in artifacts of
 * linear layers; quantizers of ONNX files find it in the exported graph.
 *
 * @returns value [batch, 1 + patches, hidden].
 */
export function patchEmbeddings(writer: BlockWriter, { channels, image, patch }: PatchGrid, hidden: number, names: PatchNames): string {
  const { graph } = writer;
  const pixels = graph.input("pixel_values", "F32", ["batch", channels, image, image]);
  const kernel = writer.weight(`${names.projection}.weight`, [hidden, channels, patch, patch]);
  const inputs = names.bias ? [pixels, kernel, writer.weight(`${names.projection}.bias`, [hidden])] : [pixels, kernel];
  const grid = graph.op("Conv", inputs, { kernel_shape: [patch, patch], strides: [patch, patch] });
  const patches = graph.op("Transpose", [graph.op("Reshape", [grid, graph.int64([0, hidden, -1])])], { perm: [0, 2, 1] });
  const batch = graph.op("Shape", [pixels], { start: 0, end: 1 });
  const token = graph.op("Reshape", [writer.weight(...names.token), graph.int64([1, 1, hidden])]);
  const front = graph.op("Expand", [token, graph.op("Concat", [batch, graph.int64([1, 1])], { axis: 0 })]);
  return graph.op("Add", [graph.op("Concat", [front, patches], { axis: 1 }), writer.weight(...names.positions)]);
}
