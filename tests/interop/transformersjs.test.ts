/**
 * Exported directories in @huggingface/transformers: text, embeddings and labels, under Node and in headless Chromium.
 */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { toFloat32 } from "../../core/tensor.ts";
import { openFileSource } from "../../formats/containers/bytes.ts";
import { openSafetensors } from "../../formats/containers/safetensors/read.ts";
import { TRANSFORMERSJS_DTYPES } from "../../quantize/exports/transformersjs/dtypes.ts";
import { exportArtifact } from "../../quantize/export.ts";
import { browserMissing, hasPackage, openPage, serveFolders } from "./support/chromium.ts";
import { farthest } from "../support/tensors.ts";

const FIXTURES = join(import.meta.dirname, "../../fixtures");
const LIBRARY = join(import.meta.dirname, "node_modules/@huggingface/transformers");
const { genesis } = JSON.parse(readFileSync(join(FIXTURES, "goldens/float.json"), "utf8")) as {
  genesis: { text: string; ids: number[]; greedy_ids: number[]; greedy_text: string };
};
/** Text models of types that transformers.js knows. */
const MINIS = ["llama", "mistral", "qwen2", "qwen3", "qwen3-moe", "gemma2", "gemma3", "phi3", "gpt2", "opt"];

type Library = typeof import("@huggingface/transformers");

let folder: string;
let library: Library;

/** Directory of a model as transformers.js finds it under `folder`. */
async function exported(name: string, source: string, dtypes?: readonly (typeof TRANSFORMERSJS_DTYPES)[number][]): Promise<string> {
  await exportArtifact(join(FIXTURES, source), { to: "transformersjs", out: join(folder, name), ...(dtypes && { dtypes }) });
  return name;
}

async function golden(path: string, name: string): Promise<{ readonly data: Float32Array; readonly shape: readonly number[] }> {
  const file = await openSafetensors(await openFileSource(join(FIXTURES, path)));
  const tensor = await file.tensors.get(name)!.read();
  await file.close();
  return { data: toFloat32(tensor), shape: tensor.shape };
}

const int64 = (values: readonly number[]): InstanceType<Library["Tensor"]> =>
  new library.Tensor("int64", values.map(BigInt), [1, values.length]);

/** Last hidden states of an encoder. */
async function statesOf(
  name: string,
  dtype: "fp32" | "q8",
  ids: readonly number[],
  types: readonly number[] = ids.map(() => 0),
  mask: readonly number[] = ids.map(() => 1),
): Promise<Float32Array> {
  const model = await library.AutoModel.from_pretrained(name, { dtype, device: "cpu" });
  const inputs = { input_ids: int64(ids), token_type_ids: int64(types), attention_mask: int64(mask) };
  const { last_hidden_state: states } = (await model(inputs)) as { last_hidden_state: { data: Float32Array } };
  await model.dispose();
  return states.data;
}

/** New ids of a greedy continuation. */
async function greedy(
  name: string,
  dtype: (typeof TRANSFORMERSJS_DTYPES)[number],
  ids: readonly number[],
  count: number,
): Promise<number[]> {
  const { AutoModelForCausalLM } = library;
  const model = await AutoModelForCausalLM.from_pretrained(name, { dtype, device: "cpu" });
  // The library's types ask for a whole GenerationConfig.
  const settings = { max_new_tokens: count, do_sample: false, eos_token_id: 99_999 } as unknown as Parameters<typeof model.generate>[0];
  const output = await model.generate({ ...settings, input_ids: int64(ids), attention_mask: int64(ids.map(() => 1)) });
  await model.dispose();
  const { data } = output as unknown as { readonly data: BigInt64Array };
  return Array.from(data, Number).slice(ids.length);
}

describe.skipIf(!hasPackage("@huggingface/transformers"))("transformers.js under Node", () => {
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "bitwright-interop-tjs-"));
    library = await import("@huggingface/transformers");
    library.env.allowRemoteModels = false;
    library.env.localModelPath = folder;
    await exported("tiny-llama", "models/tiny-llama");
    await exported("bert", "models/minis/bert", ["fp32", "q8"]);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("tiny-llama in float32 and float16 writes the golden text, from its own tokenizer", async () => {
    const tokenizer = await library.AutoTokenizer.from_pretrained("tiny-llama");
    expect(tokenizer.encode(genesis.text)).toEqual(genesis.ids);
    for (const dtype of ["fp32", "fp16"] as const) {
      const ids = await greedy("tiny-llama", dtype, genesis.ids, genesis.greedy_ids.length);
      expect(ids, dtype).toEqual(genesis.greedy_ids);
      expect(tokenizer.decode(ids), dtype).toBe(genesis.greedy_text);
    }
  });

  test.each(TRANSFORMERSJS_DTYPES)("tiny-llama in %s: the first tokens are those of the float model", async (dtype) => {
    const ids = await greedy("tiny-llama", dtype, genesis.ids, 16);
    expect(ids).toHaveLength(16);
    expect(ids[0]).toBe(genesis.greedy_ids[0]);
  });

  test.each(MINIS)("%s generates what its golden logits say", async (mini) => {
    await exported(mini, `models/minis/${mini}`, ["fp32"]);
    const { prompts } = JSON.parse(readFileSync(join(FIXTURES, `models/minis/${mini}/golden.json`), "utf8")) as {
      prompts: Record<string, { ids: number[] }>;
    };
    const { ids } = prompts["a"]!;
    const { data } = await golden(`models/minis/${mini}/golden.safetensors`, "a.logits");
    const width = data.length / ids.length;
    for (const length of [ids.length, ids.length - 5]) {
      const row = data.subarray((length - 1) * width, length * width);
      expect((await greedy(mini, "fp32", ids.slice(0, length), 3))[0]).toBe(row.indexOf(Math.max(...row)));
    }
  });

  test("bert: hidden states equal the golden ones; q8 stays close", async () => {
    const { prompts } = JSON.parse(readFileSync(join(FIXTURES, "models/minis/bert/golden.json"), "utf8")) as {
      prompts: Record<string, { ids: number[]; token_type_ids?: number[]; attention_mask?: number[] }>;
    };
    const expected = await golden("models/minis/bert/golden.safetensors", "a.last_hidden_state");
    const { ids, token_type_ids: types, attention_mask: mask } = prompts["a"]!;
    for (const [dtype, tolerance] of [
      ["fp32", 2e-4],
      ["q8", 0.5],
    ] as const) {
      expect(farthest(await statesOf("bert", dtype, ids, types, mask), expected.data), dtype).toBeLessThanOrEqual(tolerance);
    }
  });

  test("vit and both towers of clip give their golden outputs", async () => {
    const { AutoModelForImageClassification, CLIPTextModelWithProjection, CLIPVisionModelWithProjection, Tensor } = library;
    for (const name of ["vit", "clip-text", "clip-vision"]) await exported(name, `models/towers/${name}`, ["fp32"]);
    const options = { dtype: "fp32", device: "cpu" } as const;
    const pixels = async (name: string): Promise<InstanceType<Library["Tensor"]>> => {
      const { data, shape } = await golden(`models/towers/${name}/golden.safetensors`, "pixel_values");
      return new Tensor("float32", data, [...shape]);
    };
    const vit = await AutoModelForImageClassification.from_pretrained("vit", options);
    const { logits } = (await vit({ pixel_values: await pixels("vit") })) as { logits: { data: Float32Array } };
    expect(farthest(logits.data, (await golden("models/towers/vit/golden.safetensors", "logits")).data)).toBeLessThanOrEqual(2e-4);
    const vision = await CLIPVisionModelWithProjection.from_pretrained("clip-vision", options);
    const { image_embeds: image } = (await vision({ pixel_values: await pixels("clip-vision") })) as {
      image_embeds: { data: Float32Array };
    };
    expect(farthest(image.data, (await golden("models/towers/clip-vision/golden.safetensors", "image_embeds")).data)).toBeLessThanOrEqual(
      2e-4,
    );
    const { prompts } = JSON.parse(readFileSync(join(FIXTURES, "models/towers/clip-text/golden.json"), "utf8")) as {
      prompts: Record<string, { ids: number[] }>;
    };
    const text = await CLIPTextModelWithProjection.from_pretrained("clip-text", options);
    for (const [letter, { ids }] of Object.entries(prompts)) {
      const { text_embeds: embeds } = (await text({ input_ids: int64(ids), attention_mask: int64(ids.map(() => 1)) })) as {
        text_embeds: { data: Float32Array };
      };
      expect(
        farthest(embeds.data, (await golden("models/towers/clip-text/golden.safetensors", `${letter}.text_embeds`)).data),
      ).toBeLessThanOrEqual(2e-4);
    }
  });

  const missing = browserMissing();
  describe.skipIf(missing !== undefined)(`in headless Chromium${missing === undefined ? "" : ` (${missing})`}`, () => {
    test("text and embeddings are those of Node, on onnxruntime-web's WASM", async () => {
      const site = join(folder, "site");
      mkdirSync(site);
      cpSync(join(import.meta.dirname, "support/transformersjs-page.js"), join(site, "page.js"));
      writeFileSync(
        join(site, "index.html"),
        '<!doctype html><link rel="icon" href="data:," /><script type="module" src="/page.js"></script>',
      );
      const server = await serveFolders({
        "/": site,
        "/models/": folder,
        "/library/": join(LIBRARY, "dist"),
        "/wasm/": join(LIBRARY, "node_modules/onnxruntime-web/dist"),
      });
      const { page, errors, close } = await openPage(`${server.url}/index.html`);
      try {
        const call = async (expression: string): Promise<unknown> => {
          await page.waitForFunction("globalThis.bitwright !== undefined", undefined, { timeout: 60_000 }).catch((cause: unknown) => {
            throw new Error(`the page did not start: ${errors.join("; ")}`, { cause });
          });
          return page.evaluate(expression);
        };
        const ids = [54, 57, 34, 38, 30, 85, 62];
        const written = (await call(`bitwright.generate("tiny-llama", ${JSON.stringify(genesis.ids)}, { fp32: 24, q8: 8 })`)) as {
          ids: Record<string, number[]>;
          text: string;
        };
        expect(written.ids["fp32"]).toEqual(genesis.greedy_ids.slice(0, 24));
        expect(genesis.greedy_text.startsWith(written.text)).toBe(true);
        expect(written.ids["q8"]).toEqual(await greedy("tiny-llama", "q8", genesis.ids, 8));
        const states = (await call(`bitwright.encode("bert", ${JSON.stringify(ids)})`)) as number[];
        const node = await statesOf("bert", "fp32", ids);
        expect(states).toHaveLength(node.length);
        expect(farthest(states, node)).toBeLessThanOrEqual(1e-4);
      } finally {
        await close();
        await server.close();
      }
    });
  });
});
