import { readdirSync, readFileSync } from "node:fs";
import { deflateSync, crc32 } from "node:zlib";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { QuantError } from "../../../core/errors.ts";
import { toFloat32, type Tensor } from "../../../core/tensor.ts";
import { openFileSource } from "../../../formats/containers/bytes.ts";
import { openSafetensors } from "../../../formats/containers/safetensors/read.ts";
import { decodeImage } from "./decode.ts";
import { toRgb } from "./image.ts";
import { parsePreprocessor } from "./preprocessor.ts";
import { preprocessImage } from "./preprocess.ts";
import { resize, type Resampling } from "./resample.ts";

const GOLDENS = new URL("../../../fixtures/goldens/images/", import.meta.url).pathname;
const golden = new Map<string, Tensor>();
const files = readdirSync(GOLDENS).filter((name) => /\.(png|jpg)$/.test(name));
const bytesOf = (name: string): Uint8Array => readFileSync(GOLDENS + name);

beforeAll(async () => {
  const source = await openFileSource(`${GOLDENS}golden.safetensors`);
  for (const [name, tensor] of (await openSafetensors(source)).tensors) golden.set(name, await tensor.read());
  await source.close();
});

test.each(files.filter((name) => name.endsWith(".png")))("%s decodes to Pillow's pixels", (name) => {
  const image = toRgb(decodeImage(bytesOf(name), name));
  const expected = golden.get(`rgb.${name}`)!;
  expect([image.height, image.width, 3]).toEqual(expected.shape);
  expect(Buffer.from(image.data).equals(expected.bytes)).toBe(true);
});

/** Largest and mean difference to libjpeg-turbo, whose inverse transform rounds differently. Subsampled colours are spread without its filter. */
test.each(files.filter((name) => name.endsWith(".jpg")))("%s decodes upright, close to Pillow's pixels", (name) => {
  const image = decodeImage(bytesOf(name), name);
  const expected = golden.get(`rgb.${name}`)!;
  expect([image.height, image.width, 3]).toEqual(expected.shape);
  const differences = Array.from(image.data, (value, i) => Math.abs(value - expected.bytes[i]!));
  expect(Math.max(...differences)).toBeLessThanOrEqual(name.startsWith("subsampled") ? 40 : 4);
  expect(differences.reduce((sum, d) => sum + d, 0) / differences.length).toBeLessThan(name.startsWith("subsampled") ? 6 : 1.5);
});

test("every filter of Pillow gives its pixels bit for bit, up and down, in colour and grey", () => {
  const colour = decodeImage(bytesOf("rgb.png"), "rgb.png");
  const grey = decodeImage(bytesOf("grey.png"), "grey.png");
  const cases = [...golden].filter(([name]) => name.startsWith("resize."));
  expect(cases).toHaveLength(30);
  const wrong = cases.flatMap(([name, { shape, bytes }]) => {
    const [height, width] = shape as [number, number];
    const made = resize(name.endsWith("grey") ? grey : colour, width, height, Number(name.split(".")[1]) as Resampling);
    return Buffer.from(made.data).equals(bytes) ? [] : [name];
  });
  expect(wrong).toEqual([]);
});

const processors = JSON.parse(readFileSync(`${GOLDENS}processors.json`, "utf8")) as Record<string, object>;
test.each(Object.keys(processors))("the %s processor gives transformers' numbers", (name) => {
  const steps = parsePreprocessor(processors[name]!, name);
  const { values, height, width } = preprocessImage(decodeImage(bytesOf("rgb.png"), "rgb.png"), steps, 3, "rgb.png");
  const expected = golden.get(`pixels.${name}`)!;
  expect([3, height, width]).toEqual(expected.shape);
  const wanted = toFloat32(expected);
  const worst = values.reduce((most, value, i) => Math.max(most, Math.abs(value - wanted[i]!) / Math.max(1, Math.abs(wanted[i]!))), 0);
  expect(worst).toBeLessThanOrEqual(1e-6);
});

describe("configurations", () => {
  const parse = (config: object) => parsePreprocessor(config, "p.json");

  test("old spellings mean what their processors meant", () => {
    expect(parse({ feature_extractor_type: "ViTFeatureExtractor", size: 224, do_normalize: false })).toMatchObject({
      resize: { kind: "exact", width: 224, height: 224 },
      resampling: 2,
      rescale: 1 / 255,
    });
    expect(parse({ feature_extractor_type: "CLIPFeatureExtractor", size: 224, crop_size: 200 })).toMatchObject({
      resize: { kind: "shortest", edge: 224 },
      crop: { width: 200, height: 200 },
      resampling: 3,
    });
    expect(parse({ size: { shortest_edge: 384 }, crop_pct: 0.875 }).resize).toEqual({ kind: "exact", width: 384, height: 384 });
  });

  test.each([
    [{ do_resize: true }, "format.config", /size is missing/],
    [{ size: { longest_edge: 500 } }, "format.config", /known forms/],
    [{ size: { height: 1e9, width: 1 } }, "format.config", /size/],
    [{ do_normalize: true, image_mean: [0.5] }, "format.config", /image_std is missing/],
    [{ do_pad: true }, "unsupported.format", /do_pad/],
    [{ resample: 9 }, "format.config", /resample is 9/],
    [{ size: 8, image_mean: "x" }, "format.config", /image_mean/],
  ])("%j is refused with %s", (config, code, message) => {
    expect(() => parse(config)).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });

  test("a mean of another number of channels, a coloured image for one channel and a line of pixels are refused", () => {
    const image = decodeImage(bytesOf("rgb.png"), "rgb.png");
    const run =
      (config: object, channels: 1 | 3, given = image) =>
      () =>
        preprocessImage(given, parse(config), channels, "x");
    expect(run({ image_mean: [0, 0], image_std: [1, 1] }, 3)).toThrow(/3 channels; image_mean and image_std have 2/);
    expect(run({}, 1)).toThrow(/one channel/);
    const line = { width: 60_000, height: 1, channels: 1, data: new Uint8Array(60_000) } as const;
    expect(run({ size: { shortest_edge: 224 } }, 3, line)).toThrow(expect.objectContaining({ code: "input.shape" }));
  });
});

describe("hostile files", () => {
  const chunk = (type: string, data: Uint8Array): Buffer => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const out = Buffer.alloc(body.length + 8);
    out.writeUInt32BE(data.length);
    body.copy(out, 4);
    out.writeUInt32BE(crc32(body), body.length + 4);
    return out;
  };
  const png = (
    width: number,
    height: number,
    depth: number,
    colour: number,
    interlace: number,
    data: Uint8Array,
    extra: Uint8Array[] = [],
  ) => {
    const header = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, depth, colour, 0, 0, interlace]);
    header.writeUInt32BE(width, 0);
    header.writeUInt32BE(height, 4);
    const start = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
    return Buffer.concat([start, chunk("IHDR", header), ...extra, chunk("IDAT", data), chunk("IEND", new Uint8Array(0))]);
  };
  const packed = (bytes: number): Uint8Array => deflateSync(new Uint8Array(bytes));

  test.each([
    ["pixels by the billion", png(2 ** 31 - 1, 2 ** 31 - 1, 8, 0, 0, packed(1)), "format.limit"],
    ["no pixels", png(0, 4, 8, 0, 0, packed(1)), "format.field"],
    ["data that inflates beyond the image", png(4, 4, 8, 0, 0, packed(2 ** 26)), "format.field"],
    ["too little data", png(4, 4, 8, 0, 0, packed(7)), "format.field"],
    ["data that is not deflated", png(4, 4, 8, 0, 0, new Uint8Array(9)), "format.field"],
    ["an unknown colour type", png(4, 4, 8, 5, 0, packed(20)), "format.field"],
    ["a palette image without a palette", png(4, 4, 8, 3, 0, packed(20)), "format.field"],
    [
      "an index outside the palette",
      png(1, 1, 8, 3, 0, deflateSync(Uint8Array.of(0, 9)), [chunk("PLTE", new Uint8Array(3))]),
      "format.field",
    ],
    ["interlaced bits", png(4, 4, 1, 0, 1, packed(20)), "unsupported.format"],
    [
      "a profile that would unpack to gigabytes is not looked at",
      png(4, 4, 8, 0, 0, packed(3), [chunk("iCCP", packed(2 ** 24))]),
      "format.field",
    ],
    ["a GIF", Buffer.from("GIF89a\0\0\0\0"), "unsupported.format"],
    ["nothing", Buffer.alloc(0), "unsupported.format"],
    ["a JPEG of its first bytes", Buffer.from([0xff, 0xd8, 0xff, 0xe0]), "format.field"],
    ["a JPEG of 65,500 squared", Buffer.from("ffd8ffc0001108ffdcffdc03012200021101031101", "hex"), "format.limit"],
  ])("%s: a typed error", (_what, bytes, code) => {
    expect(() => decodeImage(bytes, "x")).toThrow(expect.objectContaining({ code, message: expect.stringContaining("x") }));
  });

  test("changed and cut files give an image or a typed error", () => {
    const originals = ["rgb-interlaced.png", "palette.png", "turned-6.jpg", "progressive.jpg", "grey.jpg"].map(bytesOf);
    let refused = 0;
    fc.assert(
      fc.property(
        fc.constantFrom(...originals),
        fc.array(fc.tuple(fc.nat(3000), fc.nat(255)), { maxLength: 4 }),
        fc.nat(200),
        (original, edits, cut) => {
          const copy = Buffer.from(original.subarray(0, original.length - (cut > 150 ? cut - 150 : 0)));
          for (const [at, value] of edits) copy[at % copy.length] = value;
          try {
            const { width, height, channels, data } = decodeImage(copy, "x");
            expect(data).toHaveLength(width * height * channels);
          } catch (error) {
            refused++;
            expect(error).toBeInstanceOf(QuantError);
          }
        },
      ),
      { seed: 7, numRuns: 600 },
    );
    expect(refused).toBeGreaterThan(100);
  });
});
