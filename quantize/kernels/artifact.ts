/**
 * `--kernels` of a run in block formats: which site the self-test reads, and its bytes in the file just written.
 *
 * bitwright and compressed-tensors directories store the same bytes: rows of codes as bit streams and a scale byte a block.
 * @module
 */
import { open, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { blockFormatOf, requireBlockFormat } from "../../core/blocks/format.ts";
import { decodeScales } from "../../core/blocks/quantize.ts";
import { byteLength } from "../../core/dtype.ts";
import { FormatError, InputError } from "../../core/errors.ts";
import type { QuantizedTensor } from "../../core/quantized.ts";
import { schemeName, type QuantScheme } from "../../core/scheme.ts";
import { unpackElements, unpackMantissas } from "../../formats/encodings/blocks.ts";
import { blockBits } from "../../kernels/blocks/blocks.ts";
import type { SiteTensor } from "../exports/export.ts";
import type { OutputLayout } from "../output-layout.ts";
import { PARTIAL } from "../output-directory.ts";
import { blockSelfTest, checkBlockKernels, emitBlockKernels, type Place } from "./emit.ts";

/** Rows of a large weight in a self-test: enough of them to be this many elements. */
const TEST_ELEMENTS = 2 ** 20;

/**
 * Whether kernels can be written for a run, before it starts.
 *
 * @param weights - schemes of all sites that are quantized.
 * @throws {InputError} `input.option` for a language without kernels, and where no site is in a block format.
 */
export function checkKernelRecipe(names: readonly string[], weights: readonly QuantScheme[]): void {
  checkBlockKernels(names);
  if (weights.some((scheme) => blockFormatOf(scheme) !== undefined)) return;
  const given = weights[0] === undefined ? "no quantized site" : schemeName(weights[0]);
  throw refusal(`this recipe stores ${given}`, { given });
}

/** @throws {InputError} `input.option`: ONNX files carry no kernels. */
export function refuseKernels(names: readonly string[] | undefined, target: string): void {
  if (names === undefined) return;
  throw refusal(`${target} files are run by an ONNX runtime, which has its own`, { given: target });
}

function refusal(why: string, details: Readonly<Record<string, unknown>>): InputError {
  return new InputError(
    "input.option",
    `--kernels writes kernels beside block formats (--method bfp, mxint8, mxfp8, mxfp6, mxfp4 or nvfp4, as directories) and lossless methods; ${why}: leave --kernels out`,
    { option: "kernels", ...details },
  );
}

/** A weight in a block format and where its tensors lie. */
interface Candidate {
  readonly module: string;
  readonly scheme: QuantScheme;
  readonly rows: number;
  readonly cols: number;
  readonly tensors: readonly SiteTensor[];
}

/**
 * Files to put into the artifact, by relative name; read from shards that are complete, published or not.
 *
 * The self-test is of the first rows of the smallest weight: short to run, and the same for every run of the recipe.
 *
 * @throws as {@link checkKernelRecipe}.
 */
export async function blockKernelFiles(
  names: readonly string[],
  { sites, places }: Pick<OutputLayout, "sites" | "places">,
  directory: string,
): Promise<ReadonlyMap<string, Uint8Array>> {
  checkKernelRecipe(
    names,
    [...sites.values()].flatMap(({ site: { weight } }) => (weight === undefined ? [] : [weight])),
  );
  const candidates = [...sites.values()].flatMap(({ site: { module, rows, cols, weight }, tensors }): Candidate[] =>
    weight === undefined || blockFormatOf(weight) === undefined ? [] : [{ module, scheme: weight, rows, cols, tensors }],
  );
  const {
    module,
    scheme,
    cols,
    tensors,
    rows: allRows,
  } = candidates.reduce((least, one) => (one.rows * one.cols < least.rows * least.cols ? one : least));
  const rows = Math.min(allRows, Math.max(1, Math.floor(TEST_ELEMENTS / cols)));
  const placeOf = (role: SiteTensor["role"]): Place | undefined => {
    const tensor = tensors.find((one) => one.role === role);
    if (tensor === undefined) return undefined;
    const { shard, offset, spec } = places.get(tensor.name)!;
    const whole = byteLength(spec.dtype, spec.shape);
    return { file: shard.file, offset, length: role === "global-scale" ? whole : (whole / allRows) * rows };
  };
  const [codes, scales, divisor] = [placeOf("codes")!, placeOf("scales")!, placeOf("global-scale")];
  const quantized = decodeRows(scheme, rows, cols, {
    codes: await readPlace(directory, codes),
    scales: await readPlace(directory, scales),
    ...(divisor && { divisor: await readPlace(directory, divisor) }),
  });
  return emitBlockKernels(names, blockSelfTest(quantized, { module, arrays: { codes, scales, ...(divisor && { divisor }) } }));
}

/** Stored bytes of some rows as codes and scales. */
function decodeRows(
  scheme: QuantScheme,
  rows: number,
  cols: number,
  stored: { readonly codes: Uint8Array; readonly scales: Uint8Array; readonly divisor?: Uint8Array },
): QuantizedTensor {
  const format = requireBlockFormat(scheme);
  const bits = blockBits(format);
  const mantissas = format.element.kind === "float" ? undefined : unpackMantissas(stored.codes, rows, cols, bits);
  const { divisor } = stored;
  return {
    shape: [rows, cols],
    channelAxis: 0,
    scheme,
    codes:
      mantissas === undefined
        ? { kind: "u8", data: unpackElements(stored.codes, rows, cols, bits) }
        : mantissas instanceof Int8Array
          ? { kind: "i8", data: mantissas }
          : { kind: "i16", data: mantissas },
    scales: decodeScales(format, stored.scales),
    ...(divisor && { globalScale: new DataView(divisor.buffer, divisor.byteOffset).getFloat32(0, true) }),
  };
}

/** Bytes of a shard under its partial name, or its own when a process was killed while it published. */
async function readPlace(directory: string, { file, offset, length }: Place): Promise<Uint8Array> {
  const path = join(directory, file);
  const handle: FileHandle = await open(path + PARTIAL).catch(() => open(path));
  try {
    const bytes = new Uint8Array(length);
    const { bytesRead } = await handle.read(bytes, 0, length, offset);
    if (bytesRead === length) return bytes;
    throw new FormatError("format.field", `${file} ends before byte ${offset + length}`, { file });
  } finally {
    await handle.close();
  }
}
