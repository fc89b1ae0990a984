/**
 * Every lossless codec, by name. To add one: a file beside this one and a line below.
 * @module
 */
import type { UnitCodec } from "./codec.ts";
import { df11Codec } from "./df11-codec.ts";

export const CODECS: ReadonlyMap<string, UnitCodec> = new Map([df11Codec].map((codec) => [codec.name, codec]));
