/**
 * Documents: what sample sources yield, before tokenizing and cutting.
 * @module
 */
import { InputError } from "../../core/errors.ts";

/** How documents become sequences: joined and cut into equal windows, or cut one by one. */
export type Packing = "pack" | "truncate";

/** Where ids come from. A `file` is read only as far as its ids are wanted. */
export type Content =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "ids"; readonly ids: readonly number[] }
  | { readonly kind: "file"; readonly path: string };

export interface SampleDocument {
  /** For messages: "file" or "file:line". */
  readonly where: string;
  readonly content: Content;
  /** What fits this source where the caller did not choose. */
  readonly packing: Packing;
}

/** Files of one kind → documents, lazily and in file order. */
export type SampleSource = (path: string) => AsyncIterable<SampleDocument>;

/** Fields that hold one text, most specific first. */
export const TEXT_FIELDS = ["text", "content", "document", "raw_content"] as const;
/** Fields that hold a conversation: [{ content }] or [{ value }]. */
const CONVERSATION_FIELDS = ["messages", "conversations", "conversation"] as const;
/** Fields joined in this order by blank lines, as many as are there. */
const PART_FIELDS = [
  "system",
  "instruction",
  "input",
  "context",
  "prompt",
  "question",
  "completion",
  "response",
  "answer",
  "output",
  "chosen",
] as const;
const ID_FIELDS = ["input_ids", "ids", "tokens"] as const;
/** Every field the rule below looks at. */
export const KNOWN_FIELDS: readonly string[] = [...TEXT_FIELDS, ...CONVERSATION_FIELDS, ...PART_FIELDS, ...ID_FIELDS];

/**
 * The content of a record (a jsonl line, a parquet row). The first that applies:
 * a string; a list of ids; `text`, `content`, `document` or `raw_content`; the contents of `messages` or
 * `conversations` joined by newlines; `instruction`, `input`, `prompt`, `response` … joined by blank lines;
 * `input_ids`, `ids` or `tokens`.
 *
 * @throws {InputError} `input.data` naming the place and the fields found.
 */
export function contentOf(record: unknown, where: string): Content {
  if (typeof record === "string") return { kind: "text", text: record };
  if (Array.isArray(record)) return { kind: "ids", ids: checkIds(record, where) };
  if (typeof record !== "object" || record === null) {
    throw new InputError(
      "input.data",
      `${where}: expected an object, a string or a list of ids, found ${JSON.stringify(record) ?? typeof record}`,
      { where },
    );
  }
  const field = (name: string): unknown => (Object.hasOwn(record, name) ? (record as Record<string, unknown>)[name] : undefined);
  for (const name of TEXT_FIELDS) {
    const value = field(name);
    if (typeof value === "string") return { kind: "text", text: value };
  }
  for (const name of CONVERSATION_FIELDS) {
    const value = field(name);
    if (Array.isArray(value)) return { kind: "text", text: value.map((turn) => turnText(turn, where)).join("\n") };
  }
  const parts = PART_FIELDS.map(field).filter((value) => typeof value === "string" && value !== "");
  if (parts.length > 0) return { kind: "text", text: parts.join("\n\n") };
  for (const name of ID_FIELDS) {
    const value = field(name);
    if (Array.isArray(value) || ArrayBuffer.isView(value)) return { kind: "ids", ids: checkIds(value as ArrayLike<unknown>, where) };
  }
  const found = Object.keys(record).slice(0, 12).join(", ") || "no fields";
  throw new InputError(
    "input.data",
    `${where}: no text in this record (fields: ${found}); give a field "text", "messages", "prompt" or "input_ids"`,
    {
      where,
      fields: Object.keys(record),
    },
  );
}

function turnText(turn: unknown, where: string): string {
  if (typeof turn === "object" && turn !== null) {
    if ("content" in turn && typeof turn.content === "string") return turn.content;
    if ("value" in turn && typeof turn.value === "string") return turn.value;
  }
  throw new InputError("input.data", `${where}: a message has neither a text "content" nor a text "value"`, { where });
}

/** @throws {InputError} `input.data` naming the first entry that is not an integer ≥ 0. */
export function checkIds(values: ArrayLike<unknown>, where: string): number[] {
  return Array.from(values, (value, i) => {
    const id = typeof value === "bigint" ? Number(value) : value;
    if (typeof id === "number" && Number.isSafeInteger(id) && id >= 0) return id;
    throw new InputError("input.data", `${where}: entry ${i} is ${JSON.stringify(id) ?? typeof id}; token ids are integers from 0`, {
      where,
      entry: i,
    });
  });
}
