/**
 * The table of architectures. Adding one is a file beside this one and a line here.
 * @module
 */
import { FormatError, UnsupportedError } from "../../core/errors.ts";
import type { Architecture } from "./architecture.ts";
import { isString, type ConfigReader } from "./config.ts";
import { BERT } from "./bert.ts";
import { CLIP_TEXT, CLIP_VISION } from "./clip.ts";
import { GEMMA2 } from "./gemma2.ts";
import { GEMMA3 } from "./gemma3.ts";
import { GPT2 } from "./gpt2.ts";
import { LLAMA } from "./llama.ts";
import { MISTRAL } from "./mistral.ts";
import { MIXTRAL } from "./mixtral.ts";
import { OPT } from "./opt.ts";
import { PHI3 } from "./phi3.ts";
import { QWEN2 } from "./qwen2.ts";
import { QWEN3_MOE } from "./qwen3-moe.ts";
import { QWEN3 } from "./qwen3.ts";
import { VIT } from "./vit.ts";

export const ARCHITECTURES: readonly Architecture[] = [
  LLAMA,
  MISTRAL,
  MIXTRAL,
  QWEN2,
  QWEN3,
  QWEN3_MOE,
  GEMMA2,
  GEMMA3,
  PHI3,
  GPT2,
  OPT,
  BERT,
  VIT,
  CLIP_TEXT,
  CLIP_VISION,
];

export interface FoundArchitecture {
  readonly architecture: Architecture;
  readonly className: string;
}

/**
 * The architecture of a config.json, by class name, else by model_type.
 *
 * @throws {UnsupportedError} `unsupported.architecture` naming the known ones and the closest.
 * @throws {FormatError} `format.config` when config.json names none.
 */
export function findArchitecture(config: ConfigReader): FoundArchitecture {
  const className = config.list("architectures", isString, "class names")?.[0];
  const modelType = config.text("model_type", "");
  if (className !== undefined) {
    const architecture = ARCHITECTURES.find(({ classNames }) => classNames.includes(className));
    if (architecture !== undefined) return { architecture, className };
    const known = ARCHITECTURES.flatMap(({ classNames }) => classNames);
    throw unknown(className, known, "class");
  }
  if (modelType === "") {
    throw new FormatError("format.config", "config.json has neither architectures nor model_type, so the architecture is not known");
  }
  const architecture = ARCHITECTURES.find(({ modelTypes }) => modelTypes.includes(modelType));
  if (architecture === undefined) {
    throw unknown(
      modelType,
      ARCHITECTURES.flatMap(({ modelTypes }) => modelTypes),
      "model_type",
    );
  }
  return { architecture, className: architecture.classNames[0]! };
}

function unknown(name: string, known: readonly string[], what: string): UnsupportedError {
  const closest = closestTo(name, known);
  return new UnsupportedError(
    "unsupported.architecture",
    `no architecture for ${what} ${JSON.stringify(name.slice(0, 80))}: there is no graph for its blocks; known: ${known.join(", ")}; closest: ${closest}`,
    { [what]: name, known, closest },
  );
}

/** The known name with the smallest edit distance, letter case aside. */
export function closestTo(name: string, known: readonly string[]): string {
  const target = name.toLowerCase().slice(0, 80);
  const scored = known.map((candidate) => ({ candidate, distance: editDistance(target, candidate.toLowerCase()) }));
  return scored.reduce((best, next) => (next.distance < best.distance ? next : best)).candidate;
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      row.push(Math.min(previous[j]! + 1, row[j - 1]! + 1, previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    previous = row;
  }
  return previous[b.length]!;
}
