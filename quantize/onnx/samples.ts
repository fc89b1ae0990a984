/**
 * Samples for ONNX models: named tensors in runs that the graph takes.
 * @module
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { DTYPES, elementCount } from "../../core/dtype.ts";
import { InputError } from "../../core/errors.ts";
import type { Tensor } from "../../core/tensor.ts";
import { readNpz } from "../../formats/containers/npz/npz.ts";
import type { Model } from "../../model/model.ts";

/** Inputs of one run by name. */
export type OnnxSample = ReadonlyMap<string, Tensor>;

/** Rows a run where the graph leaves the batch open: enough to keep kernels busy, few enough for small memory. */
const ROWS_PER_RUN = 8;

/**
 * Read samples: every .npz holds the graph's inputs by name; where all share their first axis and the graph leaves it open, its rows are
 * samples. Of a directory, every .npz in order of name.
 *
 * @param limit - rows at most.
 * @throws {InputError} `input.path`, `input.data` for paths that hold no samples.
 */
export async function loadOnnxSamples(model: Model, paths: readonly string[], limit: number): Promise<readonly OnnxSample[]> {
  const files: string[] = [];
  for (const path of paths) {
    const facts = await stat(path).catch((cause: unknown) => {
      throw new InputError("input.path", `${path}: no such file or directory`, { path }, { cause });
    });
    if (facts.isDirectory())
      files.push(
        ...(await readdir(path))
          .filter((name) => name.endsWith(".npz"))
          .toSorted()
          .map((name) => join(path, name)),
      );
    else files.push(path);
  }
  const samples: OnnxSample[] = [];
  let rows = 0;
  for (const file of files) {
    if (rows >= limit) break;
    if (!file.endsWith(".npz"))
      throw new InputError("input.data", `${file}: calibration data of an .onnx model is .npz files with its inputs by name`, {
        path: file,
      });
    for (const sample of splitRows(model, await readNpz(file))) {
      if (rows >= limit) break;
      samples.push(sample.inputs);
      rows += sample.rows;
    }
  }
  if (samples.length === 0) throw new InputError("input.data", `${paths.join(", ")} hold no .npz samples`, { paths });
  return samples;
}

/** Cut along the first axis where that is a batch. */
function splitRows(model: Model, tensors: OnnxSample): readonly { readonly inputs: OnnxSample; readonly rows: number }[] {
  const types = new Map(model.inputs.map((type) => [type.name, type]));
  const batched = [...tensors].filter(([name]) => (types.get(name)?.shape.length ?? 0) > 0);
  const counts = new Set(batched.map(([, { shape }]) => shape[0]));
  const sizes = new Set(batched.map(([name]) => types.get(name)?.shape[0]));
  const [count] = counts;
  const [size] = sizes;
  const per = typeof size === "number" ? size : ROWS_PER_RUN;
  if (counts.size !== 1 || sizes.size !== 1 || count === undefined || per < 1 || count <= per)
    return [{ inputs: tensors, rows: count ?? 1 }];
  return Array.from({ length: Math.ceil(count / per) }, (_, run) => {
    const [from, to] = [run * per, Math.min(count, (run + 1) * per)];
    const cut = [...tensors].map(([name, tensor]): [string, Tensor] => [
      name,
      types.get(name)?.shape.length === 0 ? tensor : rowsOf(tensor, from, to),
    ]);
    return { inputs: new Map(cut), rows: to - from };
  });
}

function rowsOf({ dtype, shape, bytes }: Tensor, from: number, to: number): Tensor {
  const width = (elementCount(shape.slice(1)) * DTYPES[dtype].bits) / 8;
  return { dtype, shape: [to - from, ...shape.slice(1)], bytes: bytes.subarray(from * width, to * width) };
}
