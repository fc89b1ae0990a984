/**
 * What each kind of tensor takes in compact files, and what codes of single exponents would.
 * @module
 */
import type { DType } from "../../../core/dtype.ts";
import { elementCount } from "../../../core/dtype.ts";
import { openCompactFile } from "../../../formats/containers/compact/open.ts";
import { threadCompactCoder } from "../../../kernels/compact/thread-coder.ts";
import { createExponentCounter, STRIP } from "../../../kernels/df11/unit-encoder.ts";
import { createWorkspace } from "../../../kernels/load-wasm.ts";

/** Tensors of one name (layer numbers aside) and dtype. All bits are per element. */
export interface InspectedKind {
  /** Tensor name with "N" for numbers. */
  readonly name: string;
  readonly dtype: DType;
  readonly tensors: number;
  readonly elements: number;
  /** Stored bytes, heads included; a tensor equal to another takes none. */
  readonly bytes: number;
  readonly bitsPerWeight: number;
  /** BF16: entropy of the exponents, each for itself, and 8 bits; for larger files it is not measured. */
  readonly entropyBound?: number;
}

/** Decoded bytes up to which exponents are counted. */
const COUNTED_BYTES = 2 ** 29;

interface Sum {
  readonly name: string;
  readonly dtype: DType;
  tensors: number;
  elements: number;
  bytes: number;
  readonly counts: Float64Array;
}

/** @throws {FormatError} naming a tensor that does not decode. */
export async function inspectCompact(paths: readonly string[]): Promise<readonly InspectedKind[]> {
  const files = await Promise.all(paths.map((path) => openCompactFile(path, threadCompactCoder())));
  const isCounted = files.reduce((sum, { fileBytes }) => sum + fileBytes, 0) <= COUNTED_BYTES;
  const workspace = createWorkspace();
  const counter = createExponentCounter(workspace);
  const kinds = new Map<string, Sum>();
  for (const file of files) {
    for (const tensor of file.tensors.values()) {
      const { name, dtype, shape } = tensor;
      const kind = name.replaceAll(/(?<=\.)\d+(?=\.)/g, "N");
      const key = `${dtype} ${kind}`;
      const sum = kinds.get(key) ?? { name: kind, dtype, tensors: 0, elements: 0, bytes: 0, counts: new Float64Array(256) };
      kinds.set(key, sum);
      const stored = await file.stored(name);
      sum.tensors++;
      sum.elements += elementCount(shape);
      sum.bytes += stored.sameAs === undefined ? stored.bytes : 0;
      if (!isCounted || dtype !== "BF16") continue;
      counter.counts.fill(0);
      const { bytes } = await tensor.read();
      for (let at = 0; at < bytes.length; at += 2 * STRIP) {
        const piece = bytes.subarray(at, at + 2 * STRIP);
        workspace.bytes(counter.input).set(piece);
        counter.add(piece.length / 2);
      }
      counter.counts.forEach((count, exponent) => (sum.counts[exponent]! += count));
    }
  }
  return [...kinds.values()].map(({ counts, ...sum }) => ({
    ...sum,
    bitsPerWeight: (8 * sum.bytes) / Math.max(1, sum.elements),
    ...(isCounted && sum.dtype === "BF16" && sum.elements > 0 && { entropyBound: 8 + entropy(counts, sum.elements) }),
  }));
}

/** Bits an element. */
function entropy(counts: Float64Array, total: number): number {
  return -counts.reduce((sum, count) => (count === 0 ? sum : sum + (count / total) * Math.log2(count / total)), 0);
}
