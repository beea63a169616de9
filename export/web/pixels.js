/**
 * Reading of photos: decode upright, resize to the network's input, split into tiles.
 *
 * Mirrors shelfcount/vision/images.py and gives the same bytes, so that the page gives the same counts as
 * `shelfcount count`. A photo is {width, height, data} with RGB data in row-major order.
 */

const MAX_PHOTO_PIXELS = 250_000_000;
// Phones refuse canvases of more than about 16 megapixels, so a photo is read in bands.
const BAND_PIXELS = 4_000_000;
const JPEG_START_OF_SCAN = 0xda;
const JPEG_END = 0xd9;

// OpenCV's fixed point for bilinear weights: modules/imgproc/src/resize.cpp, INTER_RESIZE_COEF_BITS.
const WEIGHT_ONE = 2048;
// OpenCV drops smaller shares of a source pixel in a target pixel: computeResizeAreaTab.
const MIN_SHARE = 1e-3;

/**
 * Decode a photo in upright orientation.
 *
 * @param {Blob} file
 * @returns {Promise<{width: number, height: number, data: Uint8ClampedArray}>}
 * @throws {Error} If the file is not a photo, is truncated, or has more than `MAX_PHOTO_PIXELS` pixels.
 */
export async function readPhoto(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && !jpegIsWhole(bytes)) {
    throw new Error(`The photo is incomplete: its JPEG data have no end marker (${bytes.length} bytes). Copy it again.`);
  }
  let bitmap;
  try {
    // As in OpenCV, the orientation is applied and the colour profile is not.
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error(`This browser cannot decode the photo (${bytes.length} bytes). All browsers support JPEG and PNG.`);
  }
  try {
    if (bitmap.width * bitmap.height > MAX_PHOTO_PIXELS) {
      throw new Error(`The photo is too large: ${bitmap.width} x ${bitmap.height} pixels. At most ${MAX_PHOTO_PIXELS} pixels are allowed.`);
    }
    return { width: bitmap.width, height: bitmap.height, data: rgb(bitmap) };
  } finally {
    bitmap.close();
  }
}

function rgb(bitmap) {
  const { width, height } = bitmap;
  const band = Math.max(1, Math.min(height, Math.floor(BAND_PIXELS / width)));
  const context = new OffscreenCanvas(width, band).getContext("2d", { willReadFrequently: true, alpha: false });
  const data = new Uint8ClampedArray(width * height * 3);
  let at = 0;
  for (let top = 0; top < height; top += band) {
    const rows = Math.min(band, height - top);
    context.drawImage(bitmap, 0, top, width, rows, 0, 0, width, rows);
    const rgba = context.getImageData(0, 0, width, rows).data;
    for (let i = 0; i < rgba.length; i += 4) {
      data[at++] = rgba[i];
      data[at++] = rgba[i + 1];
      data[at++] = rgba[i + 2];
    }
  }
  return data;
}

/** Return whether a JPEG has its end marker. Browsers, like OpenCV, show a missing part in grey without an error. */
export function jpegIsWhole(bytes) {
  let scanned = false;
  for (let at = 2; at + 1 < bytes.length;) {
    const marker = bytes[at + 1];
    // Stuffed zeros, restart markers within a scan, and other markers without a length start no segment.
    if (bytes[at] !== 0xff || marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd8) || marker === 0xff) {
      at += 1;
    } else if (marker === JPEG_END) {
      return scanned;
    } else {
      scanned ||= marker === JPEG_START_OF_SCAN;
      // Segments are skipped by their length, since an embedded thumbnail has its own end marker.
      at += 2 + (bytes[at + 2] << 8) + bytes[at + 3];
    }
  }
  return false;
}

/**
 * Resize a part of a photo without keeping its aspect ratio: averaging if it shrinks, bilinear interpolation if it grows.
 *
 * The arithmetic is that of OpenCV's resize (INTER_AREA and INTER_LINEAR for 8 bits), including rounding.
 *
 * @param {{width: number, height: number, data: Uint8ClampedArray}} photo
 * @param {number[]} window [left, top, right, bottom] in pixels.
 * @param {number} height Height of the result in pixels.
 * @param {number} width Width of the result in pixels.
 * @returns {Uint8ClampedArray} RGB data, height * width * 3.
 */
export function stretch(photo, window, height, width) {
  const [fromWidth, fromHeight] = [window[2] - window[0], window[3] - window[1]];
  const [across, down] = [fromWidth / width, fromHeight / height];
  if (across < 1 || down < 1) {
    // OpenCV averages only if both sides shrink. If one side shrinks, it computes bilinear weights by area.
    const byArea = across > 1 || down > 1;
    const columns = linearWeights(fromWidth, width, byArea);
    // At the border, OpenCV gives the nearest pixel the full weight for columns, but not for rows.
    columns.high.forEach((high, x) => {
      if (high === columns.low[x]) [columns.lowWeight[x], columns.highWeight[x]] = [WEIGHT_ONE, 0];
    });
    return bilinear(photo, window, columns, linearWeights(fromHeight, height, byArea));
  }
  if (Number.isInteger(across) && Number.isInteger(down)) return blockMeans(photo, window, across, down);
  return weightedMeans(photo, window, areaShares(fromWidth, width), areaShares(fromHeight, height));
}

function blockMeans(photo, [left, top, right, bottom], across, down) {
  const [width, height] = [(right - left) / across, (bottom - top) / down];
  const share = Math.fround(1 / (across * down));
  const halvesUp = across === 2 && down === 2;
  const out = new Uint8ClampedArray(height * width * 3);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let channel = 0; channel < 3; channel++, at++) {
        let sum = 0;
        for (let row = top + y * down; row < top + (y + 1) * down; row++) {
          const begin = (row * photo.width + left + x * across) * 3 + channel;
          for (let i = begin; i < begin + across * 3; i += 3) sum += photo.data[i];
        }
        // A clamped array rounds halves to even, as OpenCV does except for blocks of 2 x 2.
        out[at] = halvesUp ? (sum + 2) >> 2 : Math.fround(sum * share);
      }
    }
  }
  return out;
}

/** Return for each target pixel the range of source pixels (`first`, `count`), and the concatenated shares of all of them. */
function areaShares(from, to) {
  const scale = 1 / (to / from);
  const [first, count, shares] = [[], [], []];
  for (let target = 0; target < to; target++) {
    const [begin, end] = [target * scale, target * scale + scale];
    const cell = Math.min(scale, from - begin);
    const stop = Math.min(Math.floor(end), from - 1);
    const start = Math.min(Math.ceil(begin), stop);
    const had = shares.length;
    if (start - begin > MIN_SHARE) shares.push((start - begin) / cell);
    first.push(start - (shares.length - had));
    for (let source = start; source < stop; source++) shares.push(1 / cell);
    if (end - stop > MIN_SHARE) shares.push(Math.min(end - stop, 1, cell) / cell);
    count.push(shares.length - had);
  }
  return { first, count, shares: Float32Array.from(shares) };
}

function weightedMeans(photo, [left, top], columns, rows) {
  const [width, height] = [columns.first.length, rows.first.length];
  const row = new Float32Array(width * 3);
  const sum = new Float32Array(width * 3);
  const out = new Uint8ClampedArray(height * width * 3);
  let held = -1;
  for (let y = 0, k = 0; y < height; y++) {
    sum.fill(0);
    for (let source = rows.first[y]; source < rows.first[y] + rows.count[y]; source++, k++) {
      // The source row on the border of two target rows is used for both.
      if (source !== held) averageRow(photo.data, ((top + source) * photo.width + left) * 3, columns, row);
      held = source;
      const share = rows.shares[k];
      for (let i = 0; i < sum.length; i++) sum[i] += Math.fround(share * row[i]);
    }
    out.set(sum, y * width * 3);
  }
  return out;
}

function averageRow(data, begin, { first, count, shares }, row) {
  for (let x = 0, k = 0; x < first.length; x++) {
    let [r, g, b] = [0, 0, 0];
    let at = begin + first[x] * 3;
    for (const stop = k + count[x]; k < stop; k++, at += 3) {
      // Every step is rounded to float32, as in OpenCV.
      r = Math.fround(r + Math.fround(data[at] * shares[k]));
      g = Math.fround(g + Math.fround(data[at + 1] * shares[k]));
      b = Math.fround(b + Math.fround(data[at + 2] * shares[k]));
    }
    row[3 * x] = r;
    row[3 * x + 1] = g;
    row[3 * x + 2] = b;
  }
}

/** Return for each target pixel the two nearest source pixels and their weights as multiples of 1/2048. */
function linearWeights(from, to, byArea) {
  const inverse = to / from;
  const scale = 1 / inverse;
  const [low, high, lowWeight, highWeight] = [[], [], [], []];
  for (let target = 0; target < to; target++) {
    const middle = Math.fround((target + 0.5) * scale - 0.5);
    const source = Math.floor(byArea ? target * scale : middle);
    const beyond = byArea ? Math.max(Math.fround(target + 1 - (source + 1) * inverse), 0) % 1 : Math.fround(middle - source);
    low.push(Math.min(Math.max(source, 0), from - 1));
    high.push(Math.min(Math.max(source + 1, 0), from - 1));
    lowWeight.push(roundHalfToEven(Math.fround(1 - beyond) * WEIGHT_ONE));
    highWeight.push(roundHalfToEven(beyond * WEIGHT_ONE));
  }
  return { low, high, lowWeight, highWeight };
}

function bilinear(photo, [left, top], columns, rows) {
  const [width, height] = [columns.low.length, rows.low.length];
  const out = new Uint8ClampedArray(height * width * 3);
  const mixed = (source, x, channel) => {
    const begin = ((top + source) * photo.width + left) * 3 + channel;
    return photo.data[begin + columns.low[x] * 3] * columns.lowWeight[x] + photo.data[begin + columns.high[x] * 3] * columns.highWeight[x];
  };
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let channel = 0; channel < 3; channel++, at++) {
        const above = (rows.lowWeight[y] * (mixed(rows.low[y], x, channel) >> 4)) >> 16;
        const below = (rows.highWeight[y] * (mixed(rows.high[y], x, channel) >> 4)) >> 16;
        out[at] = (above + below + 2) >> 2;
      }
    }
  }
  return out;
}

/**
 * Return n x n overlapping windows that cover a photo and have its aspect ratio.
 *
 * @param {number} width Width of the photo in pixels.
 * @param {number} height Height of the photo in pixels.
 * @param {number} perSide Number n of windows per side; 1 returns the whole photo.
 * @param {number} overlap Share of a window that is also in its neighbour.
 * @returns {number[][]} [left, top, right, bottom] in pixels, row after row.
 */
export function tiles(width, height, perSide, overlap) {
  const share = 1 / (perSide - (perSide - 1) * overlap);
  const [tileWidth, tileHeight] = [roundHalfToEven(width * share), roundHalfToEven(height * share)];
  const starts = (room) => Array.from({ length: perSide }, (_, i) => roundHalfToEven(perSide > 1 ? i * (room / (perSide - 1)) : 0));
  const lefts = starts(width - tileWidth);
  return starts(height - tileHeight).flatMap((top) => lefts.map((left) => [left, top, left + tileWidth, top + tileHeight]));
}

/** Round to the nearest integer, halves to the even one, as Python and OpenCV do. */
export function roundHalfToEven(value) {
  const floor = Math.floor(value);
  const fraction = value - floor;
  return fraction < 0.5 || (fraction === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}
