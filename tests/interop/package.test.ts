import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");
const run = promisify(execFile);
/** The runtime's own download is not needed for the CPU, and is refused on many networks. */
const environment = { ...process.env, ONNXRUNTIME_NODE_INSTALL: "skip", npm_config_fund: "false", npm_config_audit: "false" };

async function npm(cwd: string, ...args: readonly string[]): Promise<string> {
  const { stdout } = await run("npm", [...args], { cwd, env: environment, maxBuffer: 2 ** 26, shell: process.platform === "win32" });
  return stdout;
}

describe("the packed package works in an empty folder", () => {
  let folder: string;
  let tarball: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "bitwright-package-"));
    await npm(root, "pack", "--pack-destination", folder);
    const packed = (await readdir(folder)).find((name) => name.endsWith(".tgz"));
    tarball = join(folder, packed!);
    await cp(join(root, "fixtures/models/tiny-llama"), join(folder, "tiny-llama"), { recursive: true });
    await cp(join(root, "fixtures/lossless/df11/llama-slice/source"), join(folder, "llama-slice"), { recursive: true });
  });
  afterAll(async () => rm(folder, { recursive: true, force: true }));

  test.each([
    { install: "without optional dependencies", flags: ["--omit=optional"], native: false },
    { install: "with onnxruntime-node", flags: [], native: true },
  ])("installed $install", async ({ flags, native }) => {
    const project = join(folder, native ? "full" : "small");
    await mkdir(project);
    await writeFile(join(project, "package.json"), JSON.stringify({ name: "smoke", version: "1.0.0", private: true, type: "module" }));
    await npm(project, "install", ...flags, tarball);
    expect(existsSync(join(project, "node_modules/onnxruntime-node"))).toBe(native);

    const npx = (...args: readonly string[]): Promise<string> => npm(project, "exec", "--offline", "--", ...args);
    expect(await npx("bitwright", "--help")).toContain("Exit codes:");
    const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { version: string };
    expect((await npx("quantize", "--version")).trim()).toBe(version);

    const calibration = join(project, "node_modules/bitwright/fixtures/data/calib.txt");
    const flagsOfRun = ["--method", "smoothquant", "--data", calibration, "--samples", "4", "--seq-len", "128", "--out", "w8a8", "--json"];
    const report = JSON.parse(await npx("bitwright", join(folder, "tiny-llama"), ...flagsOfRun)) as {
      verified: { ok: boolean };
      outputBytes: number;
    };
    expect(report.verified.ok).toBe(true);
    const config = JSON.parse(await readFile(join(project, "w8a8/config.json"), "utf8")) as {
      quantization_config: Record<string, unknown>;
    };
    expect(config.quantization_config).toMatchObject({ quant_method: "compressed-tensors", format: "int-quantized" });

    const lossless = ["--method", "dfloat11", "--kernels", "c,wasm,wgsl,cuda", "--out", "df11"];
    await npx("bitwright", join(folder, "llama-slice"), ...lossless);
    expect(
      (await readdir(join(project, "df11/kernels"))).filter((name) => /^(df11\.(c|cu|mjs|wasm|wgsl)|index\.html)$/.test(name)),
    ).toHaveLength(6);
    const selfTest = await run(process.execPath, ["df11/kernels/df11.mjs", "df11"], { cwd: project });
    expect(selfTest.stdout).toMatch(/^ok: unit /);

    await writeFile(
      join(project, "use.js"),
      'import * as api from "bitwright";\nconsole.log(typeof api.quantize, typeof api.openModel);\n',
    );
    expect((await run(process.execPath, ["use.js"], { cwd: project })).stdout.trim()).toBe("function function");
  });
});
