/** The small models of each architecture. */
import { readdirSync } from "node:fs";
import { join } from "node:path";

export const MINIS = join(import.meta.dirname, "../../fixtures/models/minis");

/** Their names; `llama-sharded` is `llama` in several files and shares its golden. */
export const MINI_NAMES = readdirSync(MINIS).toSorted();

/** Those with a language model's head. */
export const DECODERS = MINI_NAMES.filter((name) => name !== "bert");
