/**
 * A bundle as a detector, on LiteRT in WebAssembly.
 *
 * Mirrors shelfcount/runtime/bundle.py. The int8 network gives the same numbers there and here.
 */

import { clip } from "./boxes.js";
import { stretch } from "./pixels.js";
import { loadAndCompile, loadLiteRt, Tensor } from "./vendor/litert/litert.js";

const FORMAT = 1;
const LITERT = new URL("./vendor/litert/", import.meta.url);

/**
 * Fetch a bundle and check its model against model.json.
 *
 * @param {URL} folder That holds model.json and model.tflite.
 * @returns {Promise<{detector: {spec: object, detect: function}, about: object}>} `about` tells people which
 *   model it is; `about.checked` is false where the browser has no sha256, as on pages without https.
 * @throws {Error} If a file is missing, damaged or of another version.
 */
export async function openBundle(folder) {
  const text = await fetched(new URL("model.json", folder));
  const head = parsed(text);
  if (head.format !== FORMAT) {
    throw new Error(`model.json must have format ${FORMAT}, got ${head.format}. The model was made by another version of shelfcount.`);
  }
  const model = await fetched(new URL("model.tflite", folder));
  const [wanted, got] = [head.files["model.tflite"], await sha256(model)];
  if (got !== null && got !== wanted) {
    throw new Error(
      `model.tflite does not belong to model.json: its sha256 must be ${wanted.slice(0, 12)}, got ${got.slice(0, 12)}. Copy the bundle again.`,
    );
  }
  const { name, classes, provenance } = head.spec;
  const about = { name, classes, provenance, recipe: head.recipe, sha256: await sha256(text), bytes: model.length, checked: got !== null };
  return { detector: await openDetector(model, head.spec), about };
}

async function fetched(url) {
  const answer = await fetch(url).catch(() => {
    throw new Error("The model could not be loaded. Go online and open the page again.");
  });
  if (!answer.ok) throw new Error(`The bundle must lie beside the page, but ${url.pathname} is not there (${answer.status}).`);
  return new Uint8Array(await answer.arrayBuffer());
}

function parsed(text) {
  try {
    return JSON.parse(new TextDecoder().decode(text));
  } catch (error) {
    throw new Error(`model.json is damaged: ${error.message}. Copy the bundle again.`);
  }
}

async function sha256(bytes) {
  if (!globalThis.crypto.subtle) return null;
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function openDetector(model, spec) {
  // The loader would look for the .wasm file beside the worker, and calls everything it says an error.
  self.Module = { locateFile: (name) => new URL(name, LITERT).href, printErr: (text) => console.debug(text) };
  await loadLiteRt(new URL("litert_wasm_compat_internal.js", LITERT).href);
  const network = await loadAndCompile(model, { accelerator: "wasm" });
  const shape = [1, spec.height, spec.width, 3];
  const [input, outputs] = [network.getInputDetails()[0], network.getOutputDetails()];
  if (input.dtype !== "uint8" || input.shape.join() !== shape.join() || outputs.length !== 4) {
    throw new Error(`The model must take uint8 ${shape} and give 4 outputs, got ${input.dtype} ${input.shape} and ${outputs.length}.`);
  }
  return { spec, detect: (photo, window) => detect(network, spec, photo, window) };
}

/** [{class, score, box}] of one window of a photo, best score first, boxes in pixels of the window. */
async function detect(network, spec, photo, window) {
  const [width, height] = [window[2] - window[0], window[3] - window[1]];
  const pixels = stretch(photo, window, spec.height, spec.width);
  const [boxes, classes, scores, [count]] = await run(network, new Uint8Array(pixels.buffer), [1, spec.height, spec.width, 3]);
  const inPixels = (i) => [boxes[i + 1] * width, boxes[i] * height, boxes[i + 3] * width, boxes[i + 2] * height].map(Math.fround);
  // What lies behind the count was never written.
  return Array.from(scores.subarray(0, count), (score, i) => ({
    class: classes[i],
    score,
    box: clip(inPixels(4 * i), [0, 0, width, height]),
  })).filter(({ score }) => score >= Math.fround(spec.score_threshold));
}

/** The outputs as typed arrays. LiteRT keeps tensors outside the garbage collector's reach, so they are deleted here. */
async function run(network, data, shape) {
  const input = new Tensor(data, shape);
  const outputs = await network.run([input]);
  const arrays = outputs.map((output) => output.toTypedArray());
  for (const tensor of [input, ...outputs]) tensor.delete();
  return arrays;
}
