/**
 * Copies to and from a workspace. V8 copies to and from shared memory byte by byte, seven times slower, where addresses differ modulo 8.
 * @module
 */
import type { Region, Workspace } from "../load-wasm.ts";
import type { CompactKernel } from "./kernel.ts";

const WORD = 8;

/** A region whose address is that of `other` modulo 8. */
export function takeInPhase(workspace: Workspace, byteLength: number, other: Uint8Array): Region {
  const { at } = workspace.take(byteLength + WORD);
  return { at: at + (other.byteOffset % WORD), byteLength };
}

/** Copies bytes of the workspace to memory outside it, which may be shared, too. The workspace may need room for as many bytes. */
export function copyOut(workspace: Workspace, kernel: CompactKernel, from: Uint8Array, to: Uint8Array): void {
  if ((from.byteOffset - to.byteOffset) % WORD === 0) return to.set(from);
  const mark = workspace.mark();
  const region = takeInPhase(workspace, from.length, to);
  kernel.copyBytes(region.at, from.byteOffset, from.length);
  to.set(workspace.bytes(region));
  workspace.release(mark);
}
