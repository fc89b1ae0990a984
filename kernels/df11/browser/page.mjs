// The page: files by drop, by choice, from the artifact this folder lies in, or by ?file=URL (repeatable) with &manifest=URL.
// What the artifact is made of is known to restore.mjs alone.
import { EXTENSION, filesOf, readManifest, restoreFiles, WASM } from "./restore.mjs";

const $ = (id) => document.getElementById(id);
const parameters = new URLSearchParams(location.search);

function state(text, kind) {
  $("state").textContent = text;
  $("state").dataset.kind = kind;
  $("state").className = kind === "failed" ? "wrong" : "";
}

function addRow(table, kind, cells) {
  table.hidden = false;
  const row = table.tBodies[0].insertRow();
  row.className = kind;
  for (const [className, content] of cells) {
    const cell = row.insertCell();
    cell.className = className;
    cell.append(content);
  }
  return row;
}

function download(name, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content]));
  link.download = name;
  link.textContent = "save";
  return link;
}

async function run(files, manifestText) {
  for (const table of [$("sources"), $("tensors")]) {
    table.tBodies[0].replaceChildren();
    table.hidden = true;
  }
  $("total").textContent = "";
  state("decoding", "running");
  const started = performance.now();
  let decoded = 0;
  let compared = 0;
  try {
    if (files.length === 0) throw new Error(`no ${EXTENSION} file among them`);
    const manifest = readManifest(manifestText === undefined ? undefined : JSON.parse(manifestText));
    const wasm = await fetchBlob(new URL(WASM, import.meta.url));
    const result = await restoreFiles(await wasm.arrayBuffer(), files, manifest, {
      unit({ name, bytes, sha256 }) {
        addRow($("tensors"), "unit", [
          ["", `unit ${name}`],
          ["number", bytes.toLocaleString("en")],
          ["hash", sha256],
          ["", ""],
        ]).dataset.unit = name;
      },
      tensor({ name, bytes, sha256, expected }) {
        const verdict = expected === undefined ? "not known" : expected === sha256 ? "equal" : `must be ${expected}`;
        const kind = expected === undefined || expected === sha256 ? "tensor" : "tensor wrong";
        const row = addRow($("tensors"), kind, [
          ["", name],
          ["number", bytes.toLocaleString("en")],
          ["hash", sha256],
          ["", verdict],
        ]);
        row.dataset.tensor = name;
        decoded += bytes;
        if (expected !== undefined) compared++;
        state(`decoding: ${decoded.toLocaleString("en")} bytes so far`, "running");
      },
      source({ name, bytes, sha256, content }) {
        const row = addRow($("sources"), "", [
          ["", name],
          ["number", bytes.toLocaleString("en")],
          ["hash", sha256],
          ["", download(name, content)],
        ]);
        row.dataset.source = name;
      },
    });
    $("total").textContent = result.total;
    const seconds = ((performance.now() - started) / 1000).toFixed(2);
    const summary = `${result.tensors} tensors, ${decoded.toLocaleString("en")} bytes in ${seconds} s`;
    const missing = result.missing.length === 0 ? "" : `; ${result.missing.length} tensors of the model are in files not given`;
    if (result.wrong > 0) state(`${result.wrong} of ${summary} are not those of the source`, "failed");
    else state(`${summary}${compared === 0 ? "; nothing to compare them with" : ", equal to the source"}${missing}`, "done");
  } catch (error) {
    state(error.message, "failed");
  }
}

async function fetchBlob(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  return response.blob();
}

async function runChosen(list) {
  const chosen = [...list];
  const manifest = chosen.find(({ name }) => name === "bitwright.json");
  const files = chosen.filter(({ name }) => name.endsWith(EXTENSION)).map((file) => ({ name: file.name, blob: file }));
  await run(files, manifest === undefined ? undefined : await manifest.text());
}

async function runUrls(urls, manifestText) {
  state("fetching", "running");
  const files = [];
  try {
    for (const url of urls) files.push({ name: String(url).split("/").pop(), blob: await fetchBlob(url) });
  } catch (error) {
    state(error.message, "failed");
    return;
  }
  await run(files, manifestText);
}

$("files").addEventListener("change", () => void runChosen($("files").files));
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") void runChosen(event.dataTransfer.files);
  });
}

const given = parameters.getAll("file");
if (given.length > 0) {
  const manifest = parameters.get("manifest");
  await runUrls(given, manifest === null ? undefined : await (await fetchBlob(manifest)).text());
} else {
  // The folder above is the artifact when this one is its kernels/.
  const manifestText = await fetch("../bitwright.json").then(
    (response) => (response.ok ? response.text() : undefined),
    () => undefined,
  );
  const { names, bytes } = filesOf(manifestText === undefined ? undefined : JSON.parse(manifestText));
  if (names.length > 0) {
    const urls = names.map((name) => new URL(`../${name.split("/").map(encodeURIComponent).join("/")}`, location.href));
    $("beside").textContent = `Decode the artifact beside this page${bytes === undefined ? "" : ` (${(bytes / 1e6).toFixed(1)} MB)`}`;
    $("beside").hidden = false;
    $("beside").addEventListener("click", () => void runUrls(urls, manifestText));
  }
}
