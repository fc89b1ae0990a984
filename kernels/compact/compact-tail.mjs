// What a decoder must know of a tensor before it reads blocks: how it is looked at, the end of its payload, and its tables.
// Nothing here is trusted: every length and every class is checked. The format: docs/formats/compact.md.
import { FREQUENCIES, LENGTHS } from "./compact-tables.mjs";

/** Bits of an element by dtype, as in safetensors. */
export const BITS = new Map([
  ...["U64", "I64", "F64", "C64"].map((dtype) => [dtype, 64]),
  ...["F32", "U32", "I32"].map((dtype) => [dtype, 32]),
  ...["BF16", "F16", "U16", "I16"].map((dtype) => [dtype, 16]),
  ...["F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0", "F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"].map((dtype) => [dtype, 8]),
  ...["F6_E3M2", "F6_E2M3"].map((dtype) => [dtype, 6]),
  ["F4", 4],
]);
/** The last bytes of a payload, the same for every tensor. */
export const TAIL_BYTES = 12;
export const LANES = 16;
export const QUEUES = 4;
export const PARTS = 4;

const TABLE_BITS = 12;
const TABLE_SIZE = 4096;
const RAW_PIECE = 262144;
const BLOCK_ELEMENTS = 262144;
const MAX_COLS = 131072;
const MIN_COLS = 16;
const SPLIT_ELEMENTS = 16384;
const MAX_PROGRESSION_BYTES = 2 ** 20;
const CANONICAL = 15;
const NO_COLUMNS = 255;

export const wholeWords = (bytes) => 4 * Math.ceil(bytes / 4);
export const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
/** Whether a block of `count` elements at level `fast` has sixteen streams. */
export const isSplit = (count) => count >= SPLIT_ELEMENTS;

/** Bytes before the raw bits, in a block of `count` elements. */
export function headerBytes(level, count) {
  if (level === "max") return 4 + 4 * LANES;
  return isSplit(count) ? 2 * QUEUES * PARTS : 2;
}

/** Bytes the raw bits of `count` elements take. */
export function rawBitsBytes(kind, count) {
  if (kind === "bytes") return 0;
  if (kind === "f16") return wholeWords(count) + 4 * Math.ceil(count / 32);
  const groups = Math.floor(count / 64);
  return wholeWords(48 * groups + 3 * Math.ceil((count - 64 * groups) / 4));
}

/** A tensor as rows of elements, and rows in blocks. @returns undefined for one that can only be raw. */
function look({ dtype, shape, bytes }) {
  const kind = dtype === "BF16" ? "bf16" : dtype === "F16" ? "f16" : "bytes";
  const elementBytes = kind === "bytes" ? 1 : 2;
  const elements = bytes / elementBytes;
  if (elements === 0) return undefined;
  let cols = shape.length > 1 && Number.isInteger(elements / shape[0]) ? elements / shape[0] : elements;
  if (cols < MIN_COLS) cols = elements;
  if (cols > MAX_COLS) {
    let parts = Math.ceil(cols / MAX_COLS);
    while (parts <= cols / 1024 && cols % parts !== 0) parts++;
    if (parts > cols / 1024) return undefined;
    cols /= parts;
  }
  const rows = elements / cols;
  const rowsPerBlock = Math.min(rows, Math.max(1, Math.floor(BLOCK_ELEMENTS / cols)));
  return { kind, elementBytes, rows, cols, rowsPerBlock, blocks: Math.ceil(rows / rowsPerBlock) };
}

/** Bytes of the tail, from the payload's last twelve. */
export function tailLength(name, last, payloadBytes) {
  const length = viewOf(last).getUint32(TAIL_BYTES - 4, true);
  if (length < TAIL_BYTES || length > payloadBytes || length % 4 !== 0)
    throw new Error(`tensor ${name}: a tail of ${length} bytes in ${payloadBytes}`);
  return length;
}

/**
 * Reads and checks a tail.
 *
 * @param {{ name: string, dtype: string, shape: readonly number[], bytes: number }} tensor
 * @param {Uint8Array} tail - `tailLength` bytes.
 * @returns what to decode: `mode` is "raw", "progression" or "coded"; `starts` has where each block lies in the payload, and the end of the last;
 *   `unit` the decoded bytes of each block but the last.
 */
export function parseTail(tensor, tail, payloadBytes) {
  const fail = (text) => new Error(`tensor ${tensor.name}: ${text}`);
  const numbers = viewOf(tail);
  const fixed = tail.subarray(tail.length - TAIL_BYTES);
  const mode = fixed[0];
  if (mode === 0) return parseRaw(tensor, numbers, payloadBytes, fail);
  if (mode === 3) return parseProgression(tensor, numbers, payloadBytes, fail);
  const view = look(tensor);
  if (view === undefined || mode > 3 || (mode === 2) !== (view.kind === "bytes"))
    throw fail(`mode ${mode} is not one for ${tensor.dtype} of this shape`);
  const level = ["", "max", "fast"][fixed[1]];
  if (!level) throw fail(`level ${fixed[1]} is unknown`);
  const sumsAt = tail.length - TAIL_BYTES - 4 * view.blocks;
  const lengthsAt = sumsAt - 4 * (view.blocks - 1);
  if (lengthsAt < 0) throw fail(`its tail is too short for the index of ${view.blocks} blocks`);
  // A class takes a bit at least: nothing much larger than the file is made.
  if (mode === 1 && view.rows > 8 * lengthsAt) throw fail(`${view.rows} row classes in ${lengthsAt} bytes`);
  const packed = tail.subarray(0, lengthsAt);
  const model = mode === 1 ? parseClasses(view, fixed, packed, fail) : parseFrequencies(fixed, packed, fail);
  const unit = view.rowsPerBlock * view.cols * view.elementBytes;
  const starts = [];
  const checksums = [];
  const end = payloadBytes - tail.length;
  let at = 0;
  for (let b = 0; b < view.blocks; b++) {
    const decoded = Math.min(unit, tensor.bytes - b * unit);
    const count = decoded / view.elementBytes;
    const length = b + 1 < view.blocks ? numbers.getUint32(lengthsAt + 4 * b, true) : end - at;
    const least = Math.min(wholeWords(decoded), headerBytes(level, count) + rawBitsBytes(view.kind, count));
    if (length < least || length % 4 !== 0 || length > wholeWords(decoded)) throw fail(`block ${b} cannot have ${length} bytes`);
    starts.push(at);
    checksums.push(numbers.getUint32(sumsAt + 4 * b, true));
    at += length;
  }
  return { mode: "coded", level, ...view, ...model, unit, starts: [...starts, at], checksums };
}

function parseRaw({ bytes }, numbers, payloadBytes, fail) {
  const pieces = Math.ceil(bytes / RAW_PIECE);
  if (numbers.byteLength !== TAIL_BYTES + 4 * pieces || payloadBytes !== wholeWords(bytes) + numbers.byteLength)
    throw fail(`${payloadBytes} bytes hold no raw tensor of ${bytes}`);
  const starts = Array.from({ length: pieces + 1 }, (_, p) => Math.min(p * RAW_PIECE, bytes));
  return { mode: "raw", unit: RAW_PIECE, starts, checksums: Array.from({ length: pieces }, (_, p) => numbers.getUint32(4 * p, true)) };
}

function parseProgression({ dtype, bytes }, numbers, payloadBytes, fail) {
  const bits = BITS.get(dtype);
  const width = bits < 16 ? 1 : bits / 8;
  if (bytes > MAX_PROGRESSION_BYTES || numbers.byteLength !== 20 + TAIL_BYTES || payloadBytes !== numbers.byteLength)
    throw fail(`${payloadBytes} bytes hold no progression of ${bytes}`);
  return {
    mode: "progression",
    width,
    first: numbers.getBigUint64(0, true),
    step: numbers.getBigUint64(8, true),
    unit: Math.max(1, bytes),
    starts: [0, 0],
    checksums: [numbers.getUint32(16, true)],
  };
}

function parseClasses(view, fixed, packed, fail) {
  const bases = viewOf(fixed);
  let at = 0;
  const peek = () => {
    const i = at >> 3;
    return ((packed[i] ?? 0) | ((packed[i + 1] ?? 0) << 8) | ((packed[i + 2] ?? 0) << 16)) >> (at & 7);
  };
  const take = (bits) => {
    const value = peek() & ((1 << bits) - 1);
    at += bits;
    if (at > 8 * packed.length) throw fail("its classes are cut short");
    return value;
  };
  const readRice = (k) => {
    let v = 0;
    while (take(1) === 1) if (++v > 2048) throw fail("a class has no end");
    v = v * 2 ** k + take(k);
    return v % 2 === 0 ? v / 2 : -(v + 1) / 2;
  };
  const readCodes = () => {
    const lengths = Array.from({ length: take(8) + 1 }, () => take(4));
    const byBits = canonicalCodes(lengths);
    if (byBits === undefined) throw fail("the lengths of its class codes fit no code");
    return () => {
      const entry = byBits[peek() & (TABLE_SIZE - 1)];
      take(entry & 0xff);
      return entry >> 8;
    };
  };
  const read = (count, base, parameter, min, max) => {
    if (parameter > 7 && parameter !== CANONICAL) throw fail(`class parameter ${parameter} is unknown`);
    const next = parameter === CANONICAL ? readCodes() : () => readRice(parameter);
    const values = new Int16Array(count);
    for (let i = 0; i < count; i++) {
      const value = base + next();
      if (value < min || value > max) throw fail(`class ${i} is ${value}, outside ${min}..${max}`);
      values[i] = value;
    }
    return values;
  };
  const rowClasses = read(view.rows, bases.getInt16(4, true), fixed[2], 0, 1023);
  const columnClasses = fixed[3] === NO_COLUMNS ? new Int16Array(view.cols) : read(view.cols, bases.getInt16(6, true), fixed[3], -127, 127);
  if (4 * Math.ceil(at / 32) !== packed.length) throw fail("its classes do not fill their bytes");
  return { rowClasses, columnClasses };
}

function parseFrequencies(fixed, packed, fail) {
  const [first, last] = [fixed[2], fixed[3]];
  if (last < first || packed.length !== wholeWords(((last - first + 1) * 12) / 8))
    throw fail(`a table for symbols ${first} to ${last} does not have ${packed.length} bytes`);
  const frequencies = Array.from({ length: 256 }, () => 0);
  for (let s = first; s <= last; s++) {
    const bit = 12 * (s - first);
    frequencies[s] = ((packed[bit >> 3] | ((packed[(bit >> 3) + 1] ?? 0) << 8)) >> (bit % 8)) & 0xfff;
  }
  // A sum of 4096 with 12 bits each means two symbols at least.
  const sum = frequencies.reduce((total, frequency) => total + frequency, 0);
  if (sum !== TABLE_SIZE) throw fail(`the frequencies sum to ${sum}, not ${TABLE_SIZE}`);
  return { table: buildTable(frequencies, limitedLengths(frequencies)) };
}

/** The constant tables of floats, in order of class mod 4. */
export const floatTables = () => FREQUENCIES.map((frequencies, t) => buildTable(frequencies, LENGTHS[t]));

/**
 * Look-up tables as the kernels read them: `bySlot` frequency << 20 | (slot - start) << 8 | symbol; by the next 12 bits `singles`
 * symbol << 8 | bits, and `triples` one to three symbols in the low bytes, their bits << 24, their number << 30.
 */
function buildTable(frequencies, lengths) {
  const bySlot = new Uint32Array(TABLE_SIZE);
  let slot = 0;
  for (const [symbol, frequency] of frequencies.entries())
    for (let i = 0; i < frequency; i++) bySlot[slot++] = (frequency << 20) | (i << 8) | symbol;
  const singles = canonicalCodes(lengths);
  const triples = new Uint32Array(TABLE_SIZE);
  for (let bits = 0; bits < TABLE_SIZE; bits++) {
    let [symbols, used, taken] = [0, 0, 0];
    for (; taken < 3; taken++) {
      const entry = singles[bits >> used];
      if (used + (entry & 0xff) > TABLE_BITS) break;
      symbols |= (entry >> 8) << (8 * taken);
      used += entry & 0xff;
    }
    triples[bits] = symbols | (used << 24) | (taken << 30);
  }
  return { bySlot, singles, triples };
}

/** By the next 12 bits, symbol << 8 | length; codes by length, then by symbol, the first bit lowest. @returns undefined when the lengths make no code. */
function canonicalCodes(lengths) {
  let space = 0;
  for (const length of lengths) if (length > 0) space += length > TABLE_BITS ? Infinity : TABLE_SIZE >> length;
  if (space !== TABLE_SIZE) return undefined;
  const byBits = new Uint16Array(TABLE_SIZE);
  let code = 0;
  for (let length = 1; length <= TABLE_BITS; length++) {
    code <<= 1;
    for (const [symbol, own] of lengths.entries()) {
      if (own !== length) continue;
      let reversed = 0;
      for (let bit = 0; bit < length; bit++) reversed |= ((code >> bit) & 1) << (length - 1 - bit);
      for (let rest = reversed; rest < TABLE_SIZE; rest += 1 << length) byBits[rest] = (symbol << 8) | length;
      code++;
    }
  }
  return byBits;
}

/** Code lengths of at most 12 bits with the least total (package-merge); equal weights keep the order of symbols, and symbols go before packages. */
function limitedLengths(frequencies) {
  const symbols = frequencies.map((weight, symbol) => ({ weight, symbols: [symbol] })).filter(({ weight }) => weight > 0);
  symbols.sort((a, b) => a.weight - b.weight);
  let list = symbols;
  for (let level = 1; level < TABLE_BITS; level++) {
    const packages = [];
    for (let i = 0; i + 1 < list.length; i += 2)
      packages.push({ weight: list[i].weight + list[i + 1].weight, symbols: [...list[i].symbols, ...list[i + 1].symbols] });
    list = [...symbols, ...packages].toSorted((a, b) => a.weight - b.weight);
  }
  const lengths = Array.from({ length: frequencies.length }, () => 0);
  for (const item of list.slice(0, 2 * symbols.length - 2)) for (const symbol of item.symbols) lengths[symbol]++;
  return lengths;
}
