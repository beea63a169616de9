/**
 * Main module of the page: adds photos, counts them one after the other, and shows and saves the results.
 */

import { csv, freeName } from "./count.js";
import { notice, PhotoCard, showAbout, showSummary } from "./view.js";

const BUNDLE = new URL("bundle/", import.meta.url).href;

const page = (id) => document.getElementById(id);
const state = { cards: [], highlighted: null, counting: null, ready: false, offline: false };

// A worker has the Content-Security-Policy of its script's URL; for a blob: URL, that is the policy of the page (see index.html).
const start = new Blob([`importScripts(${JSON.stringify(new URL("worker.js", import.meta.url).href)})`], { type: "text/javascript" });
const worker = new Worker(URL.createObjectURL(start));
worker.onmessage = ({ data }) => heard(data);
worker.onerror = () => broken("This browser cannot run the page. It needs Safari 16.4, Chrome 111, Firefox 121 or newer.");

worker.postMessage({ open: BUNDLE });
for (const input of [page("camera"), page("chooser")]) {
  input.addEventListener("change", () => {
    add([...input.files]);
    // Reset, so that the same photo can be chosen again.
    input.value = "";
  });
}
page("download").addEventListener("click", download);
page("all").addEventListener("click", () => page("summary").classList.add("all"));
page("clear").addEventListener("click", () => {
  if (confirm("Remove all photos and their counts?")) [...state.cards].forEach(remove);
});
keepForOffline();

function heard(message) {
  if (message.about) {
    state.ready = true;
    showAbout(page("about"), message.about);
    if (!message.about.checked) {
      notice("This page was loaded without https. It works, but not offline, and the checksum of the model could not be verified.");
    }
    next();
  } else if (!state.ready) {
    broken(message.failed);
  } else if (message.tiles) {
    state.counting.progress(message.tile, message.tiles);
  } else {
    if (message.failed) state.counting.fail(message.failed);
    else state.counting.show(message.counted);
    state.counting = null;
    next();
  }
}

function broken(why) {
  notice(why, "error");
  page("status").textContent = "Not ready.";
  for (const input of document.querySelectorAll("nav input")) input.disabled = true;
}

function add(files) {
  for (const file of files) {
    const name = freeName(
      file.name,
      state.cards.map((card) => card.name),
    );
    const card = new PhotoCard(file, name, { onRemove: remove, onHighlight: highlight });
    state.cards.push(card);
    page("photos").append(card.element);
  }
  state.cards.at(-files.length)?.element.scrollIntoView({ behavior: "smooth", block: "nearest" });
  next();
}

/** Start counting the next photo, unless one is being counted. */
function next() {
  const waiting = state.cards.filter((card) => card.state === "waiting");
  if (state.ready && !state.counting && waiting.length) {
    state.counting = waiting[0];
    state.counting.progress(0, 1);
    worker.postMessage({ count: state.counting.file });
  }
  show();
}

function remove(card) {
  // The worker cannot be interrupted within a photo. Its result for a removed photo is not shown.
  card.close();
  state.cards = state.cards.filter((other) => other !== card);
  show();
}

/** Highlight one class on all photos, or none if it is highlighted already. */
function highlight(name) {
  state.highlighted = state.highlighted === name ? null : name;
  show();
}

function highlightAndShow(name) {
  highlight(name);
  const first = state.cards.find((card) => card.counted?.products.some((item) => item.class === state.highlighted));
  first?.frame.scrollIntoView({ behavior: "smooth", block: "nearest" });
}

function counted() {
  return state.cards.filter((card) => card.state === "counted").map((card) => ({ name: card.name, ...card.counted }));
}

function show() {
  const photos = counted();
  const left = state.cards.filter((card) => card.state === "waiting" || card.state === "counting").length;
  // The last photo with the highlighted class may have been removed.
  if (!photos.some((photo) => photo.products.some((item) => item.class === state.highlighted))) state.highlighted = null;
  page("empty").hidden = state.cards.length > 0;
  page("summary").hidden = photos.length === 0;
  const ready = state.offline ? "Ready, also offline." : "Ready.";
  if (state.ready) page("status").textContent = left ? `Counting: ${left} ${left === 1 ? "photo" : "photos"} left.` : ready;
  showSummary(photos, state.highlighted, highlightAndShow);
  for (const card of state.cards) card.highlight(state.highlighted);
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv(counted())], { type: "text/csv" }));
  link.download = `shelfcount-${new Date().toISOString().slice(0, 16).replaceAll(":", "-")}.csv`;
  link.click();
  // Delayed, since some browsers start reading the file only after the click.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Store the page for offline use, and check for a newer version. */
async function keepForOffline() {
  if (!navigator.serviceWorker) return;
  const stored = navigator.serviceWorker.controller;
  navigator.serviceWorker.addEventListener("message", ({ data }) => refreshed(data.changed));
  try {
    await navigator.serviceWorker.register("sw.js");
    const { active } = await navigator.serviceWorker.ready;
    if (stored) active.postMessage("refresh");
    else refreshed(false);
  } catch (error) {
    notice(`Could not store the page for offline use: ${error.message}`);
  }
}

function refreshed(changed) {
  if (changed && !state.cards.length) location.reload();
  else if (changed) notice("A newer version is available. Reload the page to use it.");
  state.offline = true;
  show();
}
