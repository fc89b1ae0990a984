/**
 * Text as a C string literal, for headers written beside emitted kernels.
 * @module
 */

/** `value` in quotes. Names come from files: everything but plain characters becomes an octal escape. */
export function cString(value: string): string {
  const escaped = [...new TextEncoder().encode(value)].map((byte) =>
    /[\w .,:/()[\]-]/.test(String.fromCharCode(byte)) ? String.fromCharCode(byte) : `\\${byte.toString(8).padStart(3, "0")}`,
  );
  return `"${escaped.join("")}"`;
}
