// Compress a model with DFloat11 and serve it with the page that restores it in a browser. With --serve it stays until Ctrl-C.
import { readFile, mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { quantize } from "bitwright";

const work = await mkdtemp(join(tmpdir(), "bitwright-example-"));
const artifact = join(work, "llama-df11");
const report = await quantize("fixtures/lossless/df11/llama-slice/source", {
  recipe: { method: ["dfloat11"], kernels: ["wasm"] },
  out: artifact,
});
console.log(`${report.outputBytes} bytes, the page with its decoder included`);

// Any static server does: the page needs no special headers.
const types = new Map([
  [".html", "text/html"],
  [".mjs", "text/javascript"],
  [".json", "application/json"],
  [".wasm", "application/wasm"],
]);
const server = createServer((request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url ?? "/", "http://localhost").pathname));
  readFile(join(artifact, path.endsWith("/") ? `${path}index.html` : path)).then(
    (content) => response.writeHead(200, { "Content-Type": types.get(extname(path)) ?? "text/html" }).end(content),
    () => response.writeHead(404).end(),
  );
});
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
const url = `http://localhost:${(server.address() as AddressInfo).port}/kernels/`;
console.log(`open ${url} and press the button: every SHA-256 is that of the source`);

if (process.argv.includes("--serve")) await new Promise((resolve) => process.once("SIGINT", resolve));
else console.log(`the page answers: ${(await fetch(url)).status}`);
server.closeAllConnections();
server.close();
await rm(work, { recursive: true, force: true });
