import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FormatError, InputError } from "../core/errors.ts";
import { loadTokenizer } from "./tokenizer.ts";

interface Golden {
  readonly strings: readonly { readonly text: string; readonly ids: readonly number[]; readonly ids_without_bos: readonly number[] }[];
  readonly files: Readonly<Record<string, { readonly count_with_bos: number; readonly sha256_of_int32_little_endian: string }>>;
}
const golden = JSON.parse(readFileSync("fixtures/goldens/tokenizer.json", "utf8")) as Golden;
const model = "fixtures/models/tiny-llama";

describe("loadTokenizer", () => {
  test("gives the ids of the reference, with and without special tokens", async () => {
    const tokenizer = await loadTokenizer(model);
    for (const { text, ids, ids_without_bos } of golden.strings) {
      expect(tokenizer.encode(text)).toEqual(ids);
      expect(tokenizer.encode(text, { special: false })).toEqual(ids_without_bos);
    }
    expect([tokenizer.bosId, tokenizer.eosId]).toEqual([0, 1]);
  });

  test("decodes what it encoded", async () => {
    const tokenizer = await loadTokenizer(model);
    for (const { text } of golden.strings) {
      if (text.includes("<s>")) continue;
      expect(tokenizer.decode(tokenizer.encode(text), { skipSpecial: true })).toBe(text);
    }
    expect(tokenizer.decode([])).toBe("");
  });
});

describe("loadTokenizer refuses", () => {
  let directory = "";
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "tokenizer-"));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  test("a directory without one, saying what to do", async () => {
    await expect(loadTokenizer(directory)).rejects.toThrow(InputError);
    await expect(loadTokenizer(directory)).rejects.toThrow("--data ids.json");
  });

  test.each([
    ["broken JSON", "{"],
    ["an array", "[]"],
    ["null", "null"],
    ["no model", "{}"],
    ["an unknown model", '{"model":{"type":"Nonsense"},"added_tokens":[]}'],
    ["wrong field types", '{"model":{"type":"BPE","vocab":7,"merges":"x"},"added_tokens":3}'],
  ])("%s, naming the file", async (_case, text) => {
    writeFileSync(join(directory, "tokenizer.json"), text);
    const error: unknown = await loadTokenizer(directory).then(
      (tokenizer) => tokenizer.encode("words"),
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(FormatError);
    expect((error as FormatError).message).toContain("tokenizer.json");
  });
});

test("whole files give the reference's ids", async () => {
  const tokenizer = await loadTokenizer(model);
  for (const [name, expected] of Object.entries(golden.files)) {
    const ids = tokenizer.encode(readFileSync(join("fixtures/data", name.replace(/.*\//, "")), "utf8"));
    const hash = createHash("sha256")
      .update(new Uint8Array(Int32Array.from(ids).buffer))
      .digest("hex");
    expect([ids.length, hash]).toEqual([expected.count_with_bos, expected.sha256_of_int32_little_endian]);
  }
});
