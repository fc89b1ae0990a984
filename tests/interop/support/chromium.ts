/**
 * Headless Chromium for checks that need a browser, and its software Vulkan driver for WebGPU in Node.
 * @module
 */
import { spawnSync } from "node:child_process";
import { createReadStream, existsSync, realpathSync } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname, extname, join, sep } from "node:path";
import type { Browser, Page } from "playwright-core";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const PACKAGES = join(import.meta.dirname, "../node_modules");

/** Path of a Chromium: `BITWRIGHT_CHROMIUM`, else the first of the usual names on the path. */
export function findChromium(): string | undefined {
  const given = process.env["BITWRIGHT_CHROMIUM"];
  if (given !== undefined) return given;
  const folders = (process.env["PATH"] ?? "").split(":").filter((folder) => folder !== "");
  return NAMES.flatMap((name) => folders.map((folder) => join(folder, name))).find((path) => existsSync(path));
}

/** Whether `npm ci` has been run in tests/interop. */
export function hasPackage(name: string): boolean {
  return existsSync(join(PACKAGES, name, "package.json"));
}

/** Why a check with a browser cannot run here; undefined when it can. For the title of a skipped suite. */
export function browserMissing(): string | undefined {
  if (!hasPackage("playwright-core")) return "run npm ci in tests/interop";
  if (findChromium() === undefined) return "no Chromium: apt-get install chromium, or set BITWRIGHT_CHROMIUM";
  return undefined;
}

/**
 * Environment for a Node process that uses npm `webgpu` (or the WebGPU provider of onnxruntime-node) without a GPU: Chromium's SwiftShader.
 * It must be there when the process starts. Undefined when Chromium or its driver is not found.
 */
export function softwareGpuEnvironment(): Readonly<Record<string, string>> | undefined {
  const path = findChromium();
  if (path === undefined) return undefined;
  // Debian's `chromium` is a script; the driver lies where the program is.
  const folders = [dirname(realpathSync(path)), "/usr/lib/chromium", "/usr/lib/chromium-browser", "/opt/google/chrome"];
  const folder = folders.find((candidate) => existsSync(join(candidate, "vk_swiftshader_icd.json")));
  if (folder === undefined) return undefined;
  const libraries = [folder, process.env["LD_LIBRARY_PATH"]].filter((entry) => entry !== undefined).join(":");
  return { VK_ICD_FILENAMES: join(folder, "vk_swiftshader_icd.json"), LD_LIBRARY_PATH: libraries };
}

/** Why WebGPU in Node cannot run here; undefined when it can. */
export function webgpuMissing(): string | undefined {
  if (!hasPackage("webgpu")) return "run npm ci in tests/interop";
  if (softwareGpuEnvironment() === undefined) return "no Chromium with SwiftShader: apt-get install chromium, or set BITWRIGHT_CHROMIUM";
  return undefined;
}

const TYPES: ReadonlyMap<string, string> = new Map([
  [".html", "text/html; charset=utf-8"],
  [".js", "text/javascript"],
  [".mjs", "text/javascript"],
  [".json", "application/json"],
  [".wasm", "application/wasm"],
  [".wgsl", "text/plain; charset=utf-8"],
]);

/** A static server on a free port of this machine. */
export interface StaticServer {
  /** `http://127.0.0.1:<port>`, without a slash at the end. */
  readonly url: string;
  readonly close: () => Promise<void>;
}

/**
 * Serve folders.
 *
 * @param folders - by URL prefix, such as `{ "/": pageFolder, "/models/": modelFolder }`; the longest prefix that fits wins.
 * @param options.isolated - send COOP and COEP, which make the page cross-origin isolated (SharedArrayBuffer, WASM threads). Default true.
 */
export async function serveFolders(
  folders: Readonly<Record<string, string>>,
  { isolated = true }: { readonly isolated?: boolean } = {},
): Promise<StaticServer> {
  const prefixes = Object.entries(folders).toSorted(([a], [b]) => b.length - a.length);
  const server: Server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? "/", "http://localhost").pathname);
    const found = prefixes.find(([prefix]) => path.startsWith(prefix));
    const file = found === undefined ? undefined : join(found[1], path.slice(found[0].length));
    const headers = {
      "Cache-Control": "no-store",
      ...(isolated ? { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" } : {}),
    };
    if (found === undefined || file === undefined || !`${file}${sep}`.startsWith(join(found[1], sep))) {
      response.writeHead(404, headers).end();
      return;
    }
    void stat(file).then(
      (facts) => {
        if (!facts.isFile()) return response.writeHead(404, headers).end();
        const type = TYPES.get(extname(file)) ?? "application/octet-stream";
        response.writeHead(200, { ...headers, "Content-Type": type, "Content-Length": facts.size });
        return createReadStream(file).pipe(response);
      },
      () => response.writeHead(404, headers).end(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    close: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** A page in a browser of its own. */
export interface OpenedPage {
  readonly page: Page;
  /** Messages of uncaught errors and of `console.error`, as they come. */
  readonly errors: readonly string[];
  readonly close: () => Promise<void>;
}

/**
 * Open a page in headless Chromium.
 *
 * @param options.webgpu - give the page `navigator.gpu` on SwiftShader.
 */
export async function openPage(url: string, { webgpu = false }: { readonly webgpu?: boolean } = {}): Promise<OpenedPage> {
  const executablePath = findChromium();
  if (executablePath === undefined) throw new Error(browserMissing());
  const { chromium } = await import("playwright-core");
  const flags = webgpu ? ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"] : [];
  // Containers often run as root and have a small /dev/shm.
  const browser: Browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage", ...flags] });
  const errors: string[] = [];
  const page = await browser.newPage();
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(message.text());
  });
  await page.goto(url);
  return { page, errors, close: async () => browser.close() };
}

/** Version line of the Chromium found, for reports. */
export function chromiumVersion(): string {
  const path = findChromium();
  return path === undefined ? "none" : spawnSync(path, ["--version"], { encoding: "utf8" }).stdout.trim();
}
