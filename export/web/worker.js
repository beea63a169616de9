/**
 * Counts beside the page, so that the page stays quick. No module, since LiteRT loads itself by importScripts.
 *
 * In: {open: address of the bundle folder} or {count: File}, one at a time.
 * Out: {about}, {tile, tiles} as often as wanted, {counted}, or {failed: why}.
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
