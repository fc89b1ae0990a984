/**
 * Sessions by content: equal graphs with equal outputs share one, whichever object they are.
 * @module
 */
import { createHash } from "node:crypto";
import type { InferenceSession } from "onnxruntime-common";
import { encodeOnnxModel } from "../../../formats/containers/onnx/write.ts";
import type { Graph } from "../../graph/graph.ts";
import { graphToOnnx } from "../../graph/to-onnx.ts";
import { openWhole } from "./whole.ts";

/** Sessions kept after their last lease ended: a walk compiles, releases and compiles the same few graphs again. */
const IDLE_SESSIONS = 8;

/** A held session; `release` may be called more than once. */
export interface SessionLease {
  readonly session: InferenceSession;
  release(): Promise<void>;
}

interface Entry {
  readonly session: Promise<InferenceSession>;
  leases: number;
}

export class SessionCache {
  readonly #create: (model: Uint8Array) => Promise<InferenceSession>;
  readonly #createFromFile: ((path: string) => Promise<InferenceSession>) | undefined;
  /** In order of last use. */
  readonly #entries = new Map<string, Entry>();
  readonly #keys = new WeakMap<Graph, Map<string, string>>();
  #files = 0;

  /** @param createFromFile - of a runtime that opens files itself. */
  constructor(create: (model: Uint8Array) => Promise<InferenceSession>, createFromFile?: (path: string) => Promise<InferenceSession>) {
    this.#create = create;
    this.#createFromFile = createFromFile;
  }

  async acquire(graph: Graph, outputs: readonly string[]): Promise<SessionLease> {
    const list = JSON.stringify(outputs);
    let model: Uint8Array | undefined;
    let key = this.#keys.get(graph)?.get(list);
    if (key === undefined) {
      // The weights of a file are not read to find its like: it is itself.
      if (graph.whole === undefined) model = encode(graph, outputs);
      key = model === undefined ? `file ${this.#files++}` : createHash("sha256").update(model).digest("hex");
      const keys = this.#keys.get(graph) ?? new Map<string, string>();
      this.#keys.set(graph, keys.set(list, key));
    }
    let entry = this.#entries.get(key);
    entry ??= {
      session:
        graph.whole === undefined
          ? this.#create(model ?? encode(graph, outputs))
          : openWhole(graph.whole, graphToOnnx(graph, outputs), this.#create, this.#createFromFile),
      leases: 0,
    };
    entry.leases++;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return this.#lease(key, entry);
  }

  /** Release every session, leased or not. */
  async close(): Promise<void> {
    const entries = [...this.#entries.values()];
    this.#entries.clear();
    for (const { session } of entries) await (await session).release();
  }

  async #lease(key: string, entry: Entry): Promise<SessionLease> {
    let session: InferenceSession;
    try {
      session = await entry.session;
    } catch (error) {
      if (this.#entries.get(key) === entry) this.#entries.delete(key);
      throw error;
    }
    let held = true;
    const release = async (): Promise<void> => {
      if (!held) return;
      held = false;
      entry.leases--;
      await this.#trim();
    };
    return { session, release };
  }

  async #trim(): Promise<void> {
    const idle = [...this.#entries].filter(([, { leases }]) => leases === 0);
    for (const [key, { session }] of idle.slice(0, Math.max(0, idle.length - IDLE_SESSIONS))) {
      this.#entries.delete(key);
      await (await session).release();
    }
  }
}

/** The name is left out, so that blocks that differ in nothing else share a session. */
function encode(graph: Graph, outputs: readonly string[]): Uint8Array {
  return encodeOnnxModel(graphToOnnx({ ...graph, name: "graph" }, outputs));
}
