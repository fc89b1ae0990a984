/**
 * Opens ONNX models: the graph in memory, tensors on disk until they are read.
 * @module
 */
import type { SyncByteSource } from "../container.ts";
import { memorySource, openFileSource } from "../bytes.ts";
import { checkOnnx } from "./check.ts";
import { checkSparse } from "./check-sparse.ts";
import { ExternalFiles } from "./external.ts";
import type { OnnxModel } from "./model.ts";
import { sortModel } from "./order.ts";
import { parseModel } from "./parse.ts";
import type { TensorContext } from "./parse-tensor.ts";
import { WireReader, type Range } from "./wire.ts";

/** A model read from a file. Its files stay open until it is closed; tensors that are read later open them anew. */
export interface OpenOnnxModel extends OnnxModel {
  readonly path: string;
  /** The model file and its external files. */
  readonly files: readonly string[];
  close(): Promise<void>;
}

/**
 * Open, check and sort a model. Initializers and attributes of any length stay in their files; external data is looked up
 * beside the model and nowhere else.
 *
 * @throws {InputError} `input.path` when there is no such file.
 * @throws {FormatError} for a file that breaks the format: see `checkOnnx` and `parseModel`; its external data: `format.path`,
 *   `format.missing`, `format.truncated`.
 * @throws {UnsupportedError} `unsupported.format` for versions beyond those known, `unsupported.encoding` for segmented tensors.
 */
export async function openOnnx(path: string): Promise<OpenOnnxModel> {
  const source = await openFileSource(path);
  const external = new ExternalFiles(path, path);
  let isOpen = true;
  const close = async (): Promise<void> => {
    if (!isOpen) return;
    isOpen = false;
    await external.close();
    await source.close();
  };
  const again = new ReopenedFile(path);
  const read = async ({ start, end }: Range): Promise<Uint8Array> =>
    isOpen ? source.read(start, end - start) : again.use((file) => file.read(start, end - start));
  try {
    const model = await readModel(source, external, { read });
    return { ...model, path, files: [path, ...external.paths], close };
  } catch (cause) {
    await close();
    throw cause;
  }
}

/** A closed file that is opened for reads that follow each other at once, and closed behind the last: opening takes longer than reading. */
class ReopenedFile {
  readonly #path: string;
  #file: Promise<SyncByteSource> | undefined;
  #users = 0;

  constructor(path: string) {
    this.#path = path;
  }

  async use<T>(work: (file: SyncByteSource) => Promise<T>): Promise<T> {
    this.#users++;
    try {
      this.#file ??= openFileSource(this.#path);
      return await work(await this.#file);
    } finally {
      this.#users--;
      // Who awaits this read has its turn first, and may read on.
      setImmediate(() => void this.#close());
    }
  }

  async #close(): Promise<void> {
    const file = this.#file;
    if (this.#users > 0 || file === undefined) return;
    this.#file = undefined;
    // Who read was told why it could not be opened; closing what was only read loses nothing.
    await file.then((opened) => opened.close()).catch(() => undefined);
  }
}

/**
 * A model from the bytes of a file without external data. Tensors are views over them.
 *
 * @param name - for messages.
 * @throws as {@link openOnnx}.
 */
export async function parseOnnx(bytes: Uint8Array, name = "model"): Promise<OnnxModel> {
  const read = async ({ start, end }: Range): Promise<Uint8Array> => bytes.slice(start, end);
  return readModel(memorySource(name, bytes), new ExternalFiles(name, undefined), { memory: bytes, read });
}

async function readModel(
  source: SyncByteSource,
  external: ExternalFiles,
  from: Pick<TensorContext, "memory" | "read">,
): Promise<OnnxModel> {
  const model = parseModel({
    reader: new WireReader(source),
    ...(source.path !== undefined && { path: source.path }),
    ...from,
    external,
  });
  const sorted = sortModel(model, source.name);
  checkOnnx(sorted, source.name);
  await external.open();
  await checkSparse(sorted, source.name);
  return sorted;
}
