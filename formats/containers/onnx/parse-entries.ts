/**
 * StringStringEntryProto: lists of keys and values, as maps (a name such as `__proto__` is a key like any other).
 * @module
 */
import { STRING_STRING_ENTRY_PROTO } from "./fields.ts";
import type { WireField, WireReader } from "./wire.ts";

/** The entries in the fields of one number; undefined when there are none. A key given twice has its last value. */
export function parseEntries(reader: WireReader, fields: readonly WireField[], number: number): ReadonlyMap<string, string> | undefined {
  const own = fields.filter((field) => field.number === number);
  if (own.length === 0) return undefined;
  return new Map(
    own.map((field): [string, string] => {
      let [key, value] = ["", ""];
      for (const inner of reader.fields(field)) {
        if (inner.number === STRING_STRING_ENTRY_PROTO.key) key = reader.text(inner);
        if (inner.number === STRING_STRING_ENTRY_PROTO.value) value = reader.text(inner);
      }
      return [key, value];
    }),
  );
}

/** Metadata properties as the member of what carries them; nothing where there are none. */
export function parseMetadata(
  reader: WireReader,
  fields: readonly WireField[],
  number: number,
): { readonly metadata?: ReadonlyMap<string, string> } {
  const metadata = parseEntries(reader, fields, number);
  return metadata === undefined ? {} : { metadata };
}
