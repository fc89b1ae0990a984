/**
 * `preprocessor_config.json`: what a Hugging Face image processor does to an image, as steps.
 *
 * Spellings of transformers 2 to 5 are read; keys of steps that are not known here are refused where they are switched on.
 * @module
 */
import { readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { FormatError, InputError, UnsupportedError } from "../../../core/errors.ts";
import type { Resampling } from "./resample.ts";

const FILE = "preprocessor_config.json";
/** Where transformers 5 keeps it for models with several processors. */
const SHARED_FILE = "processor_config.json";
const MAX_FILE_BYTES = 2 ** 20;
/** Largest side of what a model is fed. */
const MAX_SIDE = 8192;

/** What an error about a missing file shows: the ViT of its authors. */
export const EXAMPLE_CONFIG =
  '{"do_resize": true, "size": {"height": 224, "width": 224}, "resample": 2, "do_rescale": true, "rescale_factor": 0.00392156862745098, ' +
  '"do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}';

export type ResizeRule =
  | { readonly kind: "exact"; readonly width: number; readonly height: number }
  /** The shorter side becomes `edge`, the longer follows. */
  | { readonly kind: "shortest"; readonly edge: number };

export interface ImageSteps {
  readonly resize?: ResizeRule;
  readonly resampling: Resampling;
  readonly crop?: { readonly width: number; readonly height: number };
  /** Multiplies pixels of 0 to 255. */
  readonly rescale?: number;
  /** One number for each channel, or one for all. */
  readonly normalize?: { readonly mean: readonly number[]; readonly std: readonly number[] };
  /** Blue first. */
  readonly reversesChannels: boolean;
}

const side = z.number().int().min(1).max(MAX_SIDE);
const sizeSchema = z.union([
  side,
  z.tuple([side, side]),
  z.object({ height: side, width: side, shortest_edge: z.null().optional(), longest_edge: z.null().optional() }),
  z.object({ shortest_edge: side, longest_edge: z.null().optional() }),
]);
const flag = z.boolean().nullish();
const channels = z.union([z.number(), z.array(z.number()).min(1).max(4)]);
const schema = z.object({
  image_processor_type: z.string().nullish(),
  feature_extractor_type: z.string().nullish(),
  do_resize: flag,
  size: sizeSchema.nullish(),
  resample: z.number().int().min(0).max(5).nullish(),
  crop_pct: z.number().gt(0).max(1).nullish(),
  do_center_crop: flag,
  crop_size: sizeSchema.nullish(),
  do_rescale: flag,
  rescale_factor: z.number().nullish(),
  do_normalize: flag,
  image_mean: channels.nullish(),
  image_std: channels.nullish(),
  do_flip_channel_order: flag,
});
type Config = z.infer<typeof schema>;

/** Switches of steps that are not done here. */
const UNKNOWN_STEPS = [
  "do_pad",
  "do_thumbnail",
  "do_align_long_axis",
  "do_crop_margin",
  "do_image_splitting",
  "do_color_quantize",
  "rescale_offset",
  "ensure_multiple_of",
  "keep_aspect_ratio",
  "size_divisor",
];
/** Processors for which a plain number is the shorter side. */
const SHORTEST = /CLIP|ConvNext|MobileNet|MobileViT|Poolformer|Vilt|VideoMAE|Bit/i;
/** Processors that resize by Pillow's bicubic filter when nothing is said. */
const BICUBIC = /CLIP|DeiT|Siglip|Beit|Bit|Dino|Blip/i;
/** Size from which a processor with `crop_pct` crops nothing. */
const UNCROPPED = 384;

/**
 * The steps of the processor beside a model: in its directory, or above it where the model lies in a folder `onnx`.
 *
 * @throws {InputError} `input.path` when there is none, with an example.
 * @throws {FormatError} `format.config` for a file that breaks its schema, {UnsupportedError} `unsupported.format` for steps not known.
 */
export async function readPreprocessor(directory: string | undefined): Promise<ImageSteps> {
  const places = directory === undefined ? [] : [directory, dirname(directory)];
  for (const place of places) {
    const own = await readObject(join(place, FILE));
    if (own !== undefined) return parsePreprocessor(own, join(place, FILE));
    const shared = await readObject(join(place, SHARED_FILE));
    const inner = shared === undefined || !Object.hasOwn(shared, "image_processor") ? undefined : shared["image_processor"];
    if (typeof inner === "object" && inner !== null) return parsePreprocessor(inner, `${join(place, SHARED_FILE)}: image_processor`);
  }
  throw new InputError(
    "input.path",
    `images are given, but there is no ${FILE} beside the model (looked in ${places.join(", ") || "no directory: the model is in memory"}); ` +
      `write one that says how its images were prepared, e.g. ${EXAMPLE_CONFIG}, or give arrays (.npz, .npy) that are prepared already`,
    { file: FILE, places },
  );
}

async function readObject(path: string): Promise<Record<string, unknown> | undefined> {
  const size = await stat(path).then(
    (facts) => facts.size,
    () => undefined,
  );
  if (size === undefined) return undefined;
  if (size > MAX_FILE_BYTES) {
    throw new FormatError("format.limit", `${path} has ${size} bytes; at most ${MAX_FILE_BYTES} are read`, { path, size });
  }
  let value: unknown;
  try {
    value = JSON.parse(await readFile(path, "utf8"));
  } catch (cause) {
    throw new FormatError("format.config", `${path} is not JSON: ${(cause as Error).message}`, { path }, { cause });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new FormatError("format.config", `${path} holds no object`, { path });
}

/** @param where - for messages. @throws as {@link readPreprocessor}. */
export function parsePreprocessor(value: object, where: string): ImageSteps {
  const unknown = UNKNOWN_STEPS.find((key) => Object.hasOwn(value, key) && isOn((value as Record<string, unknown>)[key]));
  if (unknown !== undefined) {
    throw new UnsupportedError("unsupported.format", `${where}: ${unknown} is not done here; give prepared arrays (.npz, .npy) instead`, {
      where,
      key: unknown,
    });
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    const given = JSON.stringify((value as Record<string, unknown>)[String(issue.path[0])]);
    throw new FormatError(
      "format.config",
      `${where}: ${issue.path.join(".")} is ${given}: ${issue.message}; known forms of a size: 224, {"height": 224, "width": 224}, {"shortest_edge": 224}`,
      { where, path: issue.path },
    );
  }
  return stepsOf(parsed.data, where);
}

function isOn(value: unknown): boolean {
  return value !== undefined && value !== null && value !== false && value !== 0 && value !== 1;
}

function stepsOf(config: Config, where: string): ImageSteps {
  const type = config.image_processor_type ?? config.feature_extractor_type ?? "";
  const { size, crop_size: cropSize, image_mean: mean, image_std: std } = config;
  const need = (key: keyof Config, because: keyof Config): never => {
    throw new FormatError("format.config", `${where}: ${because} is on, but ${key} is missing`, { where, missing: key });
  };
  const resizes = config.do_resize ?? (size !== undefined && size !== null);
  const crops = config.do_center_crop ?? (cropSize !== undefined && cropSize !== null);
  const normalizes = config.do_normalize ?? (mean !== undefined && mean !== null);
  const rule = resizes ? resizeRule(size ?? need("size", "do_resize"), SHORTEST.test(type)) : undefined;
  const cut = config.crop_pct ?? undefined;
  const byFraction = cut !== undefined && rule?.kind === "shortest" ? cropByFraction(rule.edge, cut) : undefined;
  const crop = crops ? exactSize(cropSize ?? need("crop_size", "do_center_crop"), where) : byFraction?.crop;
  const resize = byFraction?.resize ?? rule;
  return {
    ...(resize && { resize }),
    resampling: (config.resample ?? (BICUBIC.test(type) ? 3 : 2)) as Resampling,
    ...(crop && { crop }),
    ...(config.do_rescale !== false && { rescale: config.rescale_factor ?? 1 / 255 }),
    ...(normalizes && {
      normalize: { mean: asList(mean ?? need("image_mean", "do_normalize")), std: asList(std ?? need("image_std", "do_normalize")) },
    }),
    reversesChannels: config.do_flip_channel_order === true,
  };
}

function resizeRule(size: NonNullable<Config["size"]>, shortest: boolean): ResizeRule {
  if (typeof size === "number") return shortest ? { kind: "shortest", edge: size } : { kind: "exact", width: size, height: size };
  if (Array.isArray(size)) return { kind: "exact", height: size[0], width: size[1] };
  return "height" in size ? { kind: "exact", height: size.height, width: size.width } : { kind: "shortest", edge: size.shortest_edge };
}

function exactSize(size: NonNullable<Config["crop_size"]>, where: string): { width: number; height: number } {
  const rule = resizeRule(size, false);
  if (rule.kind === "exact") return { width: rule.width, height: rule.height };
  throw new FormatError("format.config", `${where}: crop_size has a shortest_edge; give {"height": …, "width": …}`, { where });
}

/** ConvNeXt: small images are cut from a larger one, large ones are squeezed. */
function cropByFraction(edge: number, fraction: number): { resize: ResizeRule; crop?: { width: number; height: number } } {
  if (edge >= UNCROPPED) return { resize: { kind: "exact", width: edge, height: edge } };
  return { resize: { kind: "shortest", edge: Math.trunc(edge / fraction) }, crop: { width: edge, height: edge } };
}

function asList(value: number | readonly number[]): readonly number[] {
  return typeof value === "number" ? [value] : value;
}
