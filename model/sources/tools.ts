/**
 * What readers of checkpoints decode with.
 * @module
 */
import type { CheckpointTools } from "../../formats/checkpoint.ts";
import { threadCompactCoder } from "../../kernels/compact/thread-coder.ts";

/** The kernels' decoders, made when the first compact file is met. */
export const CHECKPOINT_TOOLS: CheckpointTools = { compactCoder: threadCompactCoder };
