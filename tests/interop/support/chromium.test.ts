import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { browserMissing, openPage, serveFolders } from "./chromium.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "serve-"));
  writeFileSync(join(folder, "index.html"), "<title>page</title>");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("nothing outside the folders is served", async () => {
  const server = await serveFolders({ "/": folder });
  const statuses = await Promise.all(
    ["/index.html", "/", "/none", "/%2e%2e/%2e%2e/etc/passwd", "/..%2fx"].map(async (path) => (await fetch(server.url + path)).status),
  );
  await server.close();
  expect(statuses).toEqual([200, 404, 404, 404, 404]);
});

const missing = browserMissing();
describe.skipIf(missing !== undefined)(`in Chromium${missing === undefined ? "" : ` (${missing})`}`, () => {
  test.each([true, false])("a page is cross-origin isolated as asked: %s", async (isolated) => {
    const server = await serveFolders({ "/": folder }, { isolated });
    const { page, close } = await openPage(`${server.url}/index.html`);
    expect(await page.evaluate("crossOriginIsolated && typeof SharedArrayBuffer === 'function'")).toBe(isolated);
    await close();
    await server.close();
  });

  test("WebGPU is there when asked for", async () => {
    const server = await serveFolders({ "/": folder });
    const { page, close } = await openPage(`${server.url}/index.html`, { webgpu: true });
    expect(await page.evaluate("navigator.gpu.requestAdapter().then((adapter) => adapter !== null)")).toBe(true);
    await close();
    await server.close();
  });
});
