/**
 * Look-up tables in the layout the kernels read, in a workspace.
 * @module
 */
import { TABLE_BITS, TABLE_SIZE } from "../../formats/encodings/compact/frequencies.ts";
import type { CompactLevel } from "../../formats/encodings/compact/block.ts";
import type { CodeTable } from "../../formats/encodings/compact/table.ts";
import type { Region, Workspace } from "../load-wasm.ts";

/** Symbols a table takes in a symbol byte: `table * 64 + symbol` for floats, the byte itself for bytes. */
const SYMBOLS_PER_TABLE = 64;

/** Regions of tables; made once for constant tables, anew for the table of a tensor of bytes. */
export interface KernelTables {
  /** By slot, u32: frequency << 20 | (slot - start) << 8 | symbol. */
  readonly bySlot: Region;
  /** By table and 12 bits, u16: symbol << 8 | bits. */
  readonly singles: Region;
  /** By table and 12 bits, u32: the one symbol or two whose codes they hold in the low bytes, bits << 16, number of symbols << 24. */
  readonly pairs: Region;
  /** By symbol byte, 16 bytes: u64 ceil(2^44 / frequency), u32 frequency << 20, u16 start, u16 4096 - frequency. */
  readonly ransCodes: Region;
  /** By symbol byte, u32: code << 8 | length. */
  readonly huffmanCodes: Region;
}

export function takeTables(workspace: Workspace): KernelTables {
  return {
    bySlot: workspace.take(4 * TABLE_SIZE * 4),
    singles: workspace.take(4 * TABLE_SIZE * 2),
    pairs: workspace.take(4 * TABLE_SIZE * 4),
    ransCodes: workspace.take(256 * 16),
    huffmanCodes: workspace.take(256 * 4),
  };
}

export function fillTables(workspace: Workspace, regions: KernelTables, tables: readonly CodeTable[]): void {
  const { buffer } = workspace.memory;
  const bySlot = new Uint32Array(buffer, regions.bySlot.at, 4 * TABLE_SIZE);
  const singles = new Uint16Array(buffer, regions.singles.at, 4 * TABLE_SIZE);
  const pairs = new Uint32Array(buffer, regions.pairs.at, 4 * TABLE_SIZE);
  const rans = new DataView(buffer, regions.ransCodes.at, regions.ransCodes.byteLength);
  const huffman = new Uint32Array(buffer, regions.huffmanCodes.at, 256);
  for (const [t, table] of tables.entries()) {
    singles.set(table.byBits, t * TABLE_SIZE);
    table.byBits.forEach((first, bits) => {
      const length = first & 0xff;
      const second = table.byBits[bits >> length]!;
      const both = length + (second & 0xff);
      pairs[t * TABLE_SIZE + bits] =
        both <= TABLE_BITS ? (2 << 24) | (both << 16) | (second & 0xff00) | (first >> 8) : (1 << 24) | (length << 16) | (first >> 8);
    });
    table.bySlot.forEach((symbol, slot) => {
      bySlot[t * TABLE_SIZE + slot] = ((table.frequencies[symbol]! << 20) | ((slot - table.starts[symbol]!) << 8) | symbol) >>> 0;
    });
    table.frequencies.forEach((frequency, symbol) => {
      if (frequency === 0) return;
      const at = t * SYMBOLS_PER_TABLE + symbol;
      rans.setBigUint64(16 * at, BigInt(Math.ceil(2 ** 44 / frequency)), true);
      rans.setUint32(16 * at + 8, (frequency << 20) >>> 0, true);
      rans.setUint16(16 * at + 12, table.starts[symbol]!, true);
      rans.setUint16(16 * at + 14, TABLE_SIZE - frequency, true);
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

/** What kernels need of a tensor's columns; `stride` entries (a multiple of 16) for each of the four row classes mod 4. */
export interface ColumnTables {
  readonly stride: number;
  /** i16 by (row class mod 4) and column: four times the whole octaves of their sum. */
  readonly zeros: number;
  /** u8 likewise: table << 6. */
  readonly tableBits: number;
  /** u16 likewise, for `max`: table * 16384, the table's place among slots. */
  readonly slotOffsets: number;
  /** For `fast`, see `toQueues` and `fromQueues`: 64 bytes for 16 columns each, and four. */
  readonly packs: number;
  readonly unpacks: number;
  readonly counts: number;
}

/** @param columns - classes; none for bytes. */
export function takeColumns(workspace: Workspace, cols: number, columns: Int16Array, level: CompactLevel): ColumnTables {
  const isMax = level === "max";
  const stride = 16 * Math.ceil(cols / 16);
  const take = (bytes: number): number => {
    const region = workspace.take(bytes);
    workspace.bytes(region).fill(0);
    return region.at;
  };
  const tables: ColumnTables = {
    stride,
    zeros: take(8 * stride),
    tableBits: take(4 * stride),
    slotOffsets: take(isMax ? 8 * stride : 0),
    packs: take(isMax ? 0 : 4 * stride),
    unpacks: take(isMax ? 0 : 4 * stride),
    counts: take(isMax ? 0 : stride / 4),
  };
  if (columns.length === 0) return tables;
  const { buffer } = workspace.memory;
  const zeros = new Int16Array(buffer, tables.zeros, 4 * stride);
  const bits = new Uint8Array(buffer, tables.tableBits, 4 * stride);
  const slots = new Uint16Array(buffer, tables.slotOffsets, isMax ? 4 * stride : 0);
  for (let k = 0; k < 4; k++) {
    for (let c = 0; c < cols; c++) {
      const q = columns[c]! + k;
      const i = k * stride + c;
      zeros[i] = 4 * (q >> 2);
      bits[i] = (q & 3) << 6;
      if (isMax) slots[i] = (q & 3) * 16384;
    }
  }
  if (!isMax) fillGroups(workspace, tables, columns);
  return tables;
}

function fillGroups({ memory: { buffer } }: Workspace, { stride, packs, unpacks, counts }: ColumnTables, columns: Int16Array): void {
  const pack = new Uint8Array(buffer, packs, 4 * stride).fill(0x80);
  const unpack = new Uint8Array(buffer, unpacks, 4 * stride).fill(0x80);
  const count = new Uint8Array(buffer, counts, stride / 4);
  columns.forEach((column, c) => {
    const [group, place, k] = [c >> 4, c & 15, column & 3];
    const before = count[4 * group + k]!++;
    pack[64 * group + 16 * k + before] = place;
    unpack[64 * group + 16 * k + place] = before;
  });
}
