/**
 * Documents → token ids, checked against the model's vocabulary.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import type { Tokenizer } from "../../model/tokenizer.ts";
import type { SampleDocument } from "./document.ts";
import { tokenizeFile } from "./text.ts";

export interface TokenizeOptions {
  /** Needed for text only; a function is called when the first text comes. */
  readonly tokenizer?: Tokenizer | (() => Promise<Tokenizer>);
  /** Ids must lie below it. */
  readonly vocabularySize: number;
}

export class DocumentTokenizer {
  readonly #options: TokenizeOptions;
  #tokenizer: Tokenizer | undefined;

  constructor(options: TokenizeOptions) {
    this.#options = options;
  }

  /**
   * @param limit - ids wanted; a text file is read no further than they take.
   * @returns at least `limit` ids where the document has so many; none for empty text.
   * @throws {InputError} `input.data` for text without a tokenizer and for ids outside the vocabulary.
   */
  async tokenize(document: SampleDocument, limit: number): Promise<readonly number[]> {
    const ids = await this.#idsOf(document, limit);
    const { vocabularySize } = this.#options;
    const wrong = ids.findIndex((id) => id >= vocabularySize);
    if (wrong === -1) return ids;
    const { where } = document;
    throw new InputError(
      "input.data",
      `${where}: id ${ids[wrong]} at ${wrong} is outside the model's vocabulary of ${vocabularySize}; were these ids made with another tokenizer?`,
      { where, id: ids[wrong], position: wrong, vocabularySize },
    );
  }

  async #idsOf({ content, where }: SampleDocument, limit: number): Promise<readonly number[]> {
    if (content.kind === "ids") return content.ids;
    const tokenizer = await this.#requireTokenizer(where);
    const encode = (text: string): number[] => (text.trim() === "" ? [] : tokenizer.encode(text));
    return content.kind === "text" ? encode(content.text) : tokenizeFile(content.path, encode, limit);
  }

  async #requireTokenizer(where: string): Promise<Tokenizer> {
    const given = this.#tokenizer ?? this.#options.tokenizer;
    if (given === undefined) {
      throw new InputError("input.data", `${where} is text, but there is no tokenizer for this model; give token ids (--data ids.json)`, {
        where,
      });
    }
    this.#tokenizer = typeof given === "function" ? await given() : given;
    return this.#tokenizer;
  }
}
