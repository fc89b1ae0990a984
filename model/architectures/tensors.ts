/**
 * TensorTable: the checkpoint's tensors as an architecture asks for them, each
 * checked against the shape that config.json implies.
 * @module
 */
import { FormatError, UnsupportedError } from "../../core/errors.ts";
import { elementCount, type DType } from "../../core/dtype.ts";
import type { LazyTensor } from "../../core/tensor.ts";

const WEIGHT_DTYPES: ReadonlySet<DType> = new Set<DType>(["F64", "F32", "F16", "BF16"]);

export class TensorTable {
  readonly #tensors: ReadonlyMap<string, LazyTensor>;
  /** Tensors whose shape only the architecture knows. */
  readonly #shaped = new Map<string, LazyTensor>();

  constructor(tensors: ReadonlyMap<string, LazyTensor>) {
    this.#tensors = tensors;
  }

  has(name: string): boolean {
    return this.#tensors.has(name);
  }

  /**
   * @throws {FormatError} `format.missing` when there is no such tensor; `format.config` naming both shapes when they disagree.
   * @throws {UnsupportedError} `unsupported.dtype` when it does not hold plain floats.
   */
  take(name: string, shape: readonly number[]): LazyTensor {
    const tensor = this.#withShape(name, shape);
    if (tensor === undefined) {
      throw new FormatError("format.missing", `the checkpoint lacks tensor ${name} ${JSON.stringify(shape)}, which config.json asks for`, {
        tensor: name,
        shape,
      });
    }
    if (tensor.shape.length !== shape.length || tensor.shape.some((size, i) => size !== shape[i])) {
      throw new FormatError(
        "format.config",
        `tensor ${name} is ${JSON.stringify(tensor.shape)} in the checkpoint, config.json implies ${JSON.stringify(shape)}`,
        { tensor: name, found: tensor.shape, expected: shape },
      );
    }
    if (!WEIGHT_DTYPES.has(tensor.dtype)) {
      throw new UnsupportedError(
        "unsupported.dtype",
        `tensor ${name} is ${tensor.dtype}; weights must be ${[...WEIGHT_DTYPES].join(", ")}, or an artifact whose quantization_config is known`,
        { tensor: name, dtype: tensor.dtype },
      );
    }
    return tensor;
  }

  /** All tensors, with the shapes that were found out on the way. */
  shaped(): ReadonlyMap<string, LazyTensor> {
    if (this.#shaped.size === 0) return this.#tensors;
    return new Map([...this.#tensors].map(([name, tensor]) => [name, this.#shaped.get(name) ?? tensor]));
  }

  #withShape(name: string, shape: readonly number[]): LazyTensor | undefined {
    const tensor = this.#shaped.get(name) ?? this.#tensors.get(name);
    if (tensor?.shapeless !== true || elementCount(shape) !== tensor.shape[0]) return tensor;
    const { shapeless: _shapeless, ...rest } = tensor;
    const whole: LazyTensor = { ...rest, shape, read: async () => ({ ...(await tensor.read()), shape }) };
    this.#shaped.set(name, whole);
    return whole;
  }

  /** The first prefix under which `probe` is there; the first of all when none is, so that errors name the usual place. */
  prefixOf(prefixes: readonly string[], probe: string): string {
    return prefixes.find((prefix) => this.#tensors.has(prefix + probe)) ?? prefixes[0]!;
  }
}
