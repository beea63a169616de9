/**
 * Boxes [left, top, right, bottom] in pixels: overlap and clipping.
 *
 * Mirrors shelfcount/vision/boxes.py, which computes in float32, so every step is rounded to float32.
 */

const f32 = Math.fround;
// numpy's finfo(float32).tiny
const TINY = 2 ** -126;

export const width = (box) => f32(box[2] - box[0]);
export const height = (box) => f32(box[3] - box[1]);
export const area = (box) => f32(Math.max(width(box), 0) * Math.max(height(box), 0));

export function intersection(a, b) {
  return area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
}

/** Return the intersection over union of two boxes, 0 for boxes without area. */
export function iou(a, b) {
  const common = intersection(a, b);
  const union = f32(f32(area(a) + area(b)) - common);
  return union > 0 ? f32(common / Math.max(union, TINY)) : 0;
}

/** Return the share of the area of a piece that is inside a box enlarged by `margin` of its size on each side. */
export function shareInside(piece, box, margin) {
  const [x, y] = [f32(f32(margin) * width(box)), f32(f32(margin) * height(box))];
  const grown = [f32(box[0] - x), f32(box[1] - y), f32(box[2] + x), f32(box[3] + y)];
  return f32(intersection(piece, grown) / Math.max(area(piece), TINY));
}

/** Return the part of a box that is inside [left, top, right, bottom]. */
export function clip(box, [left, top, right, bottom]) {
  const within = (value, low, high) => Math.min(Math.max(value, low), high);
  return [within(box[0], left, right), within(box[1], top, bottom), within(box[2], left, right), within(box[3], top, bottom)];
}
