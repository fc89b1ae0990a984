// SmoothQuant W8A8 of a small Llama: a directory that vLLM and transformers load, verified after writing.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { quantize } from "bitwright";

const out = await mkdtemp(join(tmpdir(), "bitwright-example-"));
const report = await quantize("fixtures/models/tiny-llama", {
  recipe: { method: ["smoothquant", "rtn"], bits: "w8a8" },
  data: ["fixtures/data/calib.txt"],
  samples: 8,
  sequenceLength: 256,
  out: join(out, "tiny-llama-w8a8"),
});
const worst = report.sites.reduce((a, b) => (b.sqnr < a.sqnr ? b : a));
console.log(`${report.sites.length} sites, ${report.sourceBytes} → ${report.outputBytes} bytes, verified: ${report.verified.ok}`);
console.log(
  `worst site ${worst.name}: ${worst.sqnr.toFixed(1)} dB; outliers ${worst.outlierBefore?.toFixed(1)}× → ${worst.outlierAfter?.toFixed(1)}×`,
);
await rm(out, { recursive: true });
