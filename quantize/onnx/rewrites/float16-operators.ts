/**
 * How operators take float16: tables that the conversion goes by.
 * @module
 */

/**
 * Operators that stay in float32, with Casts around them: those whose kernels take no float16, or lose too much in it. The list of
 * onnxconverter-common, and what onnxruntime's CPU provider has no float16 kernel for.
 */
export const FLOAT32_OPERATORS: ReadonlySet<string> = new Set([
  "ArrayFeatureExtractor",
  "Binarizer",
  "CastMap",
  "CategoryMapper",
  "DictVectorizer",
  "FeatureVectorizer",
  "Imputer",
  "LabelEncoder",
  "LinearClassifier",
  "LinearRegressor",
  "Normalizer",
  "OneHotEncoder",
  "SVMClassifier",
  "SVMRegressor",
  "Scaler",
  "TreeEnsembleClassifier",
  "TreeEnsembleRegressor",
  "ZipMap",
  "NonMaxSuppression",
  "TopK",
  "RoiAlign",
  "Range",
  "CumSum",
  "Min",
  "Max",
  "Upsample",
  "Resize",
  "RandomNormal",
  "RandomNormalLike",
  "RandomUniform",
  "RandomUniformLike",
  "DynamicQuantizeLinear",
  "QuantizeLinear",
  "DequantizeLinear",
  "MatMulInteger",
  "ConvInteger",
  "LSTM",
  "GRU",
  "RNN",
  "STFT",
  "DFT",
  "MelWeightMatrix",
  "HannWindow",
  "HammingWindow",
  "BlackmanWindow",
]);

/** Operators that make floats of nothing or of integers, of the type that their `dtype` says (default: float32). */
export const FLOAT_MAKERS: ReadonlySet<string> = new Set([
  "RandomNormal",
  "RandomNormalLike",
  "RandomUniform",
  "RandomUniformLike",
  "HannWindow",
  "HammingWindow",
  "BlackmanWindow",
  "MelWeightMatrix",
]);

/** Operators that read floats and give something else. */
export const INTEGER_RESULTS: ReadonlySet<string> = new Set([
  "Shape",
  "Size",
  "ArgMax",
  "ArgMin",
  "Equal",
  "Greater",
  "GreaterOrEqual",
  "Less",
  "LessOrEqual",
  "IsNaN",
  "IsInf",
  "NonZero",
  "NonMaxSuppression",
  "QuantizeLinear",
]);
export const INTEGER_OUTPUTS: ReadonlyMap<string, readonly number[]> = new Map([
  ["TopK", [1]],
  ["MaxPool", [1]],
  ["Dropout", [1]],
  ["Unique", [1, 2, 3]],
  ["DynamicQuantizeLinear", [0, 2]],
]);
/** Operators whose first inputs do not say what their output is. */
export const TYPE_INPUT: ReadonlyMap<string, number> = new Map([
  ["Where", 1],
  ["Gather", 0],
  ["GatherElements", 0],
  ["GatherND", 0],
  ["Reshape", 0],
  ["Expand", 0],
  ["Pad", 0],
  ["OneHot", 2],
]);
