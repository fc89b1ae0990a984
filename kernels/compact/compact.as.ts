// WASM SIMD twin of formats/encodings/compact. AssemblyScript, not TypeScript.
// The loader pads every region, so reads and writes up to 64 bytes past an end are harmless.
//
// kind: 0 bf16, 1 f16, 2 bytes. Sizes are checked before a call; what the streams hold is not trusted.
export { addColumns, cheapestRows, countBytes, sumRows } from "./classes.as";
export { fillColumns } from "./columns.as";
export { checksumLanes, copyBytes } from "./checksum.as";
export { packRawBits, unpackRawBits } from "./raw-bits.as";
export { toSymbols } from "./symbols.as";
export { decodeRans, encodeRans } from "./rans.as";
export { decodeQueues, decodeStream, encodeQueues, encodeStream, fromQueues, toQueues } from "./huffman.as";
