// npm runs this after `npm ci` in a checkout. An install without dev dependencies has nothing to build with: skip.
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

if (existsSync(join(dirname(import.meta.dirname), "node_modules/typescript"))) await import("./build.js");
