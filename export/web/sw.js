/**
 * Service worker for offline use: all files of the page are in one cache, which is filled completely or not at all.
 *
 * All requests are answered from the cache. Each time the page is opened, it requests a refresh, and it reloads itself
 * if a file has changed.
 */

const CACHE = "shelfcount";
const FILES = [
  "./",
  "app.js",
  "boxes.js",
  "count.js",
  "detector.js",
  "facings.js",
  "icon.png",
  "icon.svg",
  "manifest.webmanifest",
  "photogate.js",
  "pixels.js",
  "rows.js",
  "style.css",
  "tiling.js",
  "view.js",
  "worker.js",
  "bundle/model.json",
  "bundle/model.tflite",
  "vendor/litert/litert.js",
  "vendor/litert/litert_wasm_compat_internal.js",
  "vendor/litert/litert_wasm_compat_internal.wasm",
  "vendor/litert/wasm-utils.js",
];

self.addEventListener("install", (event) => event.waitUntil(refresh().then(() => self.skipWaiting())));
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("message", (event) => event.waitUntil(answerRefresh(event.source)));
self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET") event.respondWith(answer(event.request));
});

async function answer(request) {
  const cache = await caches.open(CACHE);
  const stored = request.mode === "navigate" ? await cache.match("./") : await cache.match(request, { ignoreSearch: true });
  return stored ?? fetch(request);
}

async function answerRefresh(page) {
  // Without a network, nothing has changed.
  page.postMessage({ changed: await refresh().catch(() => false) });
}

/** Fetch all files, then store them. Return whether any of them differs from the cached one. */
async function refresh() {
  const cache = await caches.open(CACHE);
  const fresh = await Promise.all(FILES.map(async (file) => ({ file, bytes: await load(file) })));
  let changed = false;
  for (const { file, bytes } of fresh) {
    const stored = await cache.match(file);
    if (stored && same(await stored.arrayBuffer(), await bytes.clone().arrayBuffer())) continue;
    changed = true;
    await cache.put(file, bytes);
  }
  return changed;
}

async function load(file) {
  const answer = await fetch(file, { cache: "no-cache" });
  if (!answer.ok) throw new Error(`${file}: ${answer.status}`);
  return answer;
}

function same(a, b) {
  const [left, right] = [new Uint8Array(a), new Uint8Array(b)];
  return left.length === right.length && left.every((byte, i) => byte === right[i]);
}
