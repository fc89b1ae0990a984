/**
 * Text ↔ token ids, from `tokenizer.json` and `tokenizer_config.json` of a Hugging Face directory.
 * @module
 */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { FormatError, InputError } from "../core/errors.ts";

/** Largest tokenizer.json read. The largest known (262,144 tokens, 580,604 merges) takes 33 MB. */
const MAX_FILE_BYTES = 256 * 2 ** 20;

export interface EncodeOptions {
  /** Add what the tokenizer's post-processor adds (BOS, EOS, [CLS] …). Default true. */
  readonly special?: boolean;
}

export interface DecodeOptions {
  /** Leave special tokens out of the text. Default false. */
  readonly skipSpecial?: boolean;
}

export interface Tokenizer {
  encode(text: string, options?: EncodeOptions): number[];
  decode(ids: readonly number[], options?: DecodeOptions): string;
  readonly bosId?: number;
  readonly eosId?: number;
}

/**
 * @param directory - holds `tokenizer.json`; `tokenizer_config.json` is read where present.
 * @throws {InputError} `input.path` when there is no tokenizer.json.
 * @throws {FormatError} `format.config` / `format.limit` naming the file when it is not a tokenizer.
 */
export async function loadTokenizer(directory: string): Promise<Tokenizer> {
  const path = join(directory, "tokenizer.json");
  const configPath = join(directory, "tokenizer_config.json");
  const definition = await readJsonObject(path);
  if (definition === undefined) {
    throw new InputError(
      "input.path",
      `there is no tokenizer.json in ${directory}; save one with AutoTokenizer.from_pretrained(...).save_pretrained(...), or give token ids instead of text (--data ids.json)`,
      { path },
    );
  }
  const config = (await readJsonObject(configPath)) ?? {};
  const attempt = <T>(what: string, use: () => T): T => {
    try {
      return use();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new FormatError(
        "format.config",
        `${path}: ${what}: ${reason}; save it again with transformers, or give token ids instead of text (--data ids.json)`,
        { path },
        { cause: error },
      );
    }
  };
  const tokenizer = attempt("not a usable tokenizer", () => new HuggingFaceTokenizer(definition, config));
  const bosId = tokenId(tokenizer, config["bos_token"]);
  const eosId = tokenId(tokenizer, config["eos_token"]);
  return {
    encode: (text, { special = true } = {}) =>
      attempt("cannot encode text", () => tokenizer.encode(text, { add_special_tokens: special }).ids),
    decode: (ids, { skipSpecial = false } = {}) =>
      ids.length === 0 ? "" : attempt("cannot decode ids", () => tokenizer.decode([...ids], { skip_special_tokens: skipSpecial })),
    ...(bosId !== undefined && { bosId }),
    ...(eosId !== undefined && { eosId }),
  };
}

/** @returns `undefined` when there is no such file. */
async function readJsonObject(path: string): Promise<Record<string, unknown> | undefined> {
  let text: string;
  try {
    const { size } = await stat(path);
    if (size > MAX_FILE_BYTES) {
      throw new FormatError("format.limit", `${path} has ${size} bytes; at most ${MAX_FILE_BYTES} are read`, {
        path,
        size,
        limit: MAX_FILE_BYTES,
      });
    }
    text = await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR")) return undefined;
    throw error;
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new FormatError("format.config", `${path} is not valid JSON: ${(error as Error).message}`, { path }, { cause: error });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new FormatError("format.config", `${path} holds ${Array.isArray(value) ? "an array" : typeof value}, not an object`, { path });
  }
  return value as Record<string, unknown>;
}

/** The id of a token given as text or as `{ content }`, as tokenizer_config.json has it. */
function tokenId(tokenizer: HuggingFaceTokenizer, token: unknown): number | undefined {
  const content = typeof token === "object" && token !== null && "content" in token ? token.content : token;
  return typeof content === "string" ? tokenizer.token_to_id(content) : undefined;
}
