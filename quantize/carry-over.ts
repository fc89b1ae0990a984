/**
 * Files of a model directory that belong to the model whatever its weights look like.
 * @module
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";

/** Largest file carried over: tokenizers stay below 40 MB, and weights are not among these. */
const MAX_BYTES = 2 ** 27;
/** Texts, settings, templates, tokenizer models, licences. */
const CARRIED = /(?:\.(?:json|jsonl|txt|md|jinja|model|tiktoken|spm|py)|^(?:LICENSE|LICENCE|NOTICE|USE_POLICY|README)(?:\..*)?)$/i;
/** Written anew, or about the source's own files. */
const OWN = new Set(["config.json", "bitwright.json", "model.safetensors.index.json", "pytorch_model.bin.index.json"]);

/**
 * Names of the files to copy beside the weights: tokenizer, generation config, chat template, special tokens, licence.
 *
 * @returns sorted names of regular files (links followed) of at most 128 MB.
 */
export async function carriedFiles(directory: string): Promise<readonly string[]> {
  const names: string[] = [];
  for (const name of await readdir(directory)) {
    if (!CARRIED.test(name) || OWN.has(name) || name.startsWith(".")) continue;
    const facts = await stat(join(directory, name)).catch(() => undefined);
    if (facts?.isFile() === true && facts.size <= MAX_BYTES) names.push(name);
  }
  return names.toSorted();
}
