/**
 * JSON for a model that reads token ids: text and lists of ids, or objects of its inputs' arrays.
 * @module
 */
import { open } from "node:fs/promises";

/** The beginning of a file says of which kind its records are. */
const HEAD = 2 ** 16;

/** Whether the first record has an array under the name of an input other than the ids, or rows of ids: `{"input_ids": [[…]], …}`. */
export async function isNamedRecords(path: string, inputs: readonly string[]): Promise<boolean> {
  const head = (await readHead(path)).trimStart().replace(/^\[\s*(?=\{)/, "");
  if (!head.startsWith("{")) return false;
  const end = head.search(/\}/);
  const record = end === -1 ? head : head.slice(0, end);
  const keys = [...record.matchAll(/"([^"\\]+)"\s*:\s*\[\s*(\[?)/g)].map(([, name, nested]) => ({ name: name!, nested: nested === "[" }));
  return keys.some(({ name, nested }) => inputs.includes(name) && (nested || name !== "input_ids"));
}

async function readHead(path: string): Promise<string> {
  const handle = await open(path);
  try {
    const bytes = new Uint8Array(HEAD);
    const { bytesRead } = await handle.read(bytes, 0, HEAD, 0);
    return new TextDecoder().decode(bytes.subarray(0, bytesRead));
  } finally {
    await handle.close();
  }
}
