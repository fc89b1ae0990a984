/**
 * The coder of this thread, for readers that live as long as it does.
 * @module
 */
import type { BlockCoder } from "../../formats/encodings/compact/coder.ts";
import { createCompactCoder } from "./coder.ts";

let coder: BlockCoder | undefined;

/** Made when it is first asked for, with memory of its own. */
export function threadCompactCoder(): BlockCoder {
  coder ??= createCompactCoder();
  return coder;
}
