/**
 * Token ids in safetensors: I32 or I64, shape [n, length] or [length].
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { openFileSource } from "../../formats/containers/bytes.ts";
import { openSafetensors } from "../../formats/containers/safetensors/read.ts";
import { hostTensorOf } from "../../model/host-tensor.ts";
import { checkIds, type SampleDocument } from "./document.ts";

const PREFERRED = ["input_ids", "ids", "tokens"];

/** One document a row. @throws {InputError} `input.data` when no tensor, or more than one, can be meant. */
export async function* readIdTensors(path: string): AsyncIterable<SampleDocument> {
  const source = await openFileSource(path);
  try {
    const { tensors } = await openSafetensors(source);
    const fitting = [...tensors.values()].filter(
      ({ dtype, shape }) => (dtype === "I32" || dtype === "I64") && (shape.length === 1 || shape.length === 2),
    );
    const chosen =
      PREFERRED.flatMap((name) => fitting.filter((tensor) => tensor.name === name))[0] ?? (fitting.length === 1 ? fitting[0] : undefined);
    if (chosen === undefined) {
      const found = fitting.length === 0 ? "none" : fitting.map((tensor) => tensor.name).join(", ");
      throw new InputError(
        "input.data",
        `${path}: expected one I32 or I64 tensor of ids [n, length], found ${found}; name it "input_ids"`,
        { path },
      );
    }
    const ids = checkIds(hostTensorOf(await chosen.read()).data, `${path}: ${chosen.name}`);
    const length = chosen.shape.at(-1)!;
    for (let row = 0; row * length < ids.length; row++) {
      const content = { kind: "ids", ids: ids.slice(row * length, (row + 1) * length) } as const;
      yield { where: `${path}: ${chosen.name}[${row}]`, content, packing: chosen.shape.length === 1 ? "pack" : "truncate" };
    }
  } finally {
    await source.close();
  }
}
