/**
 * Every layout, by name. To add one: a folder beside this file and a line below.
 * @module
 */
import { UnsupportedError } from "../../core/errors.ts";
import { isObject } from "../containers/json.ts";
import { bitwright } from "./bitwright/bitwright.ts";
import { compressedTensors } from "./compressed-tensors/compressed-tensors.ts";
import { dfloat11 } from "./dfloat11/dfloat11.ts";
import type { ArtifactLayout } from "./layout.ts";

export const layouts: ReadonlyMap<string, ArtifactLayout> = new Map(
  [compressedTensors, dfloat11, bitwright].map((layout) => [layout.name, layout]),
);

/**
 * The layout a parsed config.json asks for; undefined for a float model.
 *
 * @throws {UnsupportedError} `unsupported.format` when it names a quantization nothing here reads: its codes must not be taken for weights.
 */
export function findLayout(config: Readonly<Record<string, unknown>> | undefined): ArtifactLayout | undefined {
  if (config === undefined) return undefined;
  for (const layout of layouts.values()) if (layout.matches(config)) return layout;
  const declared = config["quantization_config"];
  if (!isObject(declared)) return undefined;
  const method = declared["quant_method"];
  throw new UnsupportedError(
    "unsupported.format",
    `config.json declares quant_method ${JSON.stringify(method)?.slice(0, 80)}; readable: ${[...layouts.keys()].join(", ")}. Start from the unquantized model instead`,
    { method },
  );
}
