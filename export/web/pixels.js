/**
 * Photos as pixels: read upright, stretch to the network's input, cut into tiles.
 *
 * Mirrors shelfcount/vision/images.py and gives the same bytes, so that the page counts what
 * `shelfcount count` counts. A photo is {width, height, data}, data being RGB, row after row.
 */

const MOST_PIXELS = 250_000_000;
// Phones refuse a canvas of more than about 16 megapixels, so a photo is copied out in bands.
const BAND_PIXELS = 4_000_000;
const JPEG_START_OF_SCAN = 0xda;
const JPEG_END = 0xd9;

// OpenCV's fixed point for bilinear weights: modules/imgproc/src/resize.cpp, INTER_RESIZE_COEF_BITS.
const WEIGHT_ONE = 2048;
// Below it OpenCV drops a source pixel's share of a target pixel: computeResizeAreaTab.
const LEAST_SHARE = 1e-3;

/**
 * A photo as the person who took it saw it.
 *
 * @param {Blob} file
 * @returns {Promise<{width: number, height: number, data: Uint8ClampedArray}>}
 * @throws {Error} If it is no photo, cut short or larger than `MOST_PIXELS`.
 */
export async function readPhoto(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && !jpegIsWhole(bytes)) {
    throw new Error(`This photo is cut short: its JPEG data has no end (${bytes.length} bytes). Copy it again.`);
  }
  let bitmap;
  try {
    // As OpenCV does: the orientation is applied, the colour profile is not.
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error(`This browser cannot read the file as a photo (${bytes.length} bytes). JPEG and PNG always work.`);
  }
  try {
    if (bitmap.width * bitmap.height > MOST_PIXELS) {
      throw new Error(`The photo has ${bitmap.width} x ${bitmap.height} pixels; at most ${MOST_PIXELS} are read.`);
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

/** Whether a JPEG was written to its end: browsers, too, paint a missing part grey without a word. */
export function jpegIsWhole(bytes) {
  let scanned = false;
  for (let at = 2; at + 1 < bytes.length;) {
    const marker = bytes[at + 1];
    // Stuffed zeros and restarts within a scan, and markers that stand alone, begin no segment.
    if (bytes[at] !== 0xff || marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd8) || marker === 0xff) {
      at += 1;
    } else if (marker === JPEG_END) {
      return scanned;
    } else {
      scanned ||= marker === JPEG_START_OF_SCAN;
      // Segments are skipped by their length, since a thumbnail inside one has an end marker too.
      at += 2 + (bytes[at + 2] << 8) + bytes[at + 3];
    }
  }
  return false;
}

/**
 * Part of a photo, resized without keeping the aspect: averaged when shrinking, bilinear when enlarging.
 *
 * The arithmetic is that of OpenCV's resize (INTER_AREA and INTER_LINEAR on 8 bits), rounding included.
 *
 * @param {{width: number, height: number, data: Uint8ClampedArray}} photo
 * @param {number[]} window [left, top, right, bottom] in pixels.
 * @param {number} height Of the result.
 * @param {number} width Of the result.
 * @returns {Uint8ClampedArray} height * width * 3, RGB.
 */
export function stretch(photo, window, height, width) {
  const [fromWidth, fromHeight] = [window[2] - window[0], window[3] - window[1]];
  const [across, down] = [fromWidth / width, fromHeight / height];
  if (across < 1 || down < 1) {
    // OpenCV averages only where both sides shrink; where one does, it places bilinear weights by area.
    const byArea = across > 1 || down > 1;
    const columns = linearWeights(fromWidth, width, byArea);
    // At the border OpenCV gives a column the nearest pixel's weight in full, but not a row.
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
        // A clamped array rounds halves to even, as OpenCV does but for blocks of two by two.
        out[at] = halvesUp ? (sum + 2) >> 2 : Math.fround(sum * share);
      }
    }
  }
  return out;
}

/** For each target pixel, the source pixels under it (`first`, `count`) and their shares, one after the other. */
function areaShares(from, to) {
  const scale = 1 / (to / from);
  const [first, count, shares] = [[], [], []];
  for (let target = 0; target < to; target++) {
    const [begin, end] = [target * scale, target * scale + scale];
    const cell = Math.min(scale, from - begin);
    const stop = Math.min(Math.floor(end), from - 1);
    const start = Math.min(Math.ceil(begin), stop);
    const had = shares.length;
    if (start - begin > LEAST_SHARE) shares.push((start - begin) / cell);
    first.push(start - (shares.length - had));
    for (let source = start; source < stop; source++) shares.push(1 / cell);
    if (end - stop > LEAST_SHARE) shares.push(Math.min(end - stop, 1, cell) / cell);
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
      // The row on the border of two target rows serves both.
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
      // Rounded to float32 at each step, as the sums in OpenCV are.
      r = Math.fround(r + Math.fround(data[at] * shares[k]));
      g = Math.fround(g + Math.fround(data[at + 1] * shares[k]));
      b = Math.fround(b + Math.fround(data[at + 2] * shares[k]));
    }
    row[3 * x] = r;
    row[3 * x + 1] = g;
    row[3 * x + 2] = b;
  }
}

/** For each target pixel, the two source pixels it lies between and their weights in 2048ths. */
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
 * Overlapping windows that cover a photo, n by n so that a tile keeps the photo's aspect.
 *
 * @param {number} width Of the photo in pixels.
 * @param {number} height Of the photo in pixels.
 * @param {number} perSide n; 1 gives the photo itself.
 * @param {number} overlap Share of a tile that its neighbour sees too.
 * @returns {number[][]} [left, top, right, bottom] in pixels, row after row.
 */
export function tiles(width, height, perSide, overlap) {
  const share = 1 / (perSide - (perSide - 1) * overlap);
  const [tileWidth, tileHeight] = [roundHalfToEven(width * share), roundHalfToEven(height * share)];
  const starts = (room) => Array.from({ length: perSide }, (_, i) => roundHalfToEven(perSide > 1 ? i * (room / (perSide - 1)) : 0));
  const lefts = starts(width - tileWidth);
  return starts(height - tileHeight).flatMap((top) => lefts.map((left) => [left, top, left + tileWidth, top + tileHeight]));
}

/** To the nearest whole number, halves to the even one, as Python and OpenCV round. */
export function roundHalfToEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}
