/**
 * PNG and JPEG files → the model's image input, prepared as its `preprocessor_config.json` says.
 * @module
 */
import { readFile, stat } from "node:fs/promises";
import { FormatError, InputError } from "../../core/errors.ts";
import { fromFloat32, type Tensor } from "../../core/tensor.ts";
import type { ValueType } from "../../model/graph/graph.ts";
import { describeInput } from "../../model/match-inputs.ts";
import { decodeImage } from "./image/decode.ts";
import { MAX_FILE_BYTES } from "./image/image.ts";
import { preprocessImage, type Pixels } from "./image/preprocess.ts";
import type { InputItem, SourceContext } from "./source.ts";

const PIXELS = "pixel_values";
const FLOATS: readonly string[] = ["F32", "F16", "BF16", "F64"];

/** Where an image goes, and in which order of axes. */
interface ImageInput {
  readonly input: ValueType;
  readonly channels: 1 | 3;
  readonly channelsLast: boolean;
}

/** @throws {InputError} `input.option` for a model without an image input; what reading, decoding and preparing the file throw. */
export async function listImage(path: string, context: SourceContext): Promise<readonly InputItem[]> {
  const target = imageInput(context.inputs, path);
  const steps = await context.imageSteps();
  const read = async (): Promise<ReadonlyMap<string, Tensor>> => {
    const { size } = await stat(path);
    if (size > MAX_FILE_BYTES) {
      throw new FormatError("format.limit", `${path} has ${size} bytes; at most ${MAX_FILE_BYTES} are decoded`, { path, size });
    }
    const pixels = preprocessImage(decodeImage(await readFile(path), path), steps, target.channels, path);
    return new Map([[target.input.name, toTensor(pixels, target)]]);
  };
  return [{ where: path, rows: 1, read }];
}

/** The input named `pixel_values`, else the only one of four axes with one or three channels. */
function imageInput(inputs: readonly ValueType[], path: string): ImageInput {
  const found = inputs.flatMap((input): ImageInput[] => {
    const { dtype, shape } = input;
    if (!FLOATS.includes(dtype) || shape.length !== 4) return [];
    const [first, last] = [shape[1], shape[3]];
    if (first === 1 || first === 3) return [{ input, channels: first, channelsLast: false }];
    if (last === 1 || last === 3) return [{ input, channels: last, channelsLast: true }];
    return typeof first === "string" ? [{ input, channels: 3, channelsLast: false }] : [];
  });
  const chosen = found.find(({ input }) => input.name === PIXELS) ?? (found.length === 1 ? found[0] : undefined);
  if (chosen !== undefined) return chosen;
  const expected = inputs.map(describeInput);
  throw new InputError(
    "input.option",
    `${path} is an image; the model has ${found.length === 0 ? "no input" : "several inputs"} for images [batch, channels, height, width]: it takes ${expected.join(", ")}`,
    { path, expected },
  );
}

function toTensor({ height, width, channels, values }: Pixels, { input, channelsLast }: ImageInput): Tensor {
  if (!channelsLast) return fromFloat32(values, [1, channels, height, width], input.dtype);
  const area = height * width;
  const turned = new Float32Array(values.length);
  for (let i = 0; i < area; i++) for (let c = 0; c < channels; c++) turned[i * channels + c] = values[c * area + i]!;
  return fromFloat32(turned, [1, height, width, channels], input.dtype);
}
