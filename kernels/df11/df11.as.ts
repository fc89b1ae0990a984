// WASM SIMD twin of formats/encodings/dfloat11. AssemblyScript, not TypeScript.
// The loader pads every region, so reads and writes up to 64 bytes past an end are harmless.
export { clearQuads, countExponents, countQuads, foldQuads } from "./count.as";
export { buildQuads, encodeStrip } from "./encode.as";
export { packGaps } from "./gaps.as";
export { buildTable, decodeBlock, decodeFour, mergePatterns } from "./decode.as";
