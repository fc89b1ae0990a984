import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { quantize } from "../../quantize/quantize.ts";
import { goldenUnits } from "../support/golden-units.ts";
import { browserMissing, openPage, serveFolders, softwareGpuEnvironment, webgpuMissing } from "./support/chromium.ts";

const root = join(import.meta.dirname, "../..");
const FIXTURES = join(root, "fixtures/lossless/df11");
let work: string;
let kernels: string;

beforeAll(async () => {
  work = mkdtempSync(join(tmpdir(), "df11-kernels-"));
  await quantize(join(FIXTURES, "llama-slice/source"), {
    recipe: { method: ["dfloat11"], kernels: ["wgsl", "cuda"] },
    out: join(work, "out"),
    workers: 0,
  });
  kernels = join(work, "out/kernels");
  // The units as JSON, for a process and for a page.
  const units = goldenUnits().map((unit) =>
    Object.fromEntries(
      Object.entries(unit).map(([key, value]) => [key, typeof value === "string" ? value : Buffer.from(value).toString("base64")]),
    ),
  );
  writeFileSync(join(work, "units.json"), JSON.stringify(units));
  writeFileSync(join(work, "check.mjs"), CHECK);
  writeFileSync(join(work, "index.html"), "<title>WebGPU</title>");
  symlinkSync(join(import.meta.dirname, "node_modules"), join(work, "node_modules"));
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

/** Runs in Node and in a page: every unit at three sizes of run, then damaged ones. */
const CHECK = `
export async function check(gpu, createDecoder, wgsl, units) {
  const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const device = await (await gpu.requestAdapter()).requestDevice();
  const different = [];
  let decoded = 0;
  for (const options of [{}, { runBlocks: 1 }, { runBlocks: 2 }]) {
    const decode = await createDecoder(device, wgsl, options);
    for (const { name, ...arrays } of units) {
      const unit = Object.fromEntries(Object.entries(arrays).map(([key, text]) => [key, bytesOf(text)]));
      const bytes = new Uint8Array((await decode(unit)).buffer);
      decoded++;
      if (bytes.length !== unit.expected.length || bytes.some((byte, i) => byte !== unit.expected[i])) different.push(name);
    }
  }
  // A gap or a code that is not the source's gives an error or other weights, and the device stays usable.
  const decode = await createDecoder(device, wgsl);
  let refused = 0;
  for (const { name, ...arrays } of units) {
    for (const key of ["gaps", "encodedExponent", "luts", "outputPositions"]) {
      const unit = Object.fromEntries(Object.entries(arrays).map(([key, text]) => [key, bytesOf(text)]));
      unit[key][Math.floor(unit[key].length / 3)] ^= 0x55;
      await decode(unit).catch(() => refused++);
    }
  }
  device.destroy();
  return { decoded, different, refused: refused > 0 };
}
`;

const found = { decoded: 72, different: [], refused: true };
const title = (missing: string | undefined): string => (missing === undefined ? "" : ` (${missing})`);

const noWebgpu = webgpuMissing();
describe.skipIf(noWebgpu !== undefined)(`WebGPU in Node${title(noWebgpu)}`, () => {
  const environment = (): NodeJS.ProcessEnv => ({ ...process.env, ...softwareGpuEnvironment() });

  test("the self-test decodes a unit of the artifact", () => {
    const { stdout, status } = spawnSync(process.execPath, ["df11-webgpu.mjs", ".."], {
      cwd: kernels,
      encoding: "utf8",
      env: environment(),
    });
    expect(stdout).toMatch(/^ok: unit /);
    expect(status).toBe(0);
  });

  test("every golden unit decodes bit for bit, whatever the size of a run", () => {
    const script = `
      import { readFileSync } from "node:fs";
      import { create } from "webgpu";
      import { createDecoder } from "./out/kernels/df11-webgpu.mjs";
      import { check } from "./check.mjs";
      const units = JSON.parse(readFileSync("units.json", "utf8"));
      console.log(JSON.stringify(await check(create([]), createDecoder, readFileSync("out/kernels/df11.wgsl", "utf8"), units)));
    `;
    const stdout = execFileSync(process.execPath, ["--input-type=module", "--eval", script], {
      cwd: work,
      encoding: "utf8",
      env: environment(),
    });
    expect(JSON.parse(stdout)).toEqual(found);
  });
});

const noBrowser = browserMissing();
describe.skipIf(noBrowser !== undefined)(`WebGPU in headless Chromium${title(noBrowser)}`, () => {
  test("every golden unit decodes bit for bit", async () => {
    const server = await serveFolders({ "/": work });
    const { page, close } = await openPage(`${server.url}/index.html`, { webgpu: true });
    const result = await page.evaluate(`(async () => {
      const [{ createDecoder }, { check }] = await Promise.all([import("/out/kernels/df11-webgpu.mjs"), import("/check.mjs")]);
      const wgsl = await (await fetch("/out/kernels/df11.wgsl")).text();
      return check(navigator.gpu, createDecoder, wgsl, await (await fetch("/units.json")).json());
    })()`);
    await close();
    await server.close();
    expect(result).toEqual(found);
  });
});

/** BITWRIGHT_NVCC, else nvcc on the path. */
function findNvcc(): string | undefined {
  const given = process.env["BITWRIGHT_NVCC"];
  const name = given ?? "nvcc";
  return spawnSync(name, ["--version"]).status === 0 ? name : undefined;
}

const nvcc = findNvcc();
const hasGpu = spawnSync("nvidia-smi", ["-L"]).status === 0;
describe.skipIf(nvcc === undefined)(`CUDA${nvcc === undefined ? " (no nvcc: set BITWRIGHT_NVCC)" : ""}`, () => {
  test("df11.cu compiles with every warning an error", () => {
    const object = join(work, "df11.o");
    execFileSync(nvcc!, ["-O3", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror", "-c", "df11.cu", "-o", object], {
      cwd: kernels,
    });
    expect(readFileSync(object).length).toBeGreaterThan(1000);
  });

  test.skipIf(!hasGpu)(`the self-test decodes a unit on the GPU${hasGpu ? "" : " (no GPU: nvidia-smi finds none)"}`, () => {
    const binary = join(work, "selftest");
    // The wheels from PyPI keep the runtime in a folder nvcc does not look into.
    const libraries = join(dirname(nvcc!), "../lib");
    execFileSync(nvcc!, ["-O3", ...(existsSync(libraries) ? [`-L${libraries}`] : []), "df11.cu", "-o", binary], { cwd: kernels });
    const stdout = execFileSync(binary, [".."], { cwd: kernels, encoding: "utf8" });
    process.stdout.write(stdout);
    expect(stdout).toMatch(/^ok: unit /m);
    expect(stdout).toMatch(/GB\/s of bf16: decode [\d.]+, device copy [\d.]+/);
  });
});
