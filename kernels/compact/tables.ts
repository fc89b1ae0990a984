/**
 * Look-up tables in the layout the kernels read, in a workspace.
 * The module beside artifacts, which stands alone, makes the same ones: `buildTable` in compact-tail.mjs.
 * @module
 */
import { TABLE_BITS, TABLE_SIZE } from "../../formats/encodings/compact/frequencies.ts";
import type { CompactLevel } from "../../formats/encodings/compact/block.ts";
import type { CodeTable } from "../../formats/encodings/compact/table.ts";
import type { Region, Workspace } from "../load-wasm.ts";
import type { CompactKernel } from "./kernel.ts";

/** Symbols a table takes in a symbol byte: `table * 64 + symbol` for floats, the byte itself for bytes. */
const SYMBOLS_PER_TABLE = 64;

/** Regions of tables; made once for constant tables, anew for the table of a tensor of bytes. */
export interface KernelTables {
  /** By slot, u32: frequency << 20 | (slot - start) << 8 | symbol. */
  readonly bySlot: Region;
  /** By table and 12 bits, u16: symbol << 8 | bits. */
  readonly singles: Region;
  /** By table and 12 bits, u32: the one to three symbols whose codes they hold in the low bytes, bits << 24, number of symbols << 30. */
  readonly triples: Region;
  /** By symbol byte, 8 bytes: u32 floor(2^32 / frequency) (2^32 - 1 for frequency 1), u16 start, u16 frequency. */
  readonly ransCodes: Region;
  /** By symbol byte, u32: code << 8 | length. */
  readonly huffmanCodes: Region;
  /** Of floats, by table and two symbols of six bits, u32: code << 6 | length. */
  readonly pairCodes: Region;
}

export function takeTables(workspace: Workspace): KernelTables {
  return {
    bySlot: workspace.take(4 * TABLE_SIZE * 4),
    singles: workspace.take(4 * TABLE_SIZE * 2),
    triples: workspace.take(4 * TABLE_SIZE * 4),
    ransCodes: workspace.take(256 * 8),
    huffmanCodes: workspace.take(256 * 4),
    pairCodes: workspace.take(4 * SYMBOLS_PER_TABLE ** 2 * 4),
  };
}

export function fillTables(workspace: Workspace, regions: KernelTables, tables: readonly CodeTable[]): void {
  const { buffer } = workspace.memory;
  const bySlot = new Uint32Array(buffer, regions.bySlot.at, 4 * TABLE_SIZE);
  const singles = new Uint16Array(buffer, regions.singles.at, 4 * TABLE_SIZE);
  const triples = new Uint32Array(buffer, regions.triples.at, 4 * TABLE_SIZE);
  const rans = new DataView(buffer, regions.ransCodes.at, regions.ransCodes.byteLength);
  const huffman = new Uint32Array(buffer, regions.huffmanCodes.at, 256);
  const codePairs = new Uint32Array(buffer, regions.pairCodes.at, 4 * SYMBOLS_PER_TABLE ** 2);
  for (const [t, table] of tables.entries()) {
    // A table of bytes has more symbols, and no pairs.
    for (let i = 0; tables.length > 1 && i < SYMBOLS_PER_TABLE ** 2; i++) {
      const [a, b] = [i % SYMBOLS_PER_TABLE, Math.floor(i / SYMBOLS_PER_TABLE)];
      const length = (table.lengths[a] ?? 0) + (table.lengths[b] ?? 0);
      codePairs[t * SYMBOLS_PER_TABLE ** 2 + i] =
        (((table.codes[a] ?? 0) | ((table.codes[b] ?? 0) << (table.lengths[a] ?? 0))) << 6) | length;
    }
    singles.set(table.byBits, t * TABLE_SIZE);
    for (let bits = 0; bits < TABLE_SIZE; bits++) {
      let [entry, used, taken] = [0, 0, 0];
      while (taken < 3) {
        const next = table.byBits[bits >> used]!;
        if (used + (next & 0xff) > TABLE_BITS) break;
        entry |= (next >> 8) << (8 * taken++);
        used += next & 0xff;
      }
      triples[t * TABLE_SIZE + bits] = entry | (used << 24) | (taken << 30);
    }
    table.bySlot.forEach((symbol, slot) => {
      bySlot[t * TABLE_SIZE + slot] = ((table.frequencies[symbol]! << 20) | ((slot - table.starts[symbol]!) << 8) | symbol) >>> 0;
    });
    table.frequencies.forEach((frequency, symbol) => {
      if (frequency === 0) return;
      const at = t * SYMBOLS_PER_TABLE + symbol;
      rans.setUint32(8 * at, Math.min(2 ** 32 - 1, Math.floor(2 ** 32 / frequency)), true);
      rans.setUint16(8 * at + 4, table.starts[symbol]!, true);
      rans.setUint16(8 * at + 6, frequency, true);
      huffman[at] = (table.codes[symbol]! << 8) | table.lengths[symbol]!;
    });
  }
}

/** By mask of four lanes: where in the next words each lane's word lies, as bytes for a swizzle; 0x80 gives zeros. */
export function fillShuffles(bytes: Uint8Array): void {
  bytes.fill(0x80);
  for (let mask = 0; mask < 16; mask++) {
    let word = 0;
    for (let lane = 0; lane < 4; lane++) {
      if (((mask >> lane) & 1) === 0) continue;
      bytes[16 * mask + 4 * lane] = 2 * word;
      bytes[16 * mask + 4 * lane + 1] = 2 * word + 1;
      word++;
    }
  }
}

/** By mask of four lanes: where the low words of those lanes lie, as bytes for a swizzle, so that they end at byte 8. */
export function fillPacks(bytes: Uint8Array): void {
  bytes.fill(0x80);
  for (let mask = 0; mask < 16; mask++) {
    let to = 16 * mask + 8;
    for (let lane = 3; lane >= 0; lane--) {
      if (((mask >> lane) & 1) === 0) continue;
      bytes[--to] = 4 * lane + 1;
      bytes[--to] = 4 * lane;
    }
  }
}

/** What kernels need of a tensor's columns; `stride` entries (a multiple of 16) for each of the four row classes mod 4. */
export interface ColumnTables {
  readonly stride: number;
  /** i16 by (row class mod 4) and column: four times the whole octaves of their sum. */
  readonly zeros: number;
  /** u8 likewise: table << 6. */
  readonly tableBits: number;
  /** u16 likewise, for `max`: table * 16384, the table's place among slots. */
  readonly slotOffsets: number;
  /** For floats at `fast`, see `toQueues` and `fromQueues`: 64 bytes for 16 columns each, and four. */
  readonly packs: number;
  readonly unpacks: number;
  readonly counts: number;
}

/** @param columns - classes; none for bytes. */
export function takeColumns(
  workspace: Workspace,
  kernel: CompactKernel,
  cols: number,
  columns: Int16Array,
  level: CompactLevel,
): ColumnTables {
  const isMax = level === "max";
  const hasQueues = !isMax && columns.length > 0;
  const stride = 16 * Math.ceil(cols / 16);
  const take = (isThere: boolean, bytes: number): number => (isThere ? workspace.take(bytes).at : 0);
  const classes = take(columns.length > 0, 2 * cols);
  if (columns.length > 0) new Int16Array(workspace.memory.buffer, classes, cols).set(columns);
  const tables: ColumnTables = {
    stride,
    zeros: take(true, 8 * stride),
    tableBits: take(true, 4 * stride),
    slotOffsets: take(isMax, 8 * stride),
    packs: take(hasQueues, 4 * stride),
    unpacks: take(hasQueues, 4 * stride),
    counts: take(hasQueues, stride / 4),
  };
  const { zeros, tableBits, slotOffsets, packs, unpacks, counts } = tables;
  kernel.fillColumns(classes, cols, stride, zeros, tableBits, slotOffsets, packs, unpacks, counts);
  return tables;
}
