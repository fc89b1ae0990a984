/**
 * The version of the installed package.
 * @module
 */
export { version } from "../core/version.ts";
