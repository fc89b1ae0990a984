/**
 * Recipes as text: `--method smoothquant+rtn` and what it stands for.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { LOSSLESS_METHODS } from "./lossless/methods.ts";
import { findMethod, METHODS } from "./methods/index.ts";
import type { Method, Transform } from "./method.ts";
import { findTransform, TRANSFORMS } from "./transforms/index.ts";

/** A method text taken apart: transforms in order, then exactly one method. */
export interface MethodChain {
  readonly transforms: readonly Transform[];
  readonly method: Method;
}

/** Names that `--method` takes, transforms first. */
export function methodNames(): readonly string[] {
  return [...Object.keys(TRANSFORMS), ...Object.keys(METHODS), ...Object.keys(LOSSLESS_METHODS)];
}

/** "smoothquant+rtn" → ["smoothquant", "rtn"]; names are checked by `resolveMethods`. */
export function parseMethod(text: string): readonly string[] {
  return text.split("+").map((name) => name.trim().toLowerCase());
}

/**
 * Look names up; transforms alone end in `rtn`.
 *
 * @throws {InputError} `input.option` for an unknown name (`details.known` lists all), two methods, a repeated transform, or a transform
 *   behind the method.
 */
export function resolveMethods(names: readonly string[]): MethodChain {
  if (names.length === 0) throw new InputError("input.option", `--method is empty; choose from ${methodNames().join(", ")}`);
  const transforms: Transform[] = [];
  let method: Method | undefined;
  for (const name of names) {
    const transform = findTransform(name);
    const found = findMethod(name);
    if (transform === undefined && found === undefined) {
      const known = methodNames();
      throw new InputError("input.option", `--method "${name}" is not known; choose from ${known.join(", ")}, joined by "+"`, {
        option: "method",
        given: name,
        known,
      });
    }
    if (method !== undefined) {
      throw new InputError(
        "input.option",
        `--method: nothing may follow the method ${method.name}, got ${name}${transform === undefined ? "" : `; write ${name}+${method.name}`}`,
        {
          option: "method",
          given: names.join("+"),
        },
      );
    }
    if (transform !== undefined && transforms.includes(transform)) {
      throw new InputError("input.option", `--method names ${name} twice`, { option: "method", given: names.join("+") });
    }
    if (transform !== undefined) transforms.push(transform);
    method = found;
  }
  return { transforms, method: method ?? METHODS.rtn };
}
