// Results of the page's modules without a browser, on cases from Python.
//
//     node modules.mjs FOLDER-OF-THE-PAGE CASES.json
//
// Prints the list of results for each kind of case as JSON.

import { readFile } from "node:fs/promises";
import path from "node:path";

const [page, file] = process.argv.slice(2);
const load = (name) => import(path.resolve(page, name));
const [{ jpegIsWhole, stretch, tiles }, { rows }, { detectTiled }, { csv, freeName, summaryRows }, { checkPhoto, LIMITS }, { gaps }] = await Promise.all(
  ["pixels.js", "rows.js", "tiling.js", "count.js", "photogate.js", "facings.js"].map(load),
);
const bytes = (text) => new Uint8ClampedArray(Buffer.from(text, "base64"));

const run = {
  stretch: ({ photo, window, height, width }) =>
    Buffer.from(stretch({ ...photo, data: bytes(photo.data) }, window, height, width)).toString("base64"),
  whole: (data) => jpegIsWhole(bytes(data)),
  tiles: (arguments_) => tiles(...arguments_),
  limits: () => LIMITS,
  gaps: ({ products, size }) => gaps(products, size),
  gate: ({ photo, spec, boxes }) => checkPhoto({ ...photo, data: bytes(photo.data) }, spec, boxes),
  rows: (boxes) => rows(boxes),
  // The detector of a tiling case returns the recorded detections of the Python detector, window by window.
  tiling: ({ spec, photo, looks }) => detectTiled({ spec, detect: async () => looks.shift() }, photo),
  name: ([name, taken]) => freeName(name, taken),
  csv: (photos) => csv(photos),
  summary: (photos) => summaryRows(photos),
};

const answers = {};
for (const [kind, cases] of Object.entries(JSON.parse(await readFile(file, "utf8")))) {
  answers[kind] = await Promise.all(cases.map(run[kind]));
}
console.log(JSON.stringify(answers));
