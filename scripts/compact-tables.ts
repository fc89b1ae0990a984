/**
 * Prints the constant tables of the compact codec, as in formats/encodings/compact/frequencies.ts, from models in bf16.
 *
 *   npx tsx scripts/compact-tables.ts model.safetensors [another.safetensors …]
 *
 * Every model counts alike. Classes are taken out as the encoder does. `FREQUENCIES`: each table gets the integers, all at least 1 and 4096 together,
 * that code its histogram at level max in the fewest bits; `LENGTHS`: codes of at most 12 bits for the histogram at level fast, whose row classes
 * depend on the lengths there are, so that a second run may still change a few.
 */
import { openFileSource } from "../formats/containers/bytes.ts";
import { openSafetensors } from "../formats/containers/safetensors/read.ts";
import { sampleRows } from "../formats/encodings/compact/classes.ts";
import { hasColumns } from "../formats/encodings/compact/ranges.ts";
import { toSymbols } from "../formats/encodings/compact/symbols.ts";
import { ESCAPE, TABLE_BITS, TABLE_SIZE } from "../formats/encodings/compact/frequencies.ts";
import { limitedLengths } from "../formats/encodings/compact/table.ts";
import { viewMatrix } from "../formats/encodings/compact/view.ts";
import { createCompactCoder } from "../kernels/compact/coder.ts";

const coder = createCompactCoder();

/** By table and symbol: shares summed over models. */
async function histogram(level: "max" | "fast"): Promise<readonly Float64Array[]> {
  const shares = Array.from({ length: 4 }, () => new Float64Array(ESCAPE + 1));
  for (const path of process.argv.slice(2)) {
    const file = await openSafetensors(await openFileSource(path));
    const counts = shares.map((table) => new Float64Array(table.length));
    let total = 0;
    for (const lazy of file.tensors.values()) {
      const view = viewMatrix(lazy.dtype, lazy.shape);
      if (view === undefined || view.kind === "bytes") continue;
      const { bytes } = await lazy.read();
      const columns = hasColumns(view) ? coder.fitColumns(view, sampleRows(view, bytes)) : new Int16Array(view.cols);
      const classes = { rows: coder.fitRows(view, columns, level, bytes), columns };
      const patterns = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
      for (let r = 0; r < view.rows; r++) {
        const symbols = toSymbols(view.kind, patterns.subarray(r * view.cols, (r + 1) * view.cols), classes, r);
        for (let c = 0; c < view.cols; c++) counts[(classes.rows[r]! + columns[c]!) & 3]![symbols[c]!]!++;
      }
      total += patterns.length;
    }
    await file.close();
    counts.forEach((table, t) => table.forEach((count, s) => (shares[t]![s]! += count / total)));
  }
  return shares;
}

console.log("FREQUENCIES");
for (const table of await histogram("max")) {
  const frequencies = Array.from(table, () => 1);
  // Each further 4096th goes where it saves most.
  for (let left = TABLE_SIZE - frequencies.length; left > 0; left--) {
    let best = 0;
    const gain = (s: number): number => table[s]! * Math.log2((frequencies[s]! + 1) / frequencies[s]!);
    for (let s = 1; s < frequencies.length; s++) if (gain(s) > gain(best)) best = s;
    frequencies[best]!++;
  }
  console.log(`[${frequencies.join(", ")}],`);
}
console.log("LENGTHS");
for (const table of await histogram("fast")) {
  // Whole numbers, one at least: every symbol has a code.
  const counts = Array.from(table, (share) => 1 + Math.floor(2 ** 32 * share));
  console.log(`[${limitedLengths(counts, TABLE_BITS).join(", ")}],`);
}
