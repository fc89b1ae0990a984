/**
 * Every command, one line each. To add one: a file beside this one and a line below.
 * @module
 */
import type { Command } from "commander";
import type { Io } from "../io.ts";
import { addCalibrate } from "./calibrate.ts";
import { addCompare } from "./compare.ts";
import { addCompletion } from "./completion.ts";
import { addDoctor } from "./doctor.ts";
import { addEval } from "./eval.ts";
import { addExport } from "./export.ts";
import { addFormats, addMethods } from "./tables.ts";
import { addInspect } from "./inspect.ts";
import { addQuantize } from "./quantize.ts";
import { addRestore } from "./restore.ts";
import { addResume } from "./resume.ts";
import { addRun } from "./run.ts";
import { addVerify } from "./verify.ts";

export const commands: readonly ((program: Command, io: Io) => void)[] = [
  addQuantize,
  addCalibrate,
  addEval,
  addCompare,
  addRun,
  addVerify,
  addRestore,
  addInspect,
  addExport,
  addResume,
  addMethods,
  addFormats,
  addDoctor,
  addCompletion,
];
