/**
 * StringStringEntryProto: lists of keys and values, as maps (a name such as `__proto__` is a key like any other).
 * @module
 */
import { STRING_STRING_ENTRY_PROTO } from "./fields.ts";
import type { WireField, WireReader } from "./wire.ts";

/** The entries in the fields of one number under a name, or nothing when there are none. A key given twice has its last value. */
export function parseEntries<Name extends string>(
  reader: WireReader,
  fields: readonly WireField[],
  number: number,
  name: Name,
): { readonly [key in Name]?: ReadonlyMap<string, string> } {
  const own = fields.filter((field) => field.number === number);
  if (own.length === 0) return {};
  const entries = own.map((field): [string, string] => {
    let [key, value] = ["", ""];
    for (const inner of reader.fields(field)) {
      if (inner.number === STRING_STRING_ENTRY_PROTO.key) key = reader.text(inner);
      if (inner.number === STRING_STRING_ENTRY_PROTO.value) value = reader.text(inner);
    }
    return [key, value];
  });
  return { [name]: new Map(entries) } as unknown as { readonly [key in Name]: ReadonlyMap<string, string> };
}
