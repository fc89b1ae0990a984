/**
 * `.json` and `.jsonl`: samples as objects of nested lists by input name.
 * @module
 */
import { open, readFile, stat } from "node:fs/promises";
import { FormatError, InputError } from "../../core/errors.ts";
import type { Tensor } from "../../core/tensor.ts";
import type { ValueType } from "../../model/graph/graph.ts";
import { nestedTensor } from "./nested.ts";
import { countRows, onlyInput } from "./rows.ts";
import type { InputItem, SourceContext } from "./source.ts";

const MAX_FILE_BYTES = 2 ** 28;
/** Longest line: a few million numbers. */
const MAX_LINE = 2 ** 26;
const NEWLINE = 0x0a;

/**
 * One object, a list of objects, or nested lists for the model's only input.
 *
 * @throws {InputError} `input.data` for what is not that, {FormatError} `format.limit` for a file beyond 256 MiB.
 */
export async function listJson(path: string, context: SourceContext): Promise<readonly InputItem[]> {
  const { size } = await stat(path);
  if (size > MAX_FILE_BYTES) {
    throw new FormatError(
      "format.limit",
      `${path} has ${size} bytes; JSON is read whole up to ${MAX_FILE_BYTES}: give .jsonl, which is streamed, or .npz`,
      { path, size },
    );
  }
  const value = parse(await readFile(path, "utf8"), path);
  const records = Array.isArray(value) && value.every((entry) => typeof entry === "object" && entry !== null && !Array.isArray(entry));
  const entries = records ? (value as unknown[]) : [value];
  if (entries.length === 0) throw new InputError("input.data", `${path} is an empty list; give an object of arrays a sample`, { path });
  return entries.map((entry, i) => {
    const where = records ? `${path}[${i}]` : path;
    const arrays = recordTensors(entry, context.inputs, where);
    return { where, rows: countRows(arrays, context.inputs, where), read: async () => arrays };
  });
}

/** One object or nested list a line; only the places of the lines are kept. @throws {FormatError} `format.limit` for a line beyond 64 MiB. */
export async function listJsonLines(path: string, { inputs }: SourceContext): Promise<readonly InputItem[]> {
  const items: InputItem[] = [];
  for await (const { offset, length, number } of findLines(path)) {
    const where = `${path}:${number}`;
    items.push({
      where,
      rows: 1,
      async read() {
        const arrays = recordTensors(parse(await readText(path, offset, length), where), inputs, where);
        return arrays;
      },
    });
  }
  if (items.length === 0) throw new InputError("input.data", `${path} is empty; give an object of arrays a line`, { path });
  return items;
}

function parse(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new InputError("input.data", `${where}: not JSON: ${(cause as Error).message}`, { where }, { cause });
  }
}

function recordTensors(record: unknown, inputs: readonly ValueType[], where: string): ReadonlyMap<string, Tensor> {
  if (typeof record !== "object" || record === null || Array.isArray(record)) {
    const input = onlyInput(inputs, where, "give an object of arrays by these names");
    return new Map([[input.name, nestedTensor(record, input, where)]]);
  }
  const known = new Map(inputs.map((input) => [input.name, input]));
  return new Map(
    Object.entries(record).map(([name, value]) => {
      const input = known.get(name);
      if (input === undefined) {
        throw new InputError(
          "input.option",
          `${where}: the model has no input ${JSON.stringify(name)}; it takes ${[...known.keys()].join(", ") || "nothing"}`,
          { where, given: name, known: [...known.keys()] },
        );
      }
      return [name, nestedTensor(value, input, `${where}: ${name}`)];
    }),
  );
}

/** Lines that are not blank, by their bytes. */
async function* findLines(path: string): AsyncGenerator<{ offset: number; length: number; number: number }> {
  const handle = await open(path);
  try {
    const buffer = new Uint8Array(2 ** 18);
    let [start, at, number, blank] = [0, 0, 1, true];
    for (;;) {
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, at);
      for (let i = 0; i < bytesRead; i++) {
        const byte = buffer[i]!;
        if (byte !== NEWLINE) {
          blank &&= byte === 0x20 || byte === 0x09 || byte === 0x0d;
          continue;
        }
        if (!blank) yield checkLine(path, start, at + i - start, number);
        [start, blank] = [at + i + 1, true];
        number++;
      }
      at += bytesRead;
      if (at - start > MAX_LINE) checkLine(path, start, at - start, number);
      if (bytesRead > 0) continue;
      if (!blank) yield checkLine(path, start, at - start, number);
      return;
    }
  } finally {
    await handle.close();
  }
}

function checkLine(path: string, offset: number, length: number, number: number): { offset: number; length: number; number: number } {
  if (length <= MAX_LINE) return { offset, length, number };
  throw new FormatError("format.limit", `${path}:${number} is longer than ${MAX_LINE} bytes; give large arrays as .npz`, { path, number });
}

async function readText(path: string, offset: number, length: number): Promise<string> {
  const handle = await open(path);
  try {
    const bytes = new Uint8Array(length);
    const { bytesRead } = await handle.read(bytes, 0, length, offset);
    return new TextDecoder().decode(bytes.subarray(0, bytesRead));
  } finally {
    await handle.close();
  }
}
