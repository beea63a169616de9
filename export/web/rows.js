/**
 * Shelf row of each product and its position in the row, computed from the boxes.
 *
 * Mirrors shelfcount/shelf/rows.py, name for name. That file explains the constants and steps.
 */

const MAX_SLOPE = 0.45;
const MAX_CONVERGENCE = 0.6;
const ROW_SCATTER = 0.25;
const STACK_GAP = 0.2;
const STACK_OVERLAP = 0.35;
const STACK_VOTE = 0.6;
const STACK_LIKENESS = 1.35;
const STACK_SHIFT = 0.3;

/**
 * Return the row of each box, counted from the top, and its position, counted from the left, both from 0.
 *
 * @param {number[][]} boxes [left, top, right, bottom] in pixels.
 * @returns {{row: number, position: number}[]} Entries in the order of the boxes.
 */
export function rows(boxes) {
  if (!boxes.length) return [];
  const standing = straighten(boxes, fitPencil(boxes));
  const { below, gap } = stackedOn(standing);
  const row = join(standing, below, gap, lines(standing));
  const placement = row.map((number) => ({ row: number, position: 0 }));
  // A stack is one column, even if tilt makes it lean over its neighbours.
  const foot = ends(below.map((under, i) => (row[under] === row[i] ? under : i)));
  for (const number of new Set(row)) {
    indices(row, (r) => r === number)
      .sort((a, b) => standing[foot[a]].x - standing[foot[b]].x || foot[a] - foot[b] || standing[b].bottom - standing[a].bottom)
      .forEach((box, position) => (placement[box].position = position));
  }
  return placement;
}

/** Find the pencil of lines y = v + (tilt + fan * v) * x with most box bottoms on common lines, by a coarse-to-fine search. */
function fitPencil(boxes) {
  const x = boxes.map(([left, , right]) => (left + right) / 2);
  const y = boxes.map(([, , , bottom]) => bottom);
  const height = Math.max(median(boxes.map(([, top, , bottom]) => bottom - top)), 1);
  const [leftmost, rightmost, top, bottom] = [least(x), most(x), least(y), most(y)];
  const middle = [(leftmost + rightmost) / 2, (top + bottom) / 2];
  const [half, reach] = [Math.max((rightmost - leftmost) / 2, height), Math.max((bottom - top) / 2, height)];
  // One step moves the outermost bottom by the blur of the coarse search.
  let blur = 0.2 * height;
  const tilts = fromMinusOneToOne(Math.ceil((MAX_SLOPE * half) / blur)).map((share) => share * MAX_SLOPE * half);
  const fans = fromMinusOneToOne(Math.ceil((MAX_CONVERGENCE * reach) / blur)).map((share) => share * MAX_CONVERGENCE);
  let [tiltStep, fanStep] = [tilts[1] - tilts[0], fans[1] - fans[0]];
  let candidates = tilts.flatMap((tilt) => fans.map((fan) => ({ tilt, fan, middle, half })));
  let best;
  for (let round = 0; round < 4; round++) {
    const scores = candidates.map((pencil) => {
      const heights = x.map((_, i) => heightOn(pencil, x[i], y[i]));
      return meeting(heights, blur) - oddness(pencil, boxes.length);
    });
    best = candidates[scores.indexOf(most(scores))];
    [blur, tiltStep, fanStep] = [blur / 1.6, tiltStep / 2, fanStep / 2];
    const steps = [-2, -1, 0, 1, 2];
    candidates = steps.flatMap((i) => steps.map((j) => ({ ...best, tilt: best.tilt + i * tiltStep, fan: best.fan + j * fanStep })));
  }
  return best;
}

/** Return the height at which the shelf line through a point crosses the middle of the photo. */
function heightOn({ tilt, fan, middle, half }, x, y) {
  const aside = (x - middle[0]) / half;
  return (y - middle[1] - tilt * aside) / (1 + fan * aside);
}

/** Return the approximate number of pairs of heights that differ by less than `blur`. */
function meeting(heights, blur) {
  const lowest = least(heights);
  const bins = heights.map((height) => Math.trunc((height - lowest) / blur));
  const count = new Float64Array(most(bins) + 1);
  for (const bin of bins) count[bin]++;
  return count.reduce((pairs, n, bin) => pairs + (n * (n - 1)) / 2 + (bin ? (n * count[bin - 1]) / 2 : 0), 0);
}

/** Return the number of additional pairs that a steep pencil needs to be preferred to a level one. */
function oddness({ tilt, fan, half }, n) {
  const [steep, convergent] = [tilt / half / MAX_SLOPE, fan / MAX_CONVERGENCE];
  return (n / 4) * (steep * steep + convergent * convergent);
}

/** Return the boxes as they would be in a level photo taken from the front. */
function straighten(boxes, pencil) {
  const tilt = pencil.tilt / pencil.half;
  return boxes.map(([left, top, right, bottom]) => {
    const x = (left + right) / 2;
    const [boxWidth, boxHeight] = [Math.max(right - left, 1), Math.max(bottom - top, 1)];
    const slope = (pencil.tilt + pencil.fan * heightOn(pencil, x, bottom)) / pencil.half;
    const lean = [Math.min(slope, Math.min(tilt, 0)), Math.max(slope, Math.max(tilt, 0))];
    // The box around a leaning product ends below its foot and above its top, and is wider than the product.
    const width = Math.min(Math.max((boxWidth - Math.abs(tilt) * boxHeight) / (1 - tilt * tilt), 0.3 * boxWidth), boxWidth);
    const overhang = Math.min((Math.abs(slope) * width) / 2, boxHeight / 4);
    const foot = heightOn(pencil, x, bottom - overhang);
    const scale = 1 + (pencil.fan * (x - pencil.middle[0])) / pencil.half;
    const upright = ((boxHeight - 2 * overhang) * (1 + tilt * tilt)) / scale;
    return {
      x: x - (tilt * boxHeight) / 2,
      top: foot - upright,
      bottom: foot,
      height: foot - (foot - upright),
      width: width / scale,
      lean,
    };
  });
}

/** Return the product that each one may be stacked on (itself if none), and the gap between them as a share of their height. */
function stackedOn(standing) {
  const below = [];
  const gap = [];
  standing.forEach((upper, i) => {
    const gapTo = (lower) => (lower.top - upper.bottom) / Math.min(upper.height, lower.height);
    const nearness = standing.map((lower, j) => (i !== j && rests(upper, lower, gapTo(lower)) ? Math.abs(gapTo(lower)) : Infinity));
    const nearest = least(nearness);
    below.push(nearest < Infinity ? nearness.indexOf(nearest) : i);
    gap.push(gapTo(standing[below[i]]));
  });
  return { below, gap };
}

function rests(upper, lower, gap) {
  const alike = [upper.height / lower.height, upper.width / lower.width].every((r) => Math.max(r, 1 / r) < STACK_LIKENESS);
  const aside = upper.x - lower.x;
  const [leastLean, mostLean] = lower.lean.map((lean) => lean * lower.height);
  const shift = Math.max(leastLean - aside, aside - mostLean) / Math.min(upper.width, lower.width);
  return alike && gap < STACK_GAP && gap > -STACK_OVERLAP && shift < STACK_SHIFT;
}

/** Follow i -> following[i] until an index that points to itself, and return that index for each i. */
function ends(following) {
  const further = following.map((next) => following[next]);
  return further.every((next, i) => next === following[i]) ? following : ends(further);
}

/** Return the indices of the boxes with bottoms on a common line, for each line, fullest line first. */
function lines(standing) {
  let left = [...standing.keys()];
  const found = [];
  while (left.length) {
    const scatter = (i) => ROW_SCATTER * standing[i].height;
    const near = (i, bottom) => Math.abs(standing[i].bottom - bottom) < scatter(i);
    const fullness = left.map((i) => left.filter((j) => near(j, standing[i].bottom)).length);
    const fullest = left[fullness.indexOf(most(fullness))];
    const middle = median(left.filter((i) => near(i, standing[fullest].bottom)).map((i) => standing[i].bottom));
    const members = left.filter((i) => near(i, middle) || i === fullest);
    found.push(members);
    left = left.filter((i) => !members.includes(i));
  }
  return found;
}

/** Return row numbers, 0 for the top. A line joins the line that most of its boxes are stacked on, or a fuller one beside it. */
function join(standing, below, gap, lines) {
  const lineOf = [];
  lines.forEach((members, number) => members.forEach((i) => (lineOf[i] = number)));
  let joined = [...lines.keys()];
  lines.forEach((members, number) => {
    const joins = (other) => {
      const gaps = members.filter((i) => lineOf[below[i]] === other).map((i) => gap[i]);
      // The mean of many gaps is more reliable than a single gap.
      const stacked = gaps.length > STACK_VOTE * members.length && mean(gaps) < STACK_GAP / Math.sqrt(gaps.length);
      return stacked || (other < number && mean(members.map((i) => beside(standing, i, lines[other]))) > 0.5);
    };
    const other = indices(joined, (line) => line !== number).find(joins);
    if (other === undefined) return;
    const leaving = joined[number];
    joined = joined.map((line) => (line === leaving ? joined[other] : line));
  });
  const kept = [...new Set(joined)].sort((a, b) => a - b);
  const height = (line) => median(lines[line].map((i) => standing[i].bottom));
  const fromTop = kept.toSorted((a, b) => height(a) - height(b));
  return lineOf.map((line) => fromTop.indexOf(joined[line]));
}

/** Return 1 if a box and the nearest of `others` overlap vertically by more than half of the shorter one, 0 otherwise. */
function beside(standing, i, others) {
  const distances = others.map((j) => Math.abs(standing[i].x - standing[j].x));
  const [one, nearest] = [standing[i], standing[others[distances.indexOf(least(distances))]]];
  const common = Math.min(one.bottom, nearest.bottom) - Math.max(one.top, nearest.top);
  return Number(common > 0.5 * Math.min(one.height, nearest.height));
}

const indices = (values, test) => [...values.keys()].filter((i) => test(values[i]));
const least = (values) => values.reduce((a, b) => Math.min(a, b));
const most = (values) => values.reduce((a, b) => Math.max(a, b));
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** Return 2 n + 1 evenly spaced numbers from -1 to 1. */
function fromMinusOneToOne(n) {
  return Array.from({ length: 2 * n + 1 }, (_, i) => (i === 2 * n ? 1 : i * (2 / (2 * n)) - 1));
}
