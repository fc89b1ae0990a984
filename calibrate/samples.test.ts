import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { QuantError } from "../core/errors.ts";
import { toFloat32 } from "../core/tensor.ts";
import { openFileSource } from "../formats/containers/bytes.ts";
import { openSafetensors } from "../formats/containers/safetensors/read.ts";
import { loadTokenizer, type Tokenizer } from "../model/tokenizer.ts";
import { loadIdSequences, loadSequences, loadTokenIds, type SequenceOptions } from "./samples.ts";

/** One id a character, 1 at the start of each document: windows can be read off. */
const letters: Tokenizer = {
  encode: (text) => [1, ...Array.from(text, (c) => c.charCodeAt(0))],
  decode: (ids) => String.fromCharCode(...ids.slice(1)),
};
const options = { tokenizer: letters, vocabularySize: 256 } satisfies SequenceOptions;
const spell = (sequences: readonly (readonly number[])[]): string[] =>
  sequences.map((ids) => String.fromCharCode(...ids).replaceAll("\u0001", "^"));

let folder = "";
let write: (name: string, content: string | Uint8Array) => string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "samples-"));
  write = (name, content) => {
    const path = join(folder, name);
    mkdirSync(join(path, ".."), { recursive: true });
    writeFileSync(path, content);
    return path;
  };
});
afterAll(() => rmSync(folder, { recursive: true }));

describe("loadSequences", () => {
  test("cuts a text file into the reference's calibration windows", async () => {
    const tokenizer = await loadTokenizer("fixtures/models/tiny-llama");
    const sequences = await loadSequences(["fixtures/data/calib.txt"], {
      tokenizer,
      vocabularySize: 2048,
      samples: 32,
      sequenceLength: 256,
    });
    const golden = await openSafetensors(await openFileSource("fixtures/goldens/statistics.safetensors"));
    const ids = toFloat32(await golden.tensors.get("calibration_ids")!.read());
    expect(sequences.flat()).toEqual([...ids]);
    await golden.close();
    const fromGoldens = loadSequences(["fixtures/goldens/statistics.safetensors"], { vocabularySize: 2048, sequenceLength: 256 });
    expect(await fromGoldens).toEqual(sequences);
  });

  test("reads a prefix of a long text to the same ids as the whole", async () => {
    const tokenizer = await loadTokenizer("fixtures/models/tiny-llama");
    const text = readFileSync("fixtures/data/calib.txt", "utf8").repeat(20);
    const path = write("long.txt", text);
    let characters = 0;
    const counting: Tokenizer = {
      ...tokenizer,
      encode: (part) => {
        characters += part.length;
        return tokenizer.encode(part);
      },
    };
    const sequences = await loadSequences([path], { tokenizer: counting, vocabularySize: 2048, samples: 16, sequenceLength: 128 });
    expect(sequences.flat()).toEqual(tokenizer.encode(text.slice(0, 100_000)).slice(0, 2048));
    expect(characters).toBeLessThan(text.length / 2);
  });

  test("packs documents in file order and drops the rest", async () => {
    const path = write("a.jsonl", '{"text":"abcde"}\n\n{"text":"  "}\n{"text":"fghij"}\n{"text":"k"}');
    expect(spell(await loadSequences([path], { ...options, sequenceLength: 4 }))).toEqual(["^abc", "de^f", "ghij"]);
    expect(spell(await loadSequences([path], { ...options, sequenceLength: 4, samples: 2 }))).toEqual(["^abc", "de^f"]);
  });

  test("truncates each document when asked, short ones kept as they are", async () => {
    const path = write("b.jsonl", '{"text":"abcde"}\n{"text":"f"}\n');
    expect(spell(await loadSequences([path], { ...options, sequenceLength: 4, packing: "truncate" }))).toEqual(["^abc", "^f"]);
  });

  test.each([
    ['{"messages":[{"role":"user","content":"ab"},{"role":"assistant","content":"cd"}]}', "^ab\ncd"],
    ['{"conversations":[{"from":"human","value":"ab"}]}', "^ab"],
    ['{"prompt":"ab","completion":"cd"}', "^ab\n\ncd"],
    ['{"instruction":"ab","input":"","output":"cd"}', "^ab\n\ncd"],
    ['"ab"', "^ab"],
    ['{"input_ids":[97,98]}', "ab"],
    ["[97,98]", "ab"],
    ['{"text":"ab","messages":[]}', "^ab"],
  ])("takes %s as %j", async (line, expected) => {
    const path = write("c.jsonl", line);
    expect(spell(await loadSequences([path], { ...options, packing: "truncate" }))).toEqual([expected]);
  });

  test("reads folders in the order of names, several paths, and gzip", async () => {
    write("many/b.txt", "BBB");
    write("many/a.txt", "AAA");
    write("many/deep/c.jsonl.gz", gzipSync('{"text":"CCC"}\n'));
    write("many/ignored.bin", "\0\0");
    const paths = [join(folder, "many"), write("last.txt.gz", gzipSync("DDD"))];
    expect(spell(await loadSequences(paths, { ...options, sequenceLength: 4 }))).toEqual(["^AAA", "^BBB", "^CCC", "^DDD"]);
  });

  test("reads ids from JSON: lists as sequences, one flat list as one text", async () => {
    const lists = write("ids.json", "[[97,98,99],[100]]");
    const flat = write("flat.json", "[97,98,99,100]");
    expect(spell(await loadSequences([lists], { vocabularySize: 256, sequenceLength: 2 }))).toEqual(["ab", "d"]);
    expect(spell(await loadSequences([flat], { vocabularySize: 256, sequenceLength: 2 }))).toEqual(["ab", "cd"]);
  });

  test("reads parquet written by pyarrow: zstd, snappy and gzip; text, messages and the one column of strings", async () => {
    const read = async (name: string): Promise<string[]> =>
      spell(await loadSequences([`fixtures/data/${name}`], { ...options, packing: "truncate" }));
    expect(await read("text.zstd.parquet")).toEqual(["^In the beginning", "^God created", "^the heaven and the earth."]);
    expect(await read("messages.snappy.parquet")).toEqual(["^Who was Ruth?\nA Moabitess.", "^Amen."]);
    expect(await read("verse.gzip.parquet")).toEqual(["^Jesus wept."]);
  });

  test("reads no further than it must", async () => {
    const path = write("broken-later.jsonl", `{"text":"${"a".repeat(20)}"}\n{broken`);
    expect(await loadSequences([path], { ...options, samples: 2, sequenceLength: 8 })).toHaveLength(2);
  });

  test("shuffles by the seed alone, and draws from all of the data", async () => {
    const lines = Array.from({ length: 40 }, (_, i) => JSON.stringify({ text: String.fromCharCode(65 + i).repeat(3) }));
    const path = write("shuffle.jsonl", lines.join("\n"));
    const draw = (seed: number): Promise<number[][]> =>
      loadSequences([path], { ...options, samples: 10, sequenceLength: 4, shuffle: true, seed });
    expect(await draw(1)).toEqual(await draw(1));
    expect(await draw(1)).not.toEqual(await draw(2));
    const plain = await loadSequences([path], { ...options, sequenceLength: 4 });
    expect(spell(await draw(1)).every((window) => spell(plain).includes(window))).toBe(true);
  });
});

describe("loadSequences refuses", () => {
  const refusal = async (paths: string[], more: Partial<SequenceOptions> = {}): Promise<[string, string]> => {
    const error: unknown = await loadSequences(paths, { ...options, sequenceLength: 8, ...more }).then(
      () => "nothing was refused",
      (reason: unknown) => reason,
    );
    if (!(error instanceof QuantError)) throw new Error("expected a typed error", { cause: error });
    return [error.code, error.message];
  };

  test("no data and missing files, naming the bundled sample", async () => {
    expect(await refusal([])).toEqual(["input.no-data", expect.stringContaining("fixtures/data/calib.txt")]);
    const [code, message] = await refusal(["nowhere.txt"]);
    expect([code, message]).toEqual(["input.path", expect.stringMatching(/nowhere\.txt.*fixtures\/data\/calib\.txt/)]);
  });

  test("too little text, with both numbers", async () => {
    const path = write("short.txt", "abc");
    const [code, message] = await refusal([path]);
    expect([code, message]).toEqual(["input.data", expect.stringMatching(/1 documents with 4 ids make 0 sequences of 8; 1 are needed/)]);
    const [, more] = await refusal([write("medium.txt", "abcdefghijklmnopq")], { samples: 5 });
    expect(more).toMatch(/18 ids make 2 sequences of 8; 5 are needed.*--samples 2/);
    expect((await refusal([write("empty.txt", "")]))[1]).toMatch(/0 documents with 0 ids/);
  });

  test("sequences longer than the model's positions, with both numbers", async () => {
    expect(await refusal([write("x.txt", "abc")], { maxPositions: 4 })).toEqual(["input.option", expect.stringMatching(/8.*4 positions/)]);
  });

  test("ids outside the vocabulary and entries that are no ids, naming place and both numbers", async () => {
    expect(await refusal([write("high.json", "[[1,2],[3,256]]")])).toEqual([
      "input.data",
      expect.stringMatching(/high\.json\[1\]: id 256 at 1 .*vocabulary of 256/),
    ]);
    for (const bad of ["[[1,-2]]", "[[1,2.5]]", '[["a"]]', "[[null]]", "[1e300]"]) {
      expect((await refusal([write("bad.json", bad)]))[0]).toBe("input.data");
    }
  });

  test("malformed records, naming file and line", async () => {
    expect((await refusal([write("d.jsonl", '{"text":"a"}\n{oops')]))[1]).toContain("d.jsonl:2");
    expect((await refusal([write("e.jsonl", '{"label":3}')]))[1]).toMatch(/e\.jsonl:1.*label/);
    expect((await refusal([write("f.json", "{}")]))[1]).toContain("an object");
    expect((await refusal([write("g.json", '[{"__proto__":{"text":"x"}}]')]))[0]).toBe("input.data");
  });

  test("text without a tokenizer, pointing to ids", async () => {
    const { tokenizer: _, ...without } = options;
    await expect(loadSequences([write("t.txt", "abc")], without)).rejects.toThrow("--data ids.json");
  });

  test("bytes that are no text, and gzip that is none", async () => {
    expect((await refusal([write("latin.txt", Uint8Array.of(0xe9, 0x20, 0xff))]))[1]).toContain("UTF-8");
    expect((await refusal([write("unknown.bin", Uint8Array.of(0, 1))]))[0]).toBe("format.magic");
    expect((await refusal([write("fake.txt.gz", "plain")]))[0]).toBe("format.field");
  });

  test("mutated parquet with a typed error, or reads it", async () => {
    const originals = ["text.zstd.parquet", "messages.snappy.parquet", "verse.gzip.parquet"].map((name) =>
      readFileSync(`fixtures/data/${name}`),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...originals),
        fc.array(fc.tuple(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        async (original, changes) => {
          const bytes = Uint8Array.from(original);
          for (const [place, value] of changes) bytes[Math.floor(place * bytes.length)] = value;
          const path = write("mutated.parquet", bytes);
          await loadSequences([path], { ...options, vocabularySize: 2 ** 31, packing: "truncate" }).catch((error: unknown) => {
            if (!(error instanceof QuantError)) throw error;
          });
        },
      ),
      { seed: 11, numRuns: 400 },
    );
  });
});

describe("ids for evaluation", () => {
  test("are those of the whole file, special tokens at its start only; a limit reads less", async () => {
    const source = { directory: "fixtures/models/tiny-llama", vocabularySize: 2048 };
    const all = await loadTokenIds(["fixtures/data/test.txt"], source);
    expect(all).toHaveLength(22_708);
    expect(all.indexOf(0, 1)).toBe(-1);
    expect(await loadTokenIds(["fixtures/data/test.txt"], { ...source, maxTokens: 1000 })).toEqual(all.slice(0, 1000));
    await expect(loadTokenIds([write("blank.txt", " \n")], source)).rejects.toMatchObject({ code: "input.data" });
  });

  test("come as given from lists", async () => {
    expect(await loadIdSequences(write("given.json", "[[1,2,3],[4]]"), 8)).toEqual([[1, 2, 3], [4]]);
    expect(await loadIdSequences(write("given.json", "[1,2,3]"), 8)).toEqual([[1, 2, 3]]);
    await expect(loadIdSequences(write("given.json", "[[1],[8]]"), 8)).rejects.toThrow("vocabulary of 8");
    await expect(loadIdSequences(write("given.json", "[[1],[]]"), 8)).rejects.toThrow("given.json[1] is empty");
  });
});
