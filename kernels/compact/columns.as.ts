// What kernels look up by column, see `ColumnTables` in tables.ts. AssemblyScript, not TypeScript.

/**
 * Fills the tables of `cols` columns from their classes, i16; without classes (`columns` is 0) with zeros. Tables that are 0 are left out.
 * `stride`: entries for each row class mod 4, a multiple of 16.
 */
export function fillColumns(columns: usize, cols: i32, stride: i32, zeros: usize, tableBits: usize, slotOffsets: usize, packs: usize, unpacks: usize, counts: usize): void {
  memory.fill(zeros, 0, <usize>stride << 3);
  memory.fill(tableBits, 0, <usize>stride << 2);
  if (slotOffsets != 0) memory.fill(slotOffsets, 0, <usize>stride << 3);
  if (columns == 0) return;
  for (let k = 0; k < 4; k++) {
    for (let c = 0; c < cols; c++) {
      const q = <i32>load<i16>(columns + (<usize>c << 1)) + k;
      const i = <usize>(k * stride + c);
      store<i16>(zeros + (i << 1), <i16>(4 * (q >> 2)));
      store<u8>(tableBits + i, <u8>((q & 3) << 6));
      if (slotOffsets != 0) store<u16>(slotOffsets + (i << 1), <u16>((q & 3) << 14));
    }
  }
  if (counts == 0) return;
  memory.fill(packs, 0x80, <usize>stride << 2);
  memory.fill(unpacks, 0x80, <usize>stride << 2);
  memory.fill(counts, 0, <usize>stride >> 2);
  for (let c: usize = 0; c < <usize>cols; c++) {
    const k = <usize>load<u16>(columns + (c << 1)) & 3;
    const group = ((c >> 4) << 6) + (k << 4);
    const count = counts + ((c >> 4) << 2) + k;
    const before = load<u8>(count);
    store<u8>(packs + group + <usize>before, <u8>(c & 15));
    store<u8>(unpacks + group + (c & 15), before);
    store<u8>(count, before + 1);
  }
}
