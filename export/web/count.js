/**
 * Counting of photos: class, box, row and position of every product, and the CSV file.
 *
 * Mirrors shelfcount/shelf/count.py; the CSV file is the one that `shelfcount count --csv` writes.
 */

import { height, width } from "./boxes.js";
import { gaps } from "./facings.js";
import { checkPhoto } from "./photogate.js";
import { roundHalfToEven } from "./pixels.js";
import { rows } from "./rows.js";
import { detectTiled } from "./tiling.js";

const CSV_COLUMNS = ["photo", "class", "score", "x", "y", "w", "h", "row", "position"];
const FORMULA_STARTS = ["=", "+", "-", "@", "\t", "\r"];

/**
 * Count the products on one decoded photo.
 *
 * @param {{spec: object, detect: function}} detector
 * @param {{width: number, height: number, data: Uint8ClampedArray}} photo
 * @param {function(number, number)} onTile Called with the number of tiles done and the number of tiles.
 * @returns {Promise<{width: number, height: number, quality: object, products: object[], gaps: object[]}>} Size of the photo;
 *   `quality`, the result of `checkPhoto`; `products`, highest score first, with class name, score, box [x, y, w, h] in pixels of
 *   the photo, row and position from 0; `gaps`, the result of `gaps`.
 */
export async function countPhoto(detector, photo, onTile) {
  const found = await detectTiled(detector, photo, onTile);
  const boxes = found.map((item) => item.box);
  const placement = rows(boxes);
  const products = found.map(({ class: index, score, box }, i) => ({
    class: detector.spec.classes[index],
    score: rounded(score, 4),
    box: [box[0], box[1], width(box), height(box)].map((value) => rounded(value, 2)),
    ...placement[i],
  }));
  const size = { width: photo.width, height: photo.height };
  return { ...size, quality: checkPhoto(photo, detector.spec, boxes), products, gaps: gaps(products, size) };
}

// A float32 times a power of ten up to 10,000 is exact, so this is Python's round().
const rounded = (value, digits) => roundHalfToEven(value * 10 ** digits) / 10 ** digits;

/** Return [{name, products, photos}] per class over several counted photos, most products first, then by name. */
export function summaryRows(photos) {
  const found = new Map();
  for (const photo of photos) {
    for (const { class: name } of photo.products) {
      if (!found.has(name)) found.set(name, { name, products: 0, shown: new Set() });
      found.get(name).products += 1;
      found.get(name).shown.add(photo);
    }
  }
  return [...found.values()]
    .map(({ name, products, shown }) => ({ name, products, photos: shown.size }))
    .sort((a, b) => b.products - a.products || (a.name < b.name ? -1 : 1));
}

/** Return the name of a photo, with a number if it is taken: some cameras call every photo image.jpg. */
export function freeName(name, taken) {
  const [, stem, suffix] = /^(.*?)(\.[^.]*)?$/.exec(name);
  let free = name;
  for (let number = 2; taken.includes(free); number++) free = `${stem} (${number})${suffix ?? ""}`;
  return free;
}

/** Return the shelf rows from top to bottom, each with its products from left to right. */
export function shelfRows(products) {
  const found = [];
  for (const item of products) (found[item.row] ??= [])[item.position] = item;
  return found;
}

/** Return the CSV file with one line per product. `photos` is [{name, products}]. */
export function csv(photos) {
  const lines = photos.flatMap(({ name, products }) =>
    products.map((item) => [inert(name), inert(item.class), ...[item.score, ...item.box].map(decimal), item.row, item.position]),
  );
  return [CSV_COLUMNS, ...lines].map((line) => `${line.map(quoted).join(",")}\r\n`).join("");
}

// Spreadsheets execute cells with these first characters as formulas: owasp.org/www-community/attacks/CSV_Injection.
const inert = (text) => (FORMULA_STARTS.some((start) => text.startsWith(start)) ? `'${text}` : text);
const decimal = (value) => (Number.isInteger(value) ? value.toFixed(1) : String(value));
const quoted = (cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
