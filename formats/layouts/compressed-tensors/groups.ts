/**
 * `quantization_config`: sites with the same scheme become one group.
 *
 * What loaders do with targets decides their spelling. transformers looks for an exact name, then a pattern, then the
 * class. vLLM looks for the name of the layer it built, then the class, and only then for the shards of a fused layer
 * (qkv_proj, gate_up_proj): next to "Linear", a name of one shard is never found. So the largest group is "Linear" only
 * if no other group names a shard; otherwise every group lists its modules.
 *
 * Weight-only sites of a W8A8 artifact are such another group, pack-quantized with 8 bits: that is what the library's own
 * inference chooses for integers without quantized inputs, and the weight-only form vLLM has kernels for (int-quantized
 * without inputs is refused there). The config's own format is then "mixed-precision" and each group carries its own.
 *
 * Sources: compressed-tensors 0.19 `match_targets`, `infer_module_format`; vLLM `find_matched_target`, `should_ignore_layer`.
 * @module
 */
import { InputError, UnsupportedError } from "../../../core/errors.ts";
import { schemeName, type QuantScheme } from "../../../core/scheme.ts";
import type { Site } from "./format.ts";
import { createNameMatcher } from "./match.ts";
import { argsOf } from "./scheme.ts";
import { formatFor } from "./write.ts";

/** Release whose spelling is written; readers take it as information. */
const VERSION = "0.19.0";

export interface ConfigSite {
  readonly module: string;
  readonly weight: QuantScheme;
  readonly input?: QuantScheme;
  readonly output?: QuantScheme;
}

/** Modules that vLLM loads as one layer, by the last part of their names; they must share a scheme. */
const FUSED: readonly (readonly string[])[] = [
  ["q_proj", "k_proj", "v_proj"],
  ["gate_proj", "up_proj"],
  ["query", "key", "value"],
  ["w1", "w3"],
];
const FUSED_OF: ReadonlyMap<string, readonly string[]> = new Map(
  FUSED.flatMap((shards) => shards.map((shard) => [shard, shards] as const)),
);

/** `model.layers.3.mlp.experts.7.down_proj`: all experts of a layer run as one kernel. */
const EXPERT = /^(.*\.experts)\.\d+\.[^.]+$/;

/**
 * The `quantization_config` of an artifact, ready for config.json.
 *
 * @param sites - every quantized module; `rows` and `cols` are not needed.
 * @param ignore - every linear module left alone, by name or as "re:..." pattern.
 * @throws {InputError} `input.value` for a module given twice or also ignored, `input.no-data` without sites.
 * @throws {UnsupportedError} `unsupported.scheme` when modules that loaders fuse (q/k/v, gate/up, experts) differ, or a scheme cannot be held.
 */
export function quantizationConfig(sites: readonly ConfigSite[], ignore: readonly string[]): Record<string, unknown> {
  if (sites.length === 0) throw new InputError("input.no-data", "quantization_config needs at least one quantized module");
  checkSites(sites, ignore);
  const groups = groupSites(sites);
  const hasShards = groups.slice(1).some(({ modules }) => modules.some((module) => FUSED_OF.has(lastPart(module)) || EXPERT.test(module)));
  const formats = [...new Set(groups.map(({ format }) => format))];
  const configGroups = groups.map(({ scheme, format, modules }, i) => [
    `group_${i}`,
    { ...scheme, targets: i === 0 && !hasShards ? ["Linear"] : modules, format },
  ]);
  return {
    quant_method: "compressed-tensors",
    version: VERSION,
    format: formats.length === 1 ? formats[0] : "mixed-precision",
    quantization_status: "compressed",
    global_compression_ratio: null,
    kv_cache_scheme: null,
    ignore: [...new Set(ignore)],
    config_groups: Object.fromEntries(configGroups),
  };
}

interface Group {
  readonly scheme: Record<string, unknown>;
  readonly format: string;
  readonly modules: string[];
}

/** Largest group first, then in order of appearance. */
function groupSites(sites: readonly ConfigSite[]): readonly Group[] {
  const groups = new Map<string, Group>();
  for (const site of sites) {
    const { name: format } = formatFor(site.module, shapeless(site));
    const scheme = schemeArgs(site);
    const key = JSON.stringify([scheme, format]);
    const group = groups.get(key) ?? { scheme, format, modules: [] };
    group.modules.push(site.module);
    groups.set(key, group);
  }
  return [...groups.values()].toSorted((a, b) => b.modules.length - a.modules.length);
}

/** Whether shapes fit is decided where tensors are laid out; here every group size is taken to divide. */
function shapeless({ weight, input, output }: ConfigSite): Site {
  const cols = weight.granularity.kind === "group" ? weight.granularity.size : 1;
  return { weight, rows: 1, cols, ...(input === undefined ? {} : { input }), ...(output === undefined ? {} : { output }) };
}

function schemeArgs({ weight, input, output }: ConfigSite): Record<string, unknown> {
  return {
    weights: argsOf(weight),
    input_activations: input === undefined ? null : argsOf(input),
    output_activations: output === undefined ? null : argsOf(output),
  };
}

function checkSites(sites: readonly ConfigSite[], ignore: readonly string[]): void {
  const byName = new Map<string, ConfigSite>();
  const isIgnored = createNameMatcher(ignore);
  for (const site of sites) {
    if (byName.has(site.module)) throw new InputError("input.value", `module ${site.module} is given twice`, { module: site.module });
    if (isIgnored(site.module))
      throw new InputError("input.value", `module ${site.module} is quantized, but also ignored`, { module: site.module });
    byName.set(site.module, site);
  }
  const experts = new Map<string, ConfigSite>();
  for (const site of sites) {
    const last = lastPart(site.module);
    const prefix = site.module.slice(0, -last.length);
    for (const shard of FUSED_OF.get(last) ?? []) {
      const other = byName.get(prefix + shard);
      if (other !== undefined) requireEqual(site, other);
      else if (isIgnored(prefix + shard)) throw differ(site.module, describe(site), prefix + shard, "left alone");
    }
    const layer = EXPERT.exec(site.module)?.[1];
    if (layer === undefined) continue;
    const first = experts.get(layer);
    if (first === undefined) experts.set(layer, site);
    else requireEqual(first, site);
  }
}

function requireEqual(a: ConfigSite, b: ConfigSite): void {
  if (JSON.stringify(schemeArgs(a)) !== JSON.stringify(schemeArgs(b))) throw differ(a.module, describe(a), b.module, describe(b));
}

function differ(a: string, schemeA: string, b: string, schemeB: string): UnsupportedError {
  return new UnsupportedError(
    "unsupported.scheme",
    `${a} (${schemeA}) and ${b} (${schemeB}) are one layer in vLLM and must share a scheme; give both the same, or ignore both`,
    { modules: [a, b] },
  );
}

function describe({ weight, input, output }: ConfigSite): string {
  const parts = [
    schemeName(weight),
    ...(input === undefined ? [] : [`input ${schemeName(input)}`]),
    ...(output === undefined ? [] : [`output ${schemeName(output)}`]),
  ];
  return parts.join(", ");
}

function lastPart(module: string): string {
  return module.slice(module.lastIndexOf(".") + 1);
}
