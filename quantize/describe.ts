/**
 * The library's tables as data, for `bitwright methods` and `bitwright formats`.
 * @module
 */
import { STATISTICS } from "../calibrate/statistics/index.ts";
import { EXPORTS } from "./exports/index.ts";
import { LOSSLESS_FORMATS, LOSSLESS_METHODS } from "./lossless/methods.ts";
import { METHODS } from "./methods/index.ts";
import { SCHEME_KEYS, type SchemeKey } from "./scheme-keys.ts";
import { TRANSFORMS } from "./transforms/index.ts";

interface Described {
  readonly name: string;
  readonly summary: string;
}

/** Everything `--method`, `--scheme` and `--statistics` take. */
export interface MethodsDescription {
  readonly transforms: readonly Described[];
  readonly methods: readonly Described[];
  readonly schemeKeys: readonly (Described & { readonly values: readonly string[] })[];
  readonly statistics: readonly Described[];
}

/** One format and the directions it goes in. */
export interface FormatDescription extends Described {
  readonly reads: boolean;
  readonly writes: boolean;
}

export function describeMethods(): MethodsDescription {
  const named = (table: Readonly<Record<string, { readonly summary: string }>>): Described[] =>
    Object.entries(table).map(([name, { summary }]) => ({ name, summary }));
  return {
    transforms: named(TRANSFORMS),
    methods: [...named(METHODS), ...named(LOSSLESS_METHODS)],
    schemeKeys: Object.entries(SCHEME_KEYS).map(([name, { summary, values, range, other }]: [string, SchemeKey]) => {
      const allowed = [
        ...(range === undefined ? [] : [`${range[0]} to ${range[1]}`]),
        ...(values ?? []),
        ...(other === undefined ? [] : [`<${other}>`]),
      ];
      return { name: `${name}=${allowed.join("|")}`, summary, values: allowed };
    }),
    statistics: named(STATISTICS),
  };
}

export function describeFormats(): readonly FormatDescription[] {
  return [
    {
      name: "safetensors",
      reads: true,
      writes: true,
      summary: "Hugging Face directories (single file or sharded) and bare .safetensors files",
    },
    { name: "float", reads: true, writes: true, summary: "a plain model directory: `export <artifact> --to float` dequantizes" },
    ...Object.values(EXPORTS).map(({ name, summary }) => ({ name, reads: true, writes: true, summary })),
    ...LOSSLESS_FORMATS.map(({ name, summary }) => ({ name, reads: true, writes: true, summary })),
  ];
}
