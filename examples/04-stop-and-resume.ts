// Stop a job half-way with an AbortSignal, then run the same call again: it continues, and the bytes are the same.
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InterruptedError, quantize, type QuantizeOptions } from "bitwright";

const work = await mkdtemp(join(tmpdir(), "bitwright-example-"));
const options = (out: string): QuantizeOptions => ({ recipe: { method: ["rtn"], bits: "w8a8" }, out: join(work, out) });
const hash = async (out: string): Promise<string> =>
  createHash("sha256")
    .update(await readFile(join(work, out, "model.safetensors")))
    .digest("hex");

const controller = new AbortController();
const source = "fixtures/models/tiny-llama";
try {
  await quantize(source, {
    ...options("a"),
    signal: controller.signal,
    onProgress: ({ phase }) => phase === "quantize" && controller.abort(),
  });
  console.log("finished before the signal was seen");
} catch (error) {
  if (!(error instanceof InterruptedError)) throw error;
  console.log(`stopped: ${error.message}`);
}
const { resumed } = await quantize(source, options("a"));
await quantize(source, options("b"));
console.log(`resumed: ${resumed}; same bytes as an uninterrupted run: ${(await hash("a")) === (await hash("b"))}`);
await rm(work, { recursive: true });
