/**
 * Look-up tables in the layout the kernels read, in a workspace.
 * @module
 */
import { TABLE_SIZE } from "../../formats/encodings/compact/frequencies.ts";
import type { CodeTable } from "../../formats/encodings/compact/table.ts";
import type { Region, Workspace } from "../load-wasm.ts";

/** Symbols a table takes in a symbol byte: `table * 64 + symbol` for floats, the byte itself for bytes. */
const SYMBOLS_PER_TABLE = 64;

/** Entries of a table by 10 bits. */
const SMALL_SIZE = 1024;
const SMALL_BITS = 10;

/** Regions of tables; made once for constant tables, anew for the table of a tensor of bytes. */
export interface KernelTables {
  /** By slot, u32: frequency << 20 | (slot - start) << 8 | symbol. */
  readonly bySlot: Region;
  /** By bits, u16: symbol << 8 | length: four tables of 10 bits, where longer codes have 0, then four of 12 bits. */
  readonly byBits: Region;
  /** By symbol byte, 16 bytes: u64 ceil(2^44 / frequency), u32 frequency << 20, u16 start, u16 4096 - frequency. */
  readonly ransCodes: Region;
  /** By symbol byte, u32: code << 8 | length. */
  readonly huffmanCodes: Region;
}

export function takeTables(workspace: Workspace): KernelTables {
  return {
    bySlot: workspace.take(4 * TABLE_SIZE * 4),
    byBits: workspace.take(4 * (SMALL_SIZE + TABLE_SIZE) * 2),
    ransCodes: workspace.take(256 * 16),
    huffmanCodes: workspace.take(256 * 4),
  };
}

export function fillTables(workspace: Workspace, regions: KernelTables, tables: readonly CodeTable[]): void {
  const { buffer } = workspace.memory;
  const bySlot = new Uint32Array(buffer, regions.bySlot.at, 4 * TABLE_SIZE);
  const byBits = new Uint16Array(buffer, regions.byBits.at, 4 * (SMALL_SIZE + TABLE_SIZE));
  const rans = new DataView(buffer, regions.ransCodes.at, regions.ransCodes.byteLength);
  const huffman = new Uint32Array(buffer, regions.huffmanCodes.at, 256);
  for (const [t, table] of tables.entries()) {
    byBits.set(table.byBits, 4 * SMALL_SIZE + t * TABLE_SIZE);
    const short = table.byBits.subarray(0, SMALL_SIZE).map((entry) => ((entry & 0xff) <= SMALL_BITS ? entry : 0));
    byBits.set(short, t * SMALL_SIZE);
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
