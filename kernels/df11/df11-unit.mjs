// What the decoders of this folder share: checks of a unit's structure, and the self-test.

export const BLOCK_BYTES = 4096;
export const WINDOWS_PER_BLOCK = 512;

/**
 * A unit: Uint8Arrays as they lie in the safetensors file.
 *
 * @typedef {{ luts: Uint8Array, encodedExponent: Uint8Array, signMantissa: Uint8Array, outputPositions: Uint8Array, gaps: Uint8Array }} Unit
 */

/**
 * Everything that can be checked before the stream is read.
 *
 * @param {Unit} unit
 * @returns {{ rows: number, blocks: number, position: (block: number) => number }} decode rows of luts; first weight of each block.
 */
export function checkUnit({ luts, encodedExponent, signMantissa, outputPositions, gaps }) {
  const rows = luts.length / 256 - 1;
  const blocks = Math.ceil(encodedExponent.length / BLOCK_BYTES);
  if (!Number.isInteger(rows) || rows < 1 || rows > 17) throw new Error("luts must have 2 to 18 rows of 256");
  const lengths = luts.subarray(256 * rows);
  if (lengths.some((length) => length > 32)) throw new Error("luts have a code of more than 32 bits");
  for (let i = 0; i < 256 * rows; i++) {
    // Pointers only lead down, so following them ends.
    const target = 256 - luts[i];
    if (luts[i] >= 240 ? target >= rows || target <= i >> 8 : lengths[luts[i]] === 0) throw new Error(`slot ${i} of luts leads nowhere`);
  }
  const entries = outputPositions.length / 4;
  const positions = new DataView(outputPositions.buffer, outputPositions.byteOffset, outputPositions.byteLength);
  // The official encoder leaves the last entry out when the last code straddles a block and ends on a byte.
  const position = (block) => (block < entries ? positions.getUint32(4 * block, true) : signMantissa.length);
  const isShort = blocks > 0 && entries === blocks && position(blocks - 1) === signMantissa.length;
  if ((entries !== blocks + 1 && !isShort) || gaps.length !== 320 * blocks)
    throw new Error("output_positions or gaps do not fit the stream");
  if (position(0) !== 0 || position(blocks) !== signMantissa.length) throw new Error("output_positions do not fit sign_mantissa");
  for (let block = 0; block < blocks; block++) {
    const count = position(block + 1) - position(block);
    if (count < 0 || count > 8 * BLOCK_BYTES) throw new Error(`block ${block} has ${count} weights`);
  }
  return { rows, blocks, position };
}

/** Whether Node was started with the module of this URL. */
export function isMain(url) {
  const script = globalThis.process?.argv?.[1];
  return script !== undefined && url.endsWith(`/${script.split(/[/\\]/).pop()}`);
}

/**
 * Decodes the unit that df11_selftest.json names, compares the SHA-256 of each tensor, and sets the exit code.
 *
 * @param {string} artifact - its directory.
 * @param {(unit: Unit) => Uint16Array | Promise<Uint16Array>} decode
 */
export async function selfTest(artifact, decode) {
  const { readFile, open } = await import("node:fs/promises");
  const { createHash } = await import("node:crypto");
  const { file, unit, arrays, members } = JSON.parse(await readFile(new URL("df11_selftest.json", import.meta.url), "utf8"));
  const handle = await open(`${artifact}/${file}`);
  const read = async (name) => {
    const [offset, length] = arrays[name];
    const bytes = new Uint8Array(length);
    if ((await handle.read(bytes, 0, length, offset)).bytesRead !== length) throw new Error(`${file} is too short`);
    return bytes;
  };
  const patterns = await decode({
    luts: await read("luts"),
    encodedExponent: await read("encoded_exponent"),
    signMantissa: await read("sign_mantissa"),
    outputPositions: await read("output_positions"),
    gaps: await read("gaps"),
  });
  await handle.close();
  let at = 0;
  for (const { name, elements, sha256 } of members) {
    const found = createHash("sha256")
      .update(new Uint8Array(patterns.buffer, 2 * at, 2 * elements))
      .digest("hex");
    at += elements;
    if (found === sha256) continue;
    console.log(`${name}: sha256 is ${found}, must be ${sha256}`);
    process.exitCode = 1;
  }
  if (process.exitCode !== 1) console.log(`ok: unit ${unit}, ${patterns.length} weights, every sha256 as stored`);
}
