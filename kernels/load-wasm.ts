/**
 * Loads the compiled kernels: each module is compiled once per thread, and all
 * of them work on one shared memory.
 * @module
 */
import { BudgetError, InputError } from "../core/errors.ts";
import { privateMemory } from "./private-memory.ts";

/** Bytes before the first region: room for nothing, so that a null pointer never reads weights. */
const FIRST_OFFSET = 1024;
const PAGE = 65536;
/** Every region starts at a multiple of this, and may be read or written this far past its end: SIMD tails need no second loop. */
const ALIGNMENT = 64;
/** The build declares this maximum to the modules; a memory must not promise more. */
const MAX_PAGES = 32768;

const modules = new Map<string, WebAssembly.Module>();

/** The compiled module of a base64 text, compiled at the first call in this thread. */
function compile(base64: string, shared: boolean): WebAssembly.Module {
  const key = shared ? base64 : `private ${base64}`;
  let module = modules.get(key);
  if (module === undefined) {
    const bytes = Buffer.from(base64, "base64");
    module = new WebAssembly.Module(shared ? bytes : (privateMemory(bytes) as Uint8Array<ArrayBuffer>));
    modules.set(key, module);
  }
  return module;
}

/** A run of bytes in a workspace. */
export interface Region {
  /** Byte offset in the memory: what kernels take as a pointer. */
  readonly at: number;
  readonly byteLength: number;
}

/** A shared memory with the kernels that work on it, and regions handed out from its start. */
export interface Workspace {
  readonly memory: WebAssembly.Memory;
  /** The exports of a kernel module over this memory; the caller names their signatures. */
  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- what a module exports is not known to types
  readonly kernel: <E>(base64: string) => E;
  /**
   * A region of `byteLength` bytes, 64-byte aligned, kept until `release`.
   *
   * @throws {BudgetError} `budget.memory` beyond 2 GiB, or when the host has no more.
   */
  take(byteLength: number): Region;
  /** Forgets all regions taken after `mark` was returned by `mark()`; the memory is kept and reused. */
  mark(): number;
  release(mark: number): void;
  /** A view over a region; made afresh by each call, since growing the memory leaves older views short. */
  bytes(region: Region): Uint8Array;
  f32(region: Region): Float32Array;
  f64(region: Region): Float64Array;
}

/**
 * @param pages - 64 KiB pages to begin with; the memory grows when more is taken.
 * @param options - `shared: false` for a memory that no other thread sees: the engine copies into it more than twice as fast.
 */
export function createWorkspace(pages = 4, { shared = true }: { readonly shared?: boolean } = {}): Workspace {
  const memory = new WebAssembly.Memory({ initial: pages, maximum: MAX_PAGES, shared });
  const instances = new Map<string, WebAssembly.Instance>();
  let next = FIRST_OFFSET;
  return {
    memory,
    // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as above
    kernel<E>(base64: string): E {
      let instance = instances.get(base64);
      if (instance === undefined) {
        instance = new WebAssembly.Instance(compile(base64, shared), { env: { memory } });
        instances.set(base64, instance);
      }
      return instance.exports as E;
    },
    take(byteLength) {
      if (!Number.isSafeInteger(byteLength) || byteLength < 0) {
        throw new InputError("input.value", `a region must have a whole number of bytes, not ${byteLength}`, { byteLength });
      }
      const at = next;
      const end = at + Math.ceil(byteLength / ALIGNMENT) * ALIGNMENT + ALIGNMENT;
      const missing = Math.ceil((end - memory.buffer.byteLength) / PAGE);
      if (missing > 0) grow(memory, missing, end);
      next = end;
      return { at, byteLength };
    },
    mark: () => next,
    release(mark) {
      next = mark;
    },
    bytes: ({ at, byteLength }) => new Uint8Array(memory.buffer, at, byteLength),
    f32: ({ at, byteLength }) => new Float32Array(memory.buffer, at, byteLength / 4),
    f64: ({ at, byteLength }) => new Float64Array(memory.buffer, at, byteLength / 8),
  };
}

function grow(memory: WebAssembly.Memory, pages: number, bytes: number): void {
  try {
    memory.grow(pages);
  } catch (cause) {
    throw new BudgetError(
      "budget.memory",
      `kernels cannot have ${bytes} bytes of memory (at most ${MAX_PAGES * PAGE})`,
      { bytes },
      { cause },
    );
  }
}

let ofThread: Workspace | undefined;

/** The workspace of this thread for small synchronous work on the main path; callers mark and release. */
export function threadWorkspace(): Workspace {
  ofThread ??= createWorkspace();
  return ofThread;
}
