/**
 * bitwright as a library: what the command line does, as functions with typed options, events and errors.
 * @module
 */
export { calibrate, type CalibrateOptions, type Calibration } from "./calibrate/calibrate.ts";
export { readCalibration, writeCalibration } from "./calibrate/file.ts";
export { openSamples, type OpenSamplesOptions } from "./calibrate/inputs/open.ts";
export { loadSequences, type SequenceOptions } from "./calibrate/samples.ts";
export type { Statistic } from "./calibrate/statistic.ts";
export {
  BudgetError,
  FormatError,
  InputError,
  InterruptedError,
  NumericError,
  QuantError,
  UnsupportedError,
  VerifyError,
  WorkerError,
} from "./core/errors.ts";
export type { QuantScheme } from "./core/scheme.ts";
export { fromFloat32, tensorOf, toFloat32, type LazyTensor, type Tensor } from "./core/tensor.ts";
export { createEngine } from "./model/engines/index.ts";
export type { Engine, HostTensor } from "./model/engines/engine.ts";
export { compareModels, type OutputComparison } from "./model/compare.ts";
export { evaluate, logitsOf, type EvaluateOptions, type Evaluation } from "./model/evaluate.ts";
export { withActivations } from "./model/fake-quant.ts";
export { generate, type GenerateOptions } from "./model/generate.ts";
export { tokenSample } from "./model/inputs.ts";
export type { Block, LinearSite, Model } from "./model/model.ts";
export { openModel } from "./model/sources/open.ts";
export { loadTokenizer, type Tokenizer } from "./model/tokenizer.ts";
export type { SampleList, Samples } from "./model/sample-list.ts";
export type { BlockContext, Sample, WalkVisitor } from "./model/walk-types.ts";
export { walk } from "./model/walk.ts";
export { describeFormats, describeMethods } from "./quantize/describe.ts";
export { exportArtifact, type ExportOptions, type ExportReport } from "./quantize/export.ts";
export { parseGate } from "./quantize/gate.ts";
export { inspect, type Inspection } from "./quantize/inspect.ts";
export { openDFloat11, type DFloat11Artifact } from "./quantize/lossless/open.ts";
export { restore, type RestoreOptions, type RestoreReport } from "./quantize/lossless/restore.ts";
export { planQuantization } from "./quantize/plan.ts";
export { quantize, resume } from "./quantize/quantize.ts";
export { parseMethod } from "./quantize/recipe.ts";
export type {
  Gate,
  Plan,
  ProgressEvent,
  QuantizeOptions,
  QuantizeReport,
  Recipe,
  SitePlan,
  SiteReport,
  VerifyReport,
} from "./quantize/types.ts";
export { verifyArtifact, type VerifyOptions } from "./quantize/verify.ts";
