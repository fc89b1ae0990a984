// Blocks of compact tensors to their bytes, by compact.wasm. One thread, and a memory of its own of a few MiB: a block has 262,144 elements at most.
import { floatTables, headerBytes, isSplit, LANES, PARTS, QUEUES, rawBitsBytes, viewOf, wholeWords } from "./compact-tail.mjs";

const PAGE = 65536;
const MAX_PAGES = 32768;
/** Element kinds by the number the kernels know them by. */
const KINDS = ["bf16", "f16", "bytes"];
const STATE_MIN = 65536;
/** Bytes of an element's code at most: how far a damaged stream can make a kernel read. */
const CODE_BYTES = 2;

/** @param {BufferSource | WebAssembly.Module} wasm - bytes of compact.wasm, or the module. */
export async function createBlockDecoder(wasm) {
  const memory = new WebAssembly.Memory({ initial: 16, maximum: MAX_PAGES });
  const module = wasm instanceof WebAssembly.Module ? wasm : await WebAssembly.compile(wasm);
  const kernel = (await WebAssembly.instantiate(module, { env: { memory } })).exports;
  let heap = new Uint8Array(memory.buffer);
  let next = 1024;
  /** Room at a multiple of 64, with 64 bytes behind it that vectors may touch. */
  const take = (bytes) => {
    const at = next;
    next = 64 * Math.ceil((at + bytes) / 64) + 64;
    const missing = Math.ceil((next - heap.length) / PAGE);
    if (missing > 0) {
      memory.grow(missing);
      heap = new Uint8Array(memory.buffer);
    }
    return at;
  };
  const put = (at, array) => heap.set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength), at);
  const takeTables = () => ({ bySlot: take(65536), singles: take(32768), triples: take(65536) });
  const putTable = (places, t, table) => {
    put(places.bySlot + 16384 * t, table.bySlot);
    put(places.singles + 8192 * t, table.singles);
    put(places.triples + 16384 * t, table.triples);
  };
  const floats = takeTables();
  for (const [t, table] of floatTables().entries()) putTable(floats, t, table);
  const bytes = takeTables();
  const shuffles = take(256);
  put(shuffles, wordShuffles());
  const lanes = take(64);
  const states = take(4 * LANES);
  const pointers = take(4 * QUEUES);
  const queueSizes = take(4 * QUEUES);
  const streams = take(4 * QUEUES * PARTS);
  const scratch = take(128);
  const base = next;
  /** The tensor whose tables lie in the memory, and where; what lies behind `mark` is a block's. */
  let current;
  let columns;
  let mark = base;

  function prepare(tensor) {
    if (current !== tensor) {
      next = base;
      current = undefined;
      if (tensor.kind === "bytes") putTable(bytes, 0, tensor.table);
      columns = takeColumns(tensor);
      current = tensor;
      mark = next;
    }
    next = mark;
  }

  /** What the kernels need of columns: `stride` entries for each row class mod 4. Bytes have no classes. */
  function takeColumns({ cols, columnClasses = [] }) {
    const stride = 16 * Math.ceil(cols / 16);
    const [zeros, tableBits, slotOffsets] = [take(8 * stride), take(4 * stride), take(8 * stride)];
    const [packs, unpacks, counts] = [take(4 * stride), take(4 * stride), take(stride / 4)];
    const classes = columnClasses.length > 0 ? take(2 * cols) : 0;
    if (classes > 0) put(classes, columnClasses);
    kernel.fillColumns(classes, cols, stride, zeros, tableBits, slotOffsets, packs, unpacks, counts);
    return { stride, zeros, slotOffsets, unpacks, counts };
  }

  function checksumAt(at, length) {
    kernel.checksumLanes(at, length, lanes);
    return finishChecksum(new Int32Array(memory.buffer, lanes, 16), length);
  }

  /** The checksum of bytes; tables of a tensor are forgotten for it. */
  function checksum(content) {
    current = undefined;
    next = base;
    const at = take(content.length);
    heap.set(content, at);
    return checksumAt(at, content.length);
  }

  /**
   * Decodes block `b` of a tensor that `parseTail` gave.
   *
   * @param {Uint8Array} block - as it lies in the file.
   * @param {Uint8Array} out - receives the elements.
   * @returns {number} their checksum, still to be compared.
   */
  function decodeBlock(label, tensor, b, block, out) {
    const fail = (text) => new Error(`${label}: ${text}`);
    if (block.length === wholeWords(out.length)) {
      out.set(block.subarray(0, out.length));
      return checksum(out);
    }
    prepare(tensor);
    const { kind, cols, level, elementBytes } = tensor;
    const firstRow = b * tensor.rowsPerBlock;
    const count = out.length / elementBytes;
    const rows = count / cols;
    const header = headerBytes(level, count);
    const numbers = viewOf(block);
    const named = level === "fast" && isSplit(count) ? QUEUES * PARTS - 1 : 0;
    const lengths = Array.from({ length: named }, (_, s) => numbers.getUint16(2 + 2 * s, true));
    const escapeBytes = numbers.getUint16(0, true);
    const streamsAt = header + rawBitsBytes(kind, count) + escapeBytes;
    const last = block.length - streamsAt - lengths.reduce((sum, length) => sum + length, 0);
    if (last < 0) throw fail("its parts are longer than the block");
    const classes = take(2 * rows);
    if (kind === "bytes") heap.fill(0, classes, classes + 2 * rows);
    else put(classes, tensor.rowClasses.subarray(firstRow, firstRow + rows));
    // As far behind the block as a damaged stream could make a kernel read.
    const placed = take(block.length + CODE_BYTES * count);
    heap.set(block, placed);
    const decoded = take(out.length);
    const escapes = placed + streamsAt - escapeBytes;
    let raw = placed + header;
    const signs = kind === "f16" ? raw + wholeWords(count) : 0;
    if (kind === "bf16") {
      const own = take(count);
      kernel.unpackRawBits(raw, count, own);
      raw = own;
    }
    const code = KINDS.indexOf(kind);
    const tables = kind === "bytes" ? bytes : floats;
    const { stride, zeros, slotOffsets, unpacks, counts } = columns;
    let escaped;
    if (level === "max") {
      const words = placed + streamsAt;
      const state = new Uint32Array(memory.buffer, states, LANES);
      for (let lane = 0; lane < LANES; lane++) state[lane] = numbers.getUint32(4 + 4 * lane, true);
      if (state.some((value) => value < STATE_MIN)) throw fail("a state is below 65536");
      // prettier-ignore
      escaped = kernel.decodeRans(
        words, states, rows, cols, code, classes, zeros, slotOffsets, stride, tables.bySlot, shuffles,
        raw, signs, escapes, escapeBytes, scratch, decoded,
      );
      const left = last - ((escaped >>> 0) - words);
      if (escaped !== 0 && (left < 0 || left >= 4 || state.some((value) => value !== STATE_MIN)))
        throw fail("streams and elements end apart");
    } else {
      const sizes = queueLengths(tensor, firstRow, rows, count);
      const queues = kind === "bytes" ? startsOf(decoded, sizes) : sizes.map((size) => take(size));
      if (!decodeStreams(kind, placed + streamsAt, [...lengths, last], sizes, queues)) throw fail("streams and elements end apart");
      escaped = 1;
      if (kind !== "bytes") {
        new Uint32Array(memory.buffer, pointers, QUEUES).set(queues);
        // prettier-ignore
        escaped = kernel.fromQueues(
          pointers, rows, cols, code, classes, zeros, stride, unpacks, counts, raw, signs, escapes, escapeBytes, scratch, decoded,
        );
      }
    }
    if (escaped === 0) throw fail("escapes and their bytes end apart");
    out.set(heap.subarray(decoded, decoded + out.length));
    return checksumAt(decoded, out.length);
  }

  /** @returns whether all streams end with their elements. */
  function decodeStreams(kind, at, lengths, sizes, queues) {
    const { triples, singles } = kind === "bytes" ? bytes : floats;
    if (lengths.length === 1) {
      let end = 0;
      for (const [t, queue] of queues.entries()) {
        const own = kind === "bytes" ? 0 : t;
        end = kernel.decodeStream(at, end, sizes[t], triples + 16384 * own, singles + 8192 * own, queue);
      }
      return endsStream(end, lengths[0], true);
    }
    const numbers = (from, values) => new Uint32Array(memory.buffer, from, values.length).set(values);
    numbers(streams, startsOf(at, lengths));
    numbers(queueSizes, sizes);
    numbers(pointers, queues);
    kernel.decodeQueues(streams, queueSizes, pointers, triples, singles, kind === "bytes" ? 1 : QUEUES);
    const ends = new Uint32Array(memory.buffer, streams, lengths.length);
    return lengths.every((length, s) => endsStream(ends[s], length, s === lengths.length - 1));
  }
  return { decodeBlock, checksum };
}

/** Whether a stream of `bytes` can end at `bit`. The last one of a block fills its last word. */
function endsStream(bit, bytes, isLast) {
  const left = bytes - Math.ceil(bit / 8);
  return isLast ? left >= 0 && left < 4 : left === 0;
}

/** Elements of each queue of a block: those that a table codes, or quarters of a block of bytes. */
function queueLengths({ kind, cols, rowClasses, columnClasses }, firstRow, rows, count) {
  if (kind === "bytes") {
    const quarter = Math.ceil(count / QUEUES);
    return Array.from({ length: QUEUES }, (_, t) => Math.min(quarter, Math.max(0, count - t * quarter)));
  }
  const [ofRows, ofColumns, lengths] = [0, 1, 2].map(() => [0, 0, 0, 0]);
  for (let r = 0; r < rows; r++) ofRows[rowClasses[firstRow + r] & 3]++;
  for (let c = 0; c < cols; c++) ofColumns[columnClasses[c] & 3]++;
  for (let r = 0; r < 4; r++) for (let c = 0; c < 4; c++) lengths[(r + c) & 3] += ofRows[r] * ofColumns[c];
  return lengths;
}

/** Where runs of these lengths start, one after the other. */
function startsOf(at, lengths) {
  let next = at;
  return lengths.map((length) => (next += length) - length);
}

/** By mask of four lanes: where in the next words each lane's word lies, as bytes for a swizzle; 0x80 gives zeros. */
function wordShuffles() {
  const shuffles = new Uint8Array(256).fill(0x80);
  for (let mask = 0; mask < 16; mask++) {
    for (let lane = 0, word = 0; lane < 4; lane++) {
      if (((mask >> lane) & 1) === 0) continue;
      shuffles.set([2 * word, 2 * word + 1], 16 * mask + 4 * lane);
      word++;
    }
  }
  return shuffles;
}

/** Folds the checksum's sixteen lanes. */
function finishChecksum(lanes, length) {
  const rotate = (x) => (x << 13) | (x >>> 19);
  let h = length | 0;
  for (const lane of lanes) h = rotate(Math.imul(h + lane, 0x9e3779b1));
  h = Math.imul(h ^ (h >>> 15), 0x85ebca77);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae3d);
  return (h ^ (h >>> 16)) >>> 0;
}
