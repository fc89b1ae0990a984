/**
 * `--bits fp16|bnb4` for model directories: formats that need no artifact, so the ONNX file is made of the model itself.
 * @module
 */
import { basename, join, resolve } from "node:path";
import { elementCount } from "../core/dtype.ts";
import { InputError } from "../core/errors.ts";
import { openOnnx } from "../formats/containers/onnx/read.ts";
import { openModel } from "../model/sources/open.ts";
import { checkBudgets } from "./budgets.ts";
import { exportOnnxDirectory } from "./exports/transformersjs/export.ts";
import type { TransformersJsDType } from "./exports/transformersjs/dtypes.ts";
import { resolveMethods } from "./recipe.ts";
import type { Plan, QuantizeOptions, QuantizeReport, Recipe, VerifyReport } from "./types.ts";

const DTYPES: ReadonlyMap<string, TransformersJsDType> = new Map([
  ["fp16", "fp16"],
  ["bnb4", "bnb4"],
  ["nf4", "bnb4"],
]);

/** The file that a recipe asks for without quantizing to integers, if it does. */
export function floatDType({ bits }: Recipe): TransformersJsDType | undefined {
  return bits === undefined ? undefined : DTYPES.get(bits);
}

/** @throws {InputError} `input.option` for transforms, which these formats have no use for; as `openModel`. */
export async function planFloatDirectory(source: string, options: QuantizeOptions): Promise<Plan> {
  const { recipe, to } = options;
  const { transforms } = resolveMethods(recipe.method);
  if (transforms.length > 0) {
    const names = transforms.map(({ name }) => name);
    throw new InputError(
      "input.option",
      `--bits ${recipe.bits!} rounds weights one by one: ${names.join("+")} changes nothing there; use rtn`,
      {
        option: "method",
        given: recipe.method,
      },
    );
  }
  const model = await openModel(source);
  const tensors = [...model.tensors.values()];
  const sites = model.blocks.flatMap((block) =>
    block.sites.map(({ name, weight }) => ({ name, shape: block.weights.get(weight)?.shape ?? [] })),
  );
  const parameters = tensors.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  const bytes = tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const inSites = sites.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  const outputBytes = floatDType(recipe) === "fp16" ? 2 * parameters : 4 * (parameters - inSites) + (4.5 * inSites) / 8;
  const largest = Math.max(0, ...sites.map(({ shape }) => elementCount(shape)));
  return {
    version: 1,
    source: { path: basename(resolve(source)), family: model.facts.family, parameters, bytes },
    recipe,
    transforms: [],
    method: "rtn",
    sites,
    exports: to ?? [],
    pairs: [],
    scaleDType: "F32",
    arithmetic: "f32",
    notes: [],
    estimate: {
      outputBytes,
      diskBytes: outputBytes + 32 * 2 ** 20,
      memoryBytes: 150 * 2 ** 20 + 12 * largest,
      seconds: 0.5 + bytes / 100e6,
      bitsPerWeight: parameters === 0 ? 0 : (8 * outputBytes) / parameters,
    },
  };
}

/**
 * Write `<out>/onnx/…` in the format of the recipe, with configuration and tokenizer.
 *
 * @throws {BudgetError}; {FormatError} when what was written cannot be read; as {@link planFloatDirectory} and
 *   `exportOnnxDirectory`.
 */
export async function quantizeFloatDirectory(source: string, to: string, options: QuantizeOptions): Promise<QuantizeReport> {
  const started = performance.now();
  const cpuBefore = process.cpuUsage();
  const plan = await planFloatDirectory(source, options);
  await checkBudgets(plan, options);
  const { signal, onProgress } = options;
  const { directory, bytes, files } = await exportOnnxDirectory(source, {
    out: options.out,
    dtypes: [floatDType(options.recipe)!],
    force: options.force === true,
    ...(signal && { signal }),
    ...(onProgress && { onProgress }),
  });
  const names = files.map(({ name }) => name);
  const cpu = process.cpuUsage(cpuBefore);
  return {
    out: [{ format: to, directory, bytes, files: names }],
    plan,
    sites: [],
    sourceBytes: plan.source.bytes,
    outputBytes: bytes,
    seconds: (performance.now() - started) / 1000,
    cpuSeconds: (cpu.user + cpu.system) / 1e6,
    peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
    resumed: false,
    verified: await readBack(directory, names),
    warnings: [],
  };
}

/** Every model file parsed and checked, all of its tensors inside the files. */
async function readBack(directory: string, names: readonly string[]): Promise<VerifyReport> {
  let tensors = 0;
  for (const name of names.filter((file) => file.endsWith(".onnx"))) {
    const model = await openOnnx(join(directory, name));
    await model.close();
    tensors += model.graph.initializers.size;
  }
  return { ok: true, tensors, problems: [] };
}
