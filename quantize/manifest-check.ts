/**
 * The shape of a manifest: what other code may rely on once a `bitwright.json` from anywhere has been read.
 * @module
 */
import { z } from "zod";
import { DTYPES } from "../core/dtype.ts";
import { schemeName, type QuantScheme } from "../core/scheme.ts";

const scheme = z.custom<QuantScheme>((value) => {
  try {
    // Whoever reads a scheme names it; what has no name is none.
    return typeof value === "object" && value !== null && schemeName(value as QuantScheme) !== "";
  } catch {
    return false;
  }
}, "must be a scheme");
const text = z.string();
const factors = z.base64().refine((value) => Buffer.byteLength(value, "base64") % 4 === 0, "must hold whole f32 values");

export const MANIFEST_SHAPE = z.looseObject({
  tool: z.literal("bitwright"),
  version: text,
  plan: z.looseObject({
    source: z.looseObject({ path: text }),
    recipe: z.looseObject({ method: z.array(text) }),
    transforms: z.array(text),
    method: text,
    sites: z.array(
      z.looseObject({
        name: text,
        weight: scheme.optional(),
        input: scheme.optional(),
        output: scheme.optional(),
      }),
    ),
  }),
  sites: z.array(z.looseObject({ name: text, sqnr: z.number().nullable() })),
  tensors: z.record(
    text,
    z.looseObject({ file: text, sha256: text, dtype: z.enum(Object.keys(DTYPES)), shape: z.array(z.int().nonnegative()) }),
  ),
  files: z.record(text, z.looseObject({ bytes: z.number(), sha256: text })),
  pairs: z.array(z.looseObject({ name: text, note: text })),
  factors: z.record(text, factors),
  folds: z.record(text, z.looseObject({ rows: text.optional(), cols: text.optional() })),
  replaced: z.array(text),
  orders: z.record(text, z.looseObject({ outer: text.optional(), inner: text.optional() })).optional(),
  added: z.array(text).optional(),
});

/** What is wrong with a parsed manifest, or undefined. */
export function manifestProblem(parsed: unknown): string | undefined {
  const issue = MANIFEST_SHAPE.safeParse(parsed).error?.issues[0];
  return issue === undefined ? undefined : `${issue.path.join(".")}: ${issue.message}`;
}
