/**
 * Photos to counts: every product's class, box, row and position, and the CSV file.
 *
 * Mirrors shelfcount/shelf/count.py; the CSV file is the one that `shelfcount count --csv` writes.
 */

import { height, width } from "./boxes.js";
import { gaps } from "./facings.js";
import { judge } from "./photogate.js";
import { roundHalfToEven } from "./pixels.js";
import { rows } from "./rows.js";
import { detectTiled } from "./tiling.js";

const CSV_COLUMNS = ["photo", "class", "score", "x", "y", "w", "h", "row", "position"];
const FORMULA_STARTS = ["=", "+", "-", "@", "\t", "\r"];

/**
 * Count one photo that is already read.
 *
 * @param {{spec: object, detect: function}} detector
 * @param {{width: number, height: number, data: Uint8ClampedArray}} photo
 * @param {function(number, number)} onTile Told how many tiles are done, of how many.
 * @returns {Promise<{width: number, height: number, quality: object, products: object[], gaps: object[]}>} What `judge` says of
 *   the photo; products best score first: class (its name), score, box [x, y, w, h] in pixels of the photo, row and position
 *   from 0; what `gaps` finds between them.
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
  return { ...size, quality: judge(photo, detector.spec, boxes), products, gaps: gaps(products, size) };
}

// A float32 times a power of ten up to 10,000 is exact, so this is Python's round().
const rounded = (value, digits) => roundHalfToEven(value * 10 ** digits) / 10 ** digits;

/** [{name, products, photos}] of several counted photos, most products first, then by name. */
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

/** A photo's name with a number where others have it: a camera may call every photo image.jpg. */
export function freeName(name, taken) {
  const [, stem, suffix] = /^(.*?)(\.[^.]*)?$/.exec(name);
  let free = name;
  for (let number = 2; taken.includes(free); number++) free = `${stem} (${number})${suffix ?? ""}`;
  return free;
}

/** Shelf rows from top to bottom, each its products from left to right. */
export function shelfRows(products) {
  const found = [];
  for (const item of products) (found[item.row] ??= [])[item.position] = item;
  return found;
}

/** One line for each product, `photos` being [{name, products}]. */
export function csv(photos) {
  const lines = photos.flatMap(({ name, products }) =>
    products.map((item) => [inert(name), inert(item.class), ...[item.score, ...item.box].map(decimal), item.row, item.position]),
  );
  return [CSV_COLUMNS, ...lines].map((line) => `${line.map(quoted).join(",")}\r\n`).join("");
}

// Spreadsheets run a cell that begins so as a formula: owasp.org/www-community/attacks/CSV_Injection.
const inert = (text) => (FORMULA_STARTS.some((start) => text.startsWith(start)) ? `'${text}` : text);
const decimal = (value) => (Number.isInteger(value) ? value.toFixed(1) : String(value));
const quoted = (cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
