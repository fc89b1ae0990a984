/**
 * Tensor bytes in and out of a workspace, a piece at a time.
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { FormatError, InputError } from "../../core/errors.ts";
import type { OutputRegion, OutputRole, TaskInput, TensorTask } from "./task.ts";

/** Reads runs of a tensor's bytes. */
export interface TensorReader {
  /** Fills `out` from byte `start` of the tensor. @throws {FormatError} `format.truncated` when the file ends first. */
  read(start: number, out: Uint8Array): void;
  close(): void;
}

export function openReader(name: string, { source }: TaskInput): TensorReader {
  if (source.kind === "bytes") {
    return { read: (start, out) => out.set(source.bytes.subarray(start, start + out.length)), close: () => undefined };
  }
  const file = openSync(source.path, "r");
  return {
    read(start, out) {
      for (let done = 0; done < out.length;) {
        const count = readSync(file, out, done, out.length - done, source.offset + start + done);
        if (count === 0) {
          const end = source.offset + start + done;
          throw new FormatError("format.truncated", `${source.path} ends at byte ${end}, inside tensor ${name}`, { tensor: name, end });
        }
        done += count;
      }
    },
    close: () => closeSync(file),
  };
}

/** Writes one region from its start to its end, hashing on the way. */
export interface RegionWriter {
  readonly role: OutputRole;
  readonly byteLength: number;
  write(bytes: Uint8Array): void;
  /** The hash of all bytes, hex. @throws {InputError} `input.shape` when the region is not full. */
  finish(): string;
  close(): void;
}

export function openWriter(name: string, region: OutputRegion): RegionWriter {
  const file = openSync(region.path, "r+");
  const hash: Hash = createHash("sha256");
  let written = 0;
  const checkLength = (length: number, complete: boolean): void => {
    if (length > region.byteLength || (complete && length !== region.byteLength)) {
      throw new InputError("input.shape", `${name}: ${region.role} takes ${length} bytes, its region has ${region.byteLength}`, {
        tensor: name,
        role: region.role,
        bytes: length,
        region: region.byteLength,
      });
    }
  };
  return {
    role: region.role,
    byteLength: region.byteLength,
    write(bytes) {
      checkLength(written + bytes.length, false);
      hash.update(bytes);
      for (let done = 0; done < bytes.length;) {
        done += writeSync(file, bytes, done, bytes.length - done, region.offset + written + done);
      }
      written += bytes.length;
    },
    finish() {
      checkLength(written, true);
      return hash.digest("hex");
    },
    close: () => closeSync(file),
  };
}

/** The writers of a task by role. */
export interface TaskWriters {
  /** @throws {InputError} `input.option` when the task has no region for the role. */
  get(role: OutputRole): RegionWriter;
  find(role: OutputRole): RegionWriter | undefined;
  /** Hashes in the order of the task's outputs. */
  finish(): { readonly role: OutputRole; readonly sha256: string }[];
  close(): void;
}

export function openWriters(task: TensorTask): TaskWriters {
  const writers: RegionWriter[] = [];
  const close = (): void => {
    for (const writer of writers) writer.close();
  };
  try {
    for (const region of task.outputs) writers.push(openWriter(task.name, region));
  } catch (error) {
    close();
    throw error;
  }
  const find = (role: OutputRole): RegionWriter | undefined => writers.find((writer) => writer.role === role);
  return {
    find,
    get(role) {
      const writer = find(role);
      if (writer === undefined) {
        throw new InputError("input.option", `${task.name}: a ${task.kind} task needs an output for ${role}`, { tensor: task.name, role });
      }
      return writer;
    },
    finish: () => writers.map((writer) => ({ role: writer.role, sha256: writer.finish() })),
    close,
  };
}
