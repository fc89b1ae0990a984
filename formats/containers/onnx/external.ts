/**
 * External data: tensors in files beside the model.
 *
 * A location is a relative POSIX path that stays in the model's folder. Nothing else is opened: not an absolute path, not
 * one with "..", a backslash, a drive letter or a NUL, and no link that leads out of the folder. (A link of a download
 * cache is followed into the folder where the model file itself really lies.)
 * @module
 */
import { realpath } from "node:fs/promises";
import { dirname, join, sep } from "node:path";
import { FormatError, InputError } from "../../../core/errors.ts";
import type { ByteSource } from "../container.ts";
import { openFileSource } from "../bytes.ts";
import { onnxByteLength, type OnnxDType } from "./dtypes.ts";
import { makeLazyOnnxTensor, type OnnxTensor } from "./tensor.ts";

interface Claim {
  readonly tensor: string;
  readonly location: string;
  readonly offset: number;
  readonly bytes: number;
}

/** The external files of one model: claims are made while it is parsed, then all files are opened and checked. */
export class ExternalFiles {
  readonly #model: string;
  /** Path of the model file; without one there is no folder to look in. */
  readonly #path: string | undefined;
  readonly #claims: Claim[] = [];
  readonly #sources = new Map<string, ByteSource>();

  constructor(model: string, path: string | undefined) {
    this.#model = model;
    this.#path = path;
  }

  /** The files, in the order they were met. */
  get paths(): readonly string[] {
    const path = this.#path;
    return path === undefined ? [] : [...new Set(this.#claims.map(({ location }) => join(dirname(path), location)))];
  }

  /** A tensor whose bytes its entries place in a file. @throws {FormatError} `format.path` or `format.field` naming it. */
  place(tensor: string, entries: ReadonlyMap<string, string>, dtype: OnnxDType, shape: readonly number[]): OnnxTensor {
    const location = this.#checkLocation(tensor, entries.get("location"));
    const byteLength = onnxByteLength(dtype, shape);
    const offset = this.#parseDecimal(tensor, "offset", entries.get("offset")) ?? 0;
    const length = this.#parseDecimal(tensor, "length", entries.get("length")) ?? byteLength;
    if (length !== byteLength) {
      throw this.#refuse(
        "format.field",
        tensor,
        `has ${length} bytes of external data; ${dtype} [${shape.join(", ")}] takes ${byteLength}`,
      );
    }
    if (this.#path === undefined) {
      throw this.#refuse("format.path", tensor, `is in ${JSON.stringify(location)}, and a model in memory has no folder; give its path`);
    }
    this.#claims.push({ tensor, location, offset, bytes: byteLength });
    const lazy = makeLazyOnnxTensor(dtype, shape, () => this.#read(tensor, location, offset, byteLength));
    return { ...lazy, location: { path: join(dirname(this.#path), location), offset }, external: location };
  }

  /**
   * Open every file and check that it holds what tensors claim.
   *
   * @throws {FormatError} `format.missing`, `format.path`, `format.truncated` naming file and tensor.
   */
  async open(): Promise<void> {
    if (this.#path === undefined || this.#claims.length === 0) return;
    for (const { tensor, location, offset, bytes } of this.#claims) {
      let source = this.#sources.get(location);
      if (source === undefined) {
        source = await this.#openFile(tensor, location);
        this.#sources.set(location, source);
      }
      if (offset + bytes > source.size) {
        const problem = `takes bytes ${offset} to ${offset + bytes} of ${JSON.stringify(location)}, which has ${source.size}`;
        throw this.#refuse("format.truncated", tensor, problem);
      }
    }
  }

  /** Files are opened anew for tensors that are read later. */
  async close(): Promise<void> {
    for (const source of this.#sources.values()) await source.close();
    this.#sources.clear();
  }

  async #read(tensor: string, location: string, offset: number, length: number): Promise<Uint8Array> {
    const held = this.#sources.get(location);
    if (held !== undefined) return held.read(offset, length);
    const source = await this.#openFile(tensor, location);
    try {
      return await source.read(offset, length);
    } finally {
      await source.close();
    }
  }

  async #openFile(tensor: string, location: string): Promise<ByteSource> {
    const folders = [await realpath(dirname(this.#path!)), dirname(await realpath(this.#path!))];
    const path = join(dirname(this.#path!), location);
    let real: string;
    try {
      real = await realpath(path);
    } catch (cause) {
      const text = `is in ${JSON.stringify(location)}, which is not beside the model (${path})`;
      throw this.#refuse("format.missing", tensor, text, cause);
    }
    if (!folders.some((folder) => real.startsWith(folder + sep))) {
      throw this.#refuse("format.path", tensor, `is in ${JSON.stringify(location)}, which leads out of the model's folder`);
    }
    try {
      return await openFileSource(real);
    } catch (cause) {
      if (!(cause instanceof InputError)) throw cause;
      throw this.#refuse("format.path", tensor, `is in ${JSON.stringify(location)}, which cannot be opened`, cause);
    }
  }

  #checkLocation(tensor: string, location: string | undefined): string {
    if (location === undefined || location === "") throw this.#refuse("format.path", tensor, "is external and has no location");
    const [first = ""] = location.split("/");
    const leaves = location.startsWith("/") || location.split("/").includes("..") || first.includes(":");
    // oxlint-disable-next-line no-control-regex -- control characters are what is looked for.
    if (leaves || /[\\\u0000-\u001f]/.test(location)) {
      throw this.#refuse(
        "format.path",
        tensor,
        `is in ${JSON.stringify(location)}; a location is a relative path inside the model's folder`,
      );
    }
    return location;
  }

  #parseDecimal(tensor: string, key: string, text: string | undefined): number | undefined {
    if (text === undefined) return undefined;
    const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (Number.isSafeInteger(value)) return value;
    throw this.#refuse(
      "format.field",
      tensor,
      `has the external ${key} ${JSON.stringify(text)}; a decimal number of bytes was to be expected`,
    );
  }

  #refuse(code: "format.path" | "format.field" | "format.missing" | "format.truncated", tensor: string, problem: string, cause?: unknown) {
    const details = { file: this.#model, tensor };
    return new FormatError(code, `${this.#model}: tensor ${JSON.stringify(tensor)} ${problem}`, details, { cause });
  }
}
