/**
 * Named schemes a `config_groups` entry may use instead of spelling one out (compressed-tensors 0.19 `PRESET_SCHEMES`).
 * @module
 */

type Preset = Readonly<Record<string, unknown>>;

const intToken = (bits: number): Preset => ({ num_bits: bits, type: "int", strategy: "token", symmetric: true, dynamic: true });
const floatToken: Preset = { num_bits: 8, type: "float", strategy: "token", symmetric: true, dynamic: true };
const intGroup = (bits: number, symmetric = true): Preset => ({
  num_bits: bits,
  type: "int",
  strategy: "group",
  group_size: 128,
  symmetric,
});
const float8 = (strategy: string): Preset => ({ num_bits: 8, type: "float", strategy, symmetric: true });
const int8Channel: Preset = { num_bits: 8, type: "int", strategy: "channel", symmetric: true };
const float4 = (strategy: string, size: number, dynamic: unknown): Preset => ({
  num_bits: 4,
  type: "float",
  strategy,
  group_size: size,
  symmetric: true,
  dynamic,
});
const mx8 = (dynamic: boolean): Preset => ({
  num_bits: 8,
  type: "float",
  strategy: "group",
  group_size: 32,
  symmetric: true,
  dynamic,
  scale_dtype: "torch.uint8",
});

/** Weight bits and activation bits of the integer presets with groups of 128. */
const INT_PAIRS: readonly (readonly [number, number])[] = [
  [2, 4],
  [2, 8],
  [2, 16],
  [3, 4],
  [3, 8],
  [3, 16],
  [4, 4],
  [4, 8],
  [4, 16],
  [5, 8],
  [5, 16],
  [6, 8],
  [6, 16],
  [7, 8],
  [7, 16],
  [8, 16],
];

export const PRESETS: ReadonlyMap<string, Preset> = new Map<string, Preset>([
  ["UNQUANTIZED", {}],
  ["W8A8", { weights: int8Channel, input_activations: intToken(8) }],
  ["INT8", { weights: int8Channel, input_activations: intToken(8) }],
  ["W4A16_ASYM", { weights: intGroup(4, false) }],
  ["W4AFP8", { weights: intGroup(4), input_activations: floatToken }],
  ["FP8", { weights: float8("tensor"), input_activations: float8("tensor") }],
  ["FP8_DYNAMIC", { weights: float8("channel"), input_activations: floatToken }],
  [
    "FP8_BLOCK",
    {
      weights: { ...float8("block"), block_structure: [128, 128] },
      input_activations: { ...float8("group"), group_size: 128, dynamic: true },
    },
  ],
  ["NVFP4A16", { weights: float4("tensor_group", 16, false) }],
  ["NVFP4", { weights: float4("tensor_group", 16, false), input_activations: float4("tensor_group", 16, "local") }],
  ["MXFP4A16", { weights: float4("group", 32, false) }],
  ["MXFP4", { weights: float4("group", 32, false), input_activations: float4("group", 32, true) }],
  ["MXFP8A16", { weights: mx8(false) }],
  ["MXFP8", { weights: mx8(false), input_activations: mx8(true) }],
  ...INT_PAIRS.map(([weight, input]): [string, Preset] => [
    `W${weight}A${input}`,
    { weights: intGroup(weight), ...(input === 16 ? {} : { input_activations: intToken(input) }) },
  ]),
]);
