// Detections of a bundle in MediaPipe Tasks for Web, used as in a web page, in Chromium.
//
//     node web.mjs .consumers/web BUNDLE model.tflite|model-raw.tflite
//
// Prints the detections on the golden photos as JSON. The page is served locally and loads the library, its
// WebAssembly, the bundle and the photos. Browser and MediaPipe decode and resize the photos.

import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import path from "node:path";

const [environment, bundle, file] = process.argv.slice(2);
const require = createRequire(path.resolve(environment, "package.json"));
const { chromium } = require("playwright-core");
const library = path.resolve(environment, "node_modules/@mediapipe/tasks-vision");
const { version } = JSON.parse(await readFile(path.join(library, "package.json"), "utf8"));

// Browsers compile WebAssembly while loading, and import modules, only with these MIME types. They detect other types.
const TYPES = { ".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm" };

function serve(folders) {
  const server = createServer(async (request, response) => {
    const [, folder, ...rest] = decodeURIComponent(new URL(request.url, "http://localhost").pathname).split("/");
    try {
      const body = folder === "" ? "<!doctype html><title>golden</title>" : await readFile(path.join(folders[folder], ...rest));
      response.writeHead(200, { "Content-Type": TYPES[path.extname(request.url)] ?? "text/html" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

// Runs in the page.
async function detect(file) {
  const { FilesetResolver, ObjectDetector } = await import("/library/vision_bundle.mjs");
  const json = async (name) => (await fetch(`/bundle/${name}`)).json();
  const [golden, { spec }] = await Promise.all([json("golden/golden.json"), json("model.json")]);
  const detector = await ObjectDetector.createFromOptions(await FilesetResolver.forVisionTasks("/library/wasm"), {
    baseOptions: { modelAssetPath: `/bundle/${file}`, delegate: "CPU" },
    runningMode: "IMAGE",
    scoreThreshold: golden.score_threshold - golden.tolerance.score,
    maxResults: spec.max_detections,
  });
  const photos = [];
  for (const photo of golden.photos) {
    const image = new Image();
    image.src = `/bundle/golden/${photo.file}`;
    await image.decode();
    photos.push(
      detector.detect(image).detections.map(({ categories: [best], boundingBox: box }) => ({
        class: best.categoryName,
        score: best.score,
        box: [box.originX, box.originY, box.width, box.height],
      })),
    );
  }
  detector.close();
  return photos;
}

const server = await serve({ library, bundle });
const executablePath = execFileSync("sh", ["-c", "command -v chromium"], { encoding: "utf8" }).trim();
// Chromium needs --no-sandbox when it is run as root. MediaPipe needs WebGL 2 even on the CPU, here without a graphics card.
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--enable-unsafe-swiftshader"] });
try {
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.error(error.message));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const photos = await page.evaluate(detect, file);
  console.log(JSON.stringify({ consumer: "@mediapipe/tasks-vision", version: `${version}, Chromium ${browser.version()}`, photos }));
} finally {
  await browser.close();
  server.close();
}
