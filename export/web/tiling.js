/**
 * Tiling of large photos: detect in overlapping windows, then merge the detections so that every product is counted once.
 *
 * Mirrors shelfcount/runtime/inference.py, name for name. That file explains the constants and steps.
 */

import { area, clip, height, iou, shareInside, width } from "./boxes.js";
import { tiles } from "./pixels.js";

const MIN_PRODUCT_PX = 200;
const MAX_TILES_PER_SIDE = 8;
const OVERLAP = 0.25;
const CUT_SHARE = Math.fround(0.1);
const CUT_INPUT_PX = 2;
const PIECE_SHARE = Math.fround(0.8);
const PIECE_MARGIN = 0.1;

/** Return the number of tiles per side at which the small products of a photo have the size of those in training. */
export function tilesPerSide(spec, photoWidth, photoHeight) {
  const photoShrink = (photoWidth / spec.width + photoHeight / spec.height) / 2;
  const maxShrink = MIN_PRODUCT_PX / spec.product_px[1];
  for (let perSide = 1; perSide < MAX_TILES_PER_SIDE; perSide++) {
    if (photoShrink * tileShare(perSide) <= maxShrink) return perSide;
  }
  return MAX_TILES_PER_SIDE;
}

/**
 * Detect the products on a photo of any size, each once.
 *
 * @param {{spec: object, detect: function}} detector `detect(photo, window)` returns a promise of
 *   [{class, score, box}], boxes in pixels of the window, highest score first.
 * @param {{width: number, height: number, data: Uint8ClampedArray}} photo
 * @param {function(number, number)} onTile Called with the number of tiles done and the number of tiles.
 * @returns {Promise<object[]>} [{class, score, box}], boxes in pixels of the photo, highest score first.
 */
export async function detectTiled(detector, photo, onTile = () => {}) {
  const perSide = tilesPerSide(detector.spec, photo.width, photo.height);
  const whole = [0, 0, photo.width, photo.height];
  const looks = levels(perSide).flatMap(({ level, finer }) =>
    tiles(photo.width, photo.height, level, OVERLAP).map((window) => ({ window, finer })),
  );
  const seen = [];
  for (const [done, { window, finer }] of looks.entries()) {
    onTile(done, looks.length);
    const found = await detector.detect(photo, window);
    if (perSide === 1) return found;
    seen.push(...look(found, window, finer, whole, detector.spec));
  }
  return merge(seen, Math.fround(detector.spec.nms_iou));
}

const tileShare = (perSide) => 1 / (perSide - (perSide - 1) * OVERLAP);

function levels(perSide) {
  const found = [];
  for (let level = perSide, finer = null; level >= 1; finer = level, level = Math.floor(level / 2)) found.push({ level, finer });
  return found;
}

/** Return the detections of one window in pixels of the photo: {class, score, box, window, cut}. */
function look(found, window, finer, whole, spec) {
  const [left, top, right, bottom] = window;
  const zone = finer === null ? [-1, -1] : [whole[2] * tileShare(finer) * OVERLAP, whole[3] * tileShare(finer) * OVERLAP];
  const pixel = [(right - left) / spec.width, (bottom - top) / spec.height];
  const moved = (box) => box.map((value, side) => Math.fround(value + (side % 2 ? top : left)));
  return found
    .map((item) => ({ ...item, box: clip(moved(item.box), whole), window }))
    .filter(({ box }) => width(box) > zone[0] || height(box) > zone[1])
    .map((item) => ({ ...item, cut: item.box.some((value, side) => endsAt(value, side, item.box, window, whole, pixel)) }));
}

function endsAt(value, side, box, window, whole, pixel) {
  if (window[side] === whole[side]) return false;
  const size = side % 2 ? height(box) : width(box);
  const near = Math.max(Math.fround(CUT_SHARE * size), CUT_INPUT_PX * pixel[side % 2]);
  return Math.abs(Math.fround(value - window[side])) <= near;
}

function merge(seen, nmsIou) {
  const uncut = seen.filter((item) => !item.cut);
  const whole = suppress(uncut, nmsIou);
  const unknown = seen.filter((item) => item.cut && !isPiece(item, whole, nmsIou));
  return byScore([...whole, ...unite(unknown, nmsIou)]).map((item) => ({ class: item.class, score: item.score, box: item.box }));
}

const byScore = (items) => items.toSorted((a, b) => b.score - a.score);

function isPiece(cut, whole, nmsIou) {
  return whole.some((item) => shareInside(cut.box, item.box, PIECE_MARGIN) > PIECE_SHARE || agreement(cut, item) > nmsIou);
}

/** Return the IoU of two boxes, clipped to the part of the photo that is in both of their windows. */
function agreement(a, b) {
  const low = [Math.max(a.window[0], b.window[0]), Math.max(a.window[1], b.window[1])];
  const high = [Math.min(a.window[2], b.window[2]), Math.min(a.window[3], b.window[3])];
  const common = [...low, Math.max(high[0], low[0]), Math.max(high[1], low[1])];
  return iou(clip(a.box, common), clip(b.box, common));
}

/** Non-maximum suppression of uncut boxes between windows, highest score first. */
function suppress(whole, nmsIou) {
  const kept = [];
  for (const item of byScore(whole)) {
    if (!kept.some((better) => better.window !== item.window && iou(better.box, item.box) > nmsIou)) kept.push(item);
  }
  return kept;
}

/** Join the pieces of products that are cut in every window: one box around the pieces of each product. */
function unite(pieces, nmsIou) {
  const taken = new Set();
  const products = [];
  for (const i of pieces.keys()) {
    if (taken.has(i)) continue;
    // Iterating over a Set includes the members that are added meanwhile.
    const members = new Set([i]);
    for (const a of members) {
      for (const b of pieces.keys()) if (!taken.has(b) && agreement(pieces[a], pieces[b]) > nmsIou) members.add(b);
    }
    members.forEach((member) => taken.add(member));
    products.push(around(pieces.filter((_, member) => members.has(member))));
  }
  // A piece that is too thin to agree with the others is still inside their joint box.
  const liesInside = (a, b) => area(b.box) > area(a.box) && shareInside(a.box, b.box, PIECE_MARGIN) > PIECE_SHARE;
  return products.filter((item) => !products.some((other) => liesInside(item, other)));
}

function around(pieces) {
  const side = (i, most) => pieces.map((piece) => piece.box[i]).reduce((a, b) => most(a, b));
  return { ...byScore(pieces)[0], box: [side(0, Math.min), side(1, Math.min), side(2, Math.max), side(3, Math.max)] };
}
