/**
 * Sessions of whole ONNX files: from the file itself, from a copy in memory, or from a temporary file.
 * @module
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { InferenceSession } from "onnxruntime-common";
import type { OnnxModel } from "../../../formats/containers/onnx/model.ts";
import { tensorBytes } from "../../../formats/containers/onnx/tensors.ts";
import { readOnnxBytes, writeOnnxModel } from "../../../formats/containers/onnx/write.ts";
import type { Graph } from "../../graph/graph.ts";

/** Models up to this size are built in memory; larger ones are written to a temporary folder and opened there. */
const MEMORY_BYTES = 256 * 2 ** 20;

/**
 * @param model - the file's model with the outputs wanted.
 * @param createFromFile - undefined where the runtime opens no files: everything is then built in memory.
 */
export async function openWhole(
  whole: NonNullable<Graph["whole"]>,
  model: OnnxModel,
  create: (model: Uint8Array) => Promise<InferenceSession>,
  createFromFile: ((path: string) => Promise<InferenceSession>) | undefined,
): Promise<InferenceSession> {
  const names = ({ graph }: OnnxModel): string => JSON.stringify(graph.outputs.map(({ name }) => name));
  const isUnchanged = names(model) === names(whole.model);
  if (createFromFile !== undefined && whole.path !== undefined && isUnchanged) return createFromFile(whole.path);
  if (createFromFile === undefined || tensorBytes(model) <= MEMORY_BYTES) return create(await readOnnxBytes(model));
  const folder = await mkdtemp(join(tmpdir(), "bitwright-onnx-"));
  try {
    const path = join(folder, "model.onnx");
    await writeOnnxModel(path, model);
    return await createFromFile(path);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
