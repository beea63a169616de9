/**
 * Worker that counts, so that the page stays responsive. It is a classic worker, since LiteRT loads itself with importScripts.
 *
 * Messages to it: {open: URL of the bundle folder} or {count: File}, one at a time.
 * Messages from it: {about}, any number of {tile, tiles}, {counted}, or {failed: reason}.
 */

let detector;

self.onmessage = async ({ data }) => {
  try {
    if (data.open) {
      const { openBundle } = await import("./detector.js");
      const opened = await openBundle(new URL(data.open));
      detector = opened.detector;
      self.postMessage({ about: opened.about });
    } else {
      const [{ countPhoto }, { readPhoto }] = await Promise.all([import("./count.js"), import("./pixels.js")]);
      const counted = await countPhoto(detector, await readPhoto(data.count), (tile, tiles) => self.postMessage({ tile, tiles }));
      self.postMessage({ counted });
    }
  } catch (error) {
    self.postMessage({ failed: error.message });
  }
};
