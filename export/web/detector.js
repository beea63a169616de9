/**
 * Detector of a bundle, run by LiteRT in WebAssembly.
 *
 * Mirrors shelfcount/runtime/bundle.py. The int8 network gives the same numbers in both.
 */

import { clip } from "./boxes.js";
import { stretch } from "./pixels.js";
import { loadAndCompile, loadLiteRt, Tensor } from "./vendor/litert/litert.js";

const FORMAT = 1;
const LITERT = new URL("./vendor/litert/", import.meta.url);

/**
 * Fetch a bundle and check its model against model.json.
 *
 * @param {URL} folder Folder with model.json and model.tflite.
 * @returns {Promise<{detector: {spec: object, detect: function}, about: object}>} The detector, and a description of
 *   the model. `about.checked` is false if the browser provides no sha256, as on pages without https.
 * @throws {Error} If a file is missing or damaged, or has another format version.
 */
export async function openBundle(folder) {
  const text = await fetched(new URL("model.json", folder));
  const head = parsed(text);
  if (head.format !== FORMAT) {
    throw new Error(`model.json has format ${head.format}, but this page needs format ${FORMAT}. Use page and bundle of the same shelfcount version.`);
  }
  const model = await fetched(new URL("model.tflite", folder));
  const [expected, actual] = [head.files["model.tflite"], await sha256(model)];
  if (actual !== null && actual !== expected) {
    throw new Error(
      `model.tflite does not match model.json: its sha256 is ${actual.slice(0, 12)}, model.json expects ${expected.slice(0, 12)}. Copy the bundle again.`,
    );
  }
  const { name, classes, provenance } = head.spec;
  const about = { name, classes, provenance, recipe: head.recipe, sha256: await sha256(text), bytes: model.length, checked: actual !== null };
  return { detector: await openDetector(model, head.spec), about };
}

async function fetched(url) {
  const answer = await fetch(url).catch(() => {
    throw new Error("Could not load the model. Connect to the internet and reload the page.");
  });
  if (!answer.ok) {
    throw new Error(`Could not load ${url.pathname} (${answer.status}). The files of the bundle must be in the folder “bundle” next to the page.`);
  }
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
  // By default, the loader searches for the .wasm file next to the worker, and logs every message as an error.
  self.Module = { locateFile: (name) => new URL(name, LITERT).href, printErr: (text) => console.debug(text) };
  await loadLiteRt(new URL("litert_wasm_compat_internal.js", LITERT).href);
  const network = await loadAndCompile(model, { accelerator: "wasm" });
  const shape = [1, spec.height, spec.width, 3];
  const [input, outputs] = [network.getInputDetails()[0], network.getOutputDetails()];
  if (input.dtype !== "uint8" || input.shape.join() !== shape.join() || outputs.length !== 4) {
    throw new Error(
      `The model has ${input.dtype} input ${input.shape} and ${outputs.length} outputs, but it must have uint8 input ${shape} and 4 outputs.`,
    );
  }
  return { spec, detect: (photo, window) => detect(network, spec, photo, window) };
}

/** Return [{class, score, box}] of one window of a photo, highest score first, boxes in pixels of the window. */
async function detect(network, spec, photo, window) {
  const [width, height] = [window[2] - window[0], window[3] - window[1]];
  const pixels = stretch(photo, window, spec.height, spec.width);
  const [boxes, classes, scores, [count]] = await run(network, new Uint8Array(pixels.buffer), [1, spec.height, spec.width, 3]);
  const inPixels = (i) => [boxes[i + 1] * width, boxes[i] * height, boxes[i + 3] * width, boxes[i + 2] * height].map(Math.fround);
  // Entries after the count are not initialised.
  return Array.from(scores.subarray(0, count), (score, i) => ({
    class: classes[i],
    score,
    box: clip(inPixels(4 * i), [0, 0, width, height]),
  })).filter(({ score }) => score >= Math.fround(spec.score_threshold));
}

/** Run the network and return its outputs as typed arrays. Tensors of LiteRT are not garbage collected, so they are deleted. */
async function run(network, data, shape) {
  const input = new Tensor(data, shape);
  const outputs = await network.run([input]);
  const arrays = outputs.map((output) => output.toTypedArray());
  for (const tensor of [input, ...outputs]) tensor.delete();
  return arrays;
}
