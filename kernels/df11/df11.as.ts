// WASM SIMD twin of formats/encodings/dfloat11. AssemblyScript, not TypeScript.
// The loader pads every region, so reads and writes up to 64 bytes past an end are harmless.
export { clearQuads, countExponents, countQuads, foldQuads } from "./count.as";
export { buildQuads, encodeStrip } from "./encode.as";
export { packGaps } from "./gaps.as";
export { decodeBlocks } from "./decode.as";
export { buildTable } from "./look-ups.as";
export { mergePatterns } from "./merge.as";
export { turnStream } from "./rows.as";
// Only so that it stays a function of its own, whose values fit into registers.
export { runChains } from "./chains.as";
