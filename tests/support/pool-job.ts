/** A job for the tests of kernels/pool.ts. */
import { InputError } from "../../core/errors.ts";
import type { JobContext } from "../../kernels/pool.ts";

export type Probe = { readonly kind: "square"; readonly value: number } | { readonly kind: "throw" | "forever" | "exit" | "crash" };

export async function run(task: Probe, { breathe, progress }: JobContext): Promise<number> {
  switch (task.kind) {
    case "square":
      return task.value * task.value;
    case "throw":
      throw new InputError("input.value", "seven is not allowed", { given: 7 });
    case "exit":
      return process.exit(3);
    case "crash":
      setImmediate(() => {
        throw new Error("outside of any promise");
      });
      return new Promise<number>(() => undefined);
    case "forever":
      return forever({ breathe, progress });
    default:
      return task satisfies never;
  }
}

async function forever({ breathe, progress }: Pick<JobContext, "breathe" | "progress">): Promise<never> {
  for (;;) {
    progress(1);
    await breathe();
  }
}
