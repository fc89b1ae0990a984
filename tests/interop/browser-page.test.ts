import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { quantize } from "../../quantize/quantize.ts";
import { goldenUnits } from "../support/golden-units.ts";
import { browserMissing, openPage, serveFolders, type OpenedPage, type StaticServer } from "./support/chromium.ts";

const FIXTURES = join(import.meta.dirname, "../../fixtures/lossless/df11");
const SOURCE = join(FIXTURES, "llama-slice/source/model.safetensors");
const missing = browserMissing();
const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** Hashes of a safetensors file's tensors, read without the code under test. */
function tensorHashes(path: string): Map<string, string> {
  const file = readFileSync(path);
  const end = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, end)) as Record<string, { data_offsets: [number, number] }>;
  return new Map(
    Object.entries(header)
      .filter(([name]) => name !== "__metadata__")
      .map(
        ([
          name,
          {
            data_offsets: [from, to],
          },
        ]) => [name, sha256(file.subarray(end + from, end + to))],
      ),
  );
}

describe.skipIf(missing !== undefined)(`the browser page in headless Chromium${missing === undefined ? "" : ` (${missing})`}`, () => {
  let work: string;
  let out: string;
  let server: StaticServer;
  let opened: OpenedPage;
  const expected = tensorHashes(SOURCE);

  beforeAll(async () => {
    work = mkdtempSync(join(tmpdir(), "browser-page-"));
    out = join(work, "artifact");
    await quantize(join(FIXTURES, "llama-slice/source"), { recipe: { method: ["dfloat11"], kernels: ["wasm"] }, out, workers: 0 });
    // No COOP and COEP: the page must do without.
    server = await serveFolders({ "/artifact/": out, "/official/": join(FIXTURES, "edges/artifact") }, { isolated: false });
    opened = await openPage(`${server.url}/artifact/kernels/index.html`);
  });
  afterAll(async () => {
    await opened.close();
    await server.close();
    rmSync(work, { recursive: true, force: true });
  });

  /** Waits for the end of a run; gives its state and the rows shown. */
  async function result(): Promise<{
    kind: string;
    text: string;
    total: string;
    tensors: Record<string, string>;
    sources: Record<string, string>;
  }> {
    await opened.page.waitForFunction("['done', 'failed'].includes(document.getElementById('state').dataset.kind)");
    return opened.page.evaluate(`(() => {
      const rows = (key) => Object.fromEntries([...document.querySelectorAll("tr[data-" + key + "]")].map((row) => [row.dataset[key], row.querySelector(".hash").textContent]));
      const state = document.getElementById("state");
      return { kind: state.dataset.kind, text: state.textContent, total: document.getElementById("total").textContent, tensors: rows("tensor"), sources: rows("source") };
    })()`);
  }

  const load = async (query: string): Promise<void> => {
    await opened.page.goto(`${server.url}/artifact/kernels/index.html${query}`);
  };
  const shards = (): string[] =>
    readdirSync(out)
      .filter((name) => name.endsWith(".safetensors"))
      .map((name) => join(out, name));

  test("the artifact beside it: hashes of every tensor and of the whole source file are those of the source", async () => {
    await opened.page.click("#beside");
    const shown = await result();
    expect(shown.text).toContain("equal to the source");
    expect(shown.kind).toBe("done");
    expect(new Map(Object.entries(shown.tensors))).toEqual(expected);
    expect(shown.sources).toEqual({ "model.safetensors": sha256(readFileSync(SOURCE)) });
    const lines = [...expected].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([name, hash]) => `${hash}  ${name}\n`);
    expect(shown.total).toBe(sha256(Buffer.from(lines.join(""))));
    expect(await opened.page.evaluate("crossOriginIsolated")).toBe(false);
    expect(opened.errors).toEqual([]);
  });

  test("a file of the official encoder by URL: units without a manifest", async () => {
    await load("?file=/official/model.safetensors");
    expect(await result()).toMatchObject({ kind: "done", text: expect.stringContaining("nothing to compare them with") as string });
    const units = new Map(goldenUnits().map(({ name, expected: bytes }) => [name, sha256(bytes)]));
    const shown = (await opened.page.evaluate(
      `[...document.querySelectorAll("tr[data-unit]")].map((row) => [row.dataset.unit, row.querySelector(".hash").textContent])`,
    )) as [string, string][];
    expect(shown).toHaveLength(17);
    for (const [name, hash] of shown) expect(hash, name).toBe(units.get(name));
  });

  test("chosen files: a damaged weight is named and counted, and a cut file is an error", async () => {
    const bytes = readFileSync(join(out, "lm_head.safetensors"));
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + Number(bytes.readBigUInt64LE(0)))) as Record<
      string,
      { data_offsets: [number, number] }
    >;
    bytes[8 + Number(bytes.readBigUInt64LE(0)) + header["lm_head.sign_mantissa"]!.data_offsets[0] + 7]! ^= 1;
    await load("");
    const files = shards().filter((path) => !path.endsWith("lm_head.safetensors"));
    const asFile = (name: string, content: Buffer): { name: string; mimeType: string; buffer: Buffer } => ({
      name,
      mimeType: "application/octet-stream",
      buffer: content,
    });
    const rest = [...files, join(out, "bitwright.json")].map((path) => asFile(path.split("/").pop()!, readFileSync(path)));
    await opened.page.setInputFiles("#files", [...rest, asFile("lm_head.safetensors", bytes)]);
    const shown = await result();
    expect(shown).toMatchObject({ kind: "failed", text: expect.stringMatching(/^1 of \d+ tensors/) as string });
    const different = [...expected].filter(([name, hash]) => shown.tensors[name] !== hash).map(([name]) => name);
    expect(different).toEqual(["lm_head.weight"]);

    await load("");
    await opened.page.setInputFiles("#files", [asFile("lm_head.safetensors", bytes.subarray(0, 3000))]);
    expect(await result()).toMatchObject({ kind: "failed", text: expect.stringContaining("lies outside the file") as string });
  });

  test("a compact artifact beside its page: hashes of every tensor and of the whole source file, and a changed byte is an error", async () => {
    const compact = join(work, "compact");
    const recipe = { method: ["dfloat11"], codec: "compact" as const, kernels: ["wasm"] };
    await quantize(join(FIXTURES, "llama-slice/source"), { recipe, out: compact, workers: 0 });
    const own = await serveFolders({ "/artifact/": compact }, { isolated: false });
    try {
      await opened.page.goto(`${own.url}/artifact/kernels/index.html`);
      await opened.page.click("#beside");
      const shown = await result();
      expect(shown.text).toContain("equal to the source");
      expect(shown.kind).toBe("done");
      expect(new Map(Object.entries(shown.tensors))).toEqual(expected);
      expect(shown.sources).toEqual({ "model.safetensors": sha256(readFileSync(SOURCE)) });
      const name = "model.safetensors.compact";
      const bytes = readFileSync(join(compact, name));
      bytes[100]! ^= 1;
      await opened.page.goto(`${own.url}/artifact/kernels/index.html`);
      await opened.page.setInputFiles("#files", [{ name, mimeType: "application/octet-stream", buffer: bytes }]);
      expect(await result()).toMatchObject({
        kind: "failed",
        text: expect.stringMatching(/^model\.safetensors\.compact: tensor /) as string,
      });
    } finally {
      await own.close();
    }
  });
});
