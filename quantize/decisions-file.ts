/**
 * Decisions on disk: a safetensors file in the journal folder, so that a resumed run goes on with the very same numbers.
 * @module
 */
import { readFile } from "node:fs/promises";
import { tensorOf, toFloat32, type Tensor } from "../core/tensor.ts";
import { openSafetensors } from "../formats/containers/safetensors/read.ts";
import { writeSafetensors } from "../formats/containers/safetensors/write.ts";
import { memorySource } from "../formats/containers/bytes.ts";
import type { Decisions, TensorOrder, WeightFold } from "./decisions.ts";
import { journalPath } from "./journal.ts";

const FILE = "decisions.safetensors";
const KEY = "bitwright.decisions";

/** What is not a tensor. */
interface DecisionRecord {
  readonly pairs: readonly { readonly name: string; readonly note: string }[];
  readonly orderNotes: readonly string[];
  readonly protected: readonly (readonly [string, string])[];
  readonly outliers: readonly (readonly [string, { readonly before: number; readonly after: number }])[];
  readonly inputScales: readonly (readonly [string, number])[];
  readonly outputScales: readonly (readonly [string, number])[];
}

/** Tensor names begin with what they are; the rest is the name they belong to. */
const PREFIXES = {
  pair: "pair/",
  rows: "rows/",
  cols: "cols/",
  replaced: "replaced/",
  orderRows: "order-rows/",
  orderCols: "order-cols/",
  added: "added/",
} as const;

/** Write decisions atomically into the journal folder of `out`. */
export async function writeDecisions(out: string, decisions: Decisions): Promise<void> {
  const tensors = new Map<string, Tensor>();
  const add = (prefix: string, name: string, values: Float32Array | undefined): void => {
    if (values !== undefined) tensors.set(prefix + name, tensorOf(values, [values.length]));
  };
  for (const { name, scales } of decisions.pairs) add(PREFIXES.pair, name, scales);
  for (const [name, { rows, cols }] of decisions.folds) {
    add(PREFIXES.rows, name, rows);
    add(PREFIXES.cols, name, cols);
  }
  for (const [name, tensor] of decisions.replaced) tensors.set(PREFIXES.replaced + name, tensor);
  for (const [name, { rows, cols }] of decisions.orders) {
    if (rows !== undefined) tensors.set(PREFIXES.orderRows + name, tensorOf(rows, [rows.length]));
    if (cols !== undefined) tensors.set(PREFIXES.orderCols + name, tensorOf(cols, [cols.length]));
  }
  for (const [name, tensor] of decisions.added) tensors.set(PREFIXES.added + name, tensor);
  const record: DecisionRecord = {
    orderNotes: decisions.orderNotes,
    pairs: decisions.pairs.map(({ name, note }) => ({ name, note })),
    protected: [...decisions.protected],
    outliers: [...decisions.outliers],
    inputScales: [...decisions.inputScales],
    outputScales: [...decisions.outputScales],
  };
  await writeSafetensors(journalPath(out, FILE), tensors, { [KEY]: JSON.stringify(record) });
}

/** Decisions of an unfinished run, or undefined when it had not decided yet. */
export async function readDecisions(out: string): Promise<Decisions | undefined> {
  const bytes = await readFile(journalPath(out, FILE)).catch(() => undefined);
  if (bytes === undefined) return undefined;
  const file = await openSafetensors(memorySource(FILE, bytes));
  const record = JSON.parse(file.metadata[KEY] ?? "null") as DecisionRecord | null;
  if (record === null) return undefined;
  const folds = new Map<string, WeightFold>();
  const replaced = new Map<string, Tensor>();
  const orders = new Map<string, TensorOrder>();
  const added = new Map<string, Tensor>();
  const scales = new Map<string, Float32Array>();
  for (const [name, lazy] of file.tensors) {
    const tensor = await lazy.read();
    const rest = name.slice(name.indexOf("/") + 1);
    if (name.startsWith(PREFIXES.orderRows)) orders.set(rest, { ...orders.get(rest), rows: integersOf(tensor) });
    else if (name.startsWith(PREFIXES.orderCols)) orders.set(rest, { ...orders.get(rest), cols: integersOf(tensor) });
    else if (name.startsWith(PREFIXES.added)) added.set(rest, tensor);
    else if (name.startsWith(PREFIXES.replaced)) replaced.set(rest, tensor);
    else if (name.startsWith(PREFIXES.pair)) scales.set(rest, toFloat32(tensor));
    else folds.set(rest, { ...folds.get(rest), [name.startsWith(PREFIXES.rows) ? "rows" : "cols"]: toFloat32(tensor) });
  }
  return {
    pairs: record.pairs.map(({ name, note }) => ({ name, note, scales: scales.get(name) ?? new Float32Array() })),
    folds,
    replaced,
    orders,
    added,
    orderNotes: record.orderNotes,
    inputScales: new Map(record.inputScales),
    outputScales: new Map(record.outputScales),
    protected: new Map(record.protected),
    outliers: new Map(record.outliers),
  };
}

function integersOf({ bytes }: Tensor): Int32Array {
  return new Int32Array(bytes.slice().buffer);
}
