/**
 * The directory that transformers.js loads: `onnx/<session><suffix>.onnx` for every dtype, with configuration and tokenizer beside it.
 * @module
 */
import { mkdir, readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { InputError, throwIfAborted } from "../../../core/errors.ts";
import { openCheckpoint } from "../../../formats/checkpoint.ts";
import { writeFileAtomic } from "../../../formats/containers/atomic.ts";
import type { OnnxModel } from "../../../formats/containers/onnx/model.ts";
import { writeOnnxModel } from "../../../formats/containers/onnx/write.ts";
import { parseQuantizationConfig } from "../../../formats/layouts/compressed-tensors/config.ts";
import { OWN_KEY } from "../../../formats/layouts/compressed-tensors/dialect.ts";
import { readModules, type StoredModule } from "../../../formats/layouts/compressed-tensors/read.ts";
import { findLayout } from "../../../formats/layouts/index.ts";
import { sitesOf, type Model } from "../../../model/model.ts";
import type { DialectName } from "../../../model/onnx-export/dialects/index.ts";
import { stitchModel } from "../../../model/onnx-export/stitch.ts";
import { detachCheckpoint } from "../../../model/sources/detached.ts";
import { openModel } from "../../../model/sources/open.ts";
import { CHECKPOINT_TOOLS } from "../../../model/sources/tools.ts";
import { carriedFiles } from "../../carry-over.ts";
import { claimExport } from "../../export-directory.ts";
import type { ProgressEvent } from "../../types.ts";
import { DTYPE_FILES, TRANSFORMERSJS_DTYPES, type TransformersJsDType } from "./dtypes.ts";
import { keepCodes } from "./kept-codes.ts";

export interface OnnxExportOptions {
  readonly out: string;
  /** Files to write; see `all` for what is written without it. */
  readonly dtypes?: readonly TransformersJsDType[];
  /** Without `dtypes`: of a float model every file (default) or float32 alone. Of an artifact it is always the file its codes make. */
  readonly all?: boolean;
  /** Operators of the float part. Default "contrib". */
  readonly operators?: DialectName;
  /** Write over files of an earlier export; other files are never touched. */
  readonly force?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ProgressEvent) => void;
}

export interface OnnxExportReport {
  readonly directory: string;
  readonly bytes: number;
  /** Paths in the directory, with their sizes. */
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
}

/** Folder of the output in which a run that ends here keeps its artifact meanwhile. */
export const STAGING = ".artifact";

/** Files that transformers.js asks for by another name than "model". */
const SESSIONS: ReadonlyMap<string, string> = new Map([
  ["clip-text", "text_model"],
  ["clip-vision", "vision_model"],
]);

/**
 * Export a model directory or an artifact of ours.
 *
 * The float model is written once for every dtype asked for. An artifact keeps its codes: weights of at most 4 bits make the q4 file,
 * others q8; `dtypes` then picks among fp32, fp16 (dequantized) and that one.
 *
 * @throws {InputError} `input.output-exists` for a directory with other files in it; `input.option` for a dtype the artifact's codes are not.
 * @throws {UnsupportedError} `unsupported.scheme` for codes that ONNX Runtime has no operator for; and as `openModel`.
 */
export async function exportOnnxDirectory(source: string, options: OnnxExportOptions): Promise<OnnxExportReport> {
  const { out, signal, onProgress } = options;
  const model = await openModel(source);
  const modules = await storedModules(source);
  const plan = planFiles(model, modules, options);
  const carried = await carriedFiles(source);
  await claimExport(out, ["onnx", "config.json", ...carried], options.force === true, STAGING);
  const base = stitchModel(model, options.operators === undefined ? {} : { operators: options.operators });
  const keep = new Set(sitesOf(model).flatMap(({ name, kind }) => (kind === "router" ? [name] : [])));
  await mkdir(join(out, "onnx"), { recursive: true });
  const written: string[] = [];
  for (const [i, { name, make }] of plan.entries()) {
    throwIfAborted(signal);
    const exported = await make(base, keep);
    onProgress?.({ phase: "quantize", done: i, total: plan.length, unit: "files", detail: name });
    written.push(...(await writeOnnxModel(join(out, "onnx", name), exported)));
  }
  for (const name of carried) await writeFileAtomic(join(out, name), await readFile(join(source, name)));
  await writeFileAtomic(
    join(out, "config.json"),
    `${JSON.stringify(
      configOf(
        model,
        written,
        plan.map(({ dtype }) => dtype),
      ),
      undefined,
      2,
    )}\n`,
  );
  const names = [...written.map((path) => `onnx/${basename(path)}`), ...carried, "config.json"];
  const files = await Promise.all(names.map(async (name) => ({ name, bytes: (await stat(join(out, name))).size })));
  return { directory: out, bytes: files.reduce((sum, { bytes }) => sum + bytes, 0), files };
}

/** Quantized modules of a compressed-tensors artifact; undefined for a float model. */
async function storedModules(source: string): Promise<ReadonlyMap<string, StoredModule> | undefined> {
  const checkpoint = await detachCheckpoint(await openCheckpoint(source, CHECKPOINT_TOOLS));
  if (findLayout(checkpoint.config)?.name !== "compressed-tensors") return undefined;
  return readModules(checkpoint.tensors, parseQuantizationConfig(checkpoint.config?.["quantization_config"]));
}

interface PlannedFile {
  readonly dtype: TransformersJsDType;
  readonly name: string;
  readonly make: (base: OnnxModel, keep: ReadonlySet<string>) => Promise<OnnxModel>;
}

function planFiles(
  model: Model,
  modules: ReadonlyMap<string, StoredModule> | undefined,
  { dtypes, all = true }: OnnxExportOptions,
): readonly PlannedFile[] {
  const session = SESSIONS.get(model.facts.family) ?? "model";
  const file = (dtype: TransformersJsDType): string => `${session}${DTYPE_FILES[dtype].suffix}.onnx`;
  if (modules === undefined)
    return (dtypes ?? (all ? TRANSFORMERSJS_DTYPES : ["fp32" as const])).map((dtype) => ({
      dtype,
      name: file(dtype),
      make: DTYPE_FILES[dtype].make,
    }));
  const own = ownDType(modules);
  return (dtypes ?? [own]).map((dtype) => {
    if (dtype === own) return { dtype, name: file(own), make: async (base) => keepCodes(base, modules) };
    if (dtype === "fp32" || dtype === "fp16") return { dtype, name: file(dtype), make: DTYPE_FILES[dtype].make };
    throw new InputError(
      "input.option",
      `the artifact's weights make a ${own} file, not ${dtype}; known here: ${own}, fp32, fp16. Export ${dtype} from the float model`,
      { option: "dtypes", given: dtype, known: [own, "fp32", "fp16"] },
    );
  });
}

/** The dtype whose file holds the artifact's codes. */
function ownDType(modules: ReadonlyMap<string, StoredModule>): TransformersJsDType {
  const isNarrow = [...modules.values()].every(({ weight: { format } }) => format.kind === "int" && format.bits <= 4);
  return isNarrow ? "q4" : "q8";
}

/** config.json of the source less its quantization; external data is announced by file, and a dtype that is alone is the default. */
function configOf(model: Model, written: readonly string[], dtypes: readonly TransformersJsDType[]): Record<string, unknown> {
  const { [OWN_KEY]: _own, quantization_config: _quantization, ...config } = model.config;
  const external = written.map((path) => basename(path)).filter((name) => name.endsWith(".onnx_data"));
  const chunks = Object.fromEntries(external.map((name) => [name.slice(0, -"_data".length), 1]));
  const hints = {
    ...(dtypes.length === 1 && dtypes[0] !== "fp32" ? { dtype: dtypes[0] } : {}),
    ...(external.length === 0 ? {} : { use_external_data_format: chunks }),
  };
  if (Object.keys(hints).length === 0) return config;
  const known = config["transformers.js_config"];
  return { ...config, "transformers.js_config": { ...(typeof known === "object" ? known : {}), ...hints } };
}
