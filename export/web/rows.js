/**
 * Which shelf row each product stands in, and where in the row, from the boxes alone.
 *
 * Mirrors shelfcount/shelf/rows.py, name for name; the reasons for each constant and step stand there.
 */

const STEEPEST = 0.45;
const MOST_CONVERGENCE = 0.6;
const ROW_SCATTER = 0.25;
const STACK_GAP = 0.2;
const STACK_OVERLAP = 0.35;
const STACK_VOTE = 0.6;
const STACK_LIKENESS = 1.35;
const STACK_SHIFT = 0.3;

/**
 * Rows from top to bottom, and positions from left to right, both from 0.
 *
 * @param {number[][]} boxes [left, top, right, bottom] in pixels.
 * @returns {{row: number, position: number}[]} In the order of the boxes.
 */
export function rows(boxes) {
  if (!boxes.length) return [];
  const standing = straighten(boxes, fitPencil(boxes));
  const { below, gap } = stackedOn(standing);
  const row = join(standing, below, gap, lines(standing));
  const placement = row.map((number) => ({ row: number, position: 0 }));
  // A stack stays one column, though tilt leans it over its neighbours.
  const foot = ends(below.map((under, i) => (row[under] === row[i] ? under : i)));
  for (const number of new Set(row)) {
    indices(row, (r) => r === number)
      .sort((a, b) => standing[foot[a]].x - standing[foot[b]].x || foot[a] - foot[b] || standing[b].bottom - standing[a].bottom)
      .forEach((box, position) => (placement[box].position = position));
  }
  return placement;
}

/** The pencil of lines y = v + (tilt + fan * v) * x on which most bottoms meet: a search from coarse to fine. */
function fitPencil(boxes) {
  const x = boxes.map(([left, , right]) => (left + right) / 2);
  const y = boxes.map(([, , , bottom]) => bottom);
  const height = Math.max(median(boxes.map(([, top, , bottom]) => bottom - top)), 1);
  const [leftmost, rightmost, top, bottom] = [least(x), most(x), least(y), most(y)];
  const middle = [(leftmost + rightmost) / 2, (top + bottom) / 2];
  const [half, reach] = [Math.max((rightmost - leftmost) / 2, height), Math.max((bottom - top) / 2, height)];
  // One step moves the outermost bottom by as much as the blur of the coarse search forgives.
  let blur = 0.2 * height;
  const tilts = fromMinusOneToOne(Math.ceil((STEEPEST * half) / blur)).map((share) => share * STEEPEST * half);
  const fans = fromMinusOneToOne(Math.ceil((MOST_CONVERGENCE * reach) / blur)).map((share) => share * MOST_CONVERGENCE);
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

/** Where the shelf line through a point crosses the middle of the photo. */
function heightOn({ tilt, fan, middle, half }, x, y) {
  const aside = (x - middle[0]) / half;
  return (y - middle[1] - tilt * aside) / (1 + fan * aside);
}

/** About how many pairs of heights lie within `blur` of each other. */
function meeting(heights, blur) {
  const lowest = least(heights);
  const bins = heights.map((height) => Math.trunc((height - lowest) / blur));
  const count = new Float64Array(most(bins) + 1);
  for (const bin of bins) count[bin]++;
  return count.reduce((pairs, n, bin) => pairs + (n * (n - 1)) / 2 + (bin ? (n * count[bin - 1]) / 2 : 0), 0);
}

/** Pairs that must meet for a steep pencil to be preferred to a level one. */
function oddness({ tilt, fan, half }, n) {
  const [steep, convergent] = [tilt / half / STEEPEST, fan / MOST_CONVERGENCE];
  return (n / 4) * (steep * steep + convergent * convergent);
}

/** The boxes as they would stand in a level photo taken from the front. */
function straighten(boxes, pencil) {
  const tilt = pencil.tilt / pencil.half;
  return boxes.map(([left, top, right, bottom]) => {
    const x = (left + right) / 2;
    const [boxWidth, boxHeight] = [Math.max(right - left, 1), Math.max(bottom - top, 1)];
    const slope = (pencil.tilt + pencil.fan * heightOn(pencil, x, bottom)) / pencil.half;
    const lean = [Math.min(slope, Math.min(tilt, 0)), Math.max(slope, Math.max(tilt, 0))];
    // The box around a slanting product ends below its foot and above its head; part of its width is the leaning height.
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

/** The product each one may rest on (itself where none) and the gap between as a share of their height. */
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

/** Where one ends up who goes from i to following[i] and on, until a place leads to itself. */
function ends(following) {
  const further = following.map((next) => following[next]);
  return further.every((next, i) => next === following[i]) ? following : ends(further);
}

/** Indices of the boxes of each line on which bottoms meet, the fullest line first. */
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

/** Row numbers, 0 for the top: a line joins the one that most of it rests on, or the fuller one it stands beside. */
function join(standing, below, gap, lines) {
  const lineOf = [];
  lines.forEach((members, number) => members.forEach((i) => (lineOf[i] = number)));
  let joined = [...lines.keys()];
  lines.forEach((members, number) => {
    const joins = (other) => {
      const gaps = members.filter((i) => lineOf[below[i]] === other).map((i) => gap[i]);
      // The mean gap of many is better known than the gap of one.
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

/** 1 if a box overlaps the nearest of `others` upright by more than half of the shorter one, else 0. */
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

/** 2 n + 1 numbers at equal distances. */
function fromMinusOneToOne(n) {
  return Array.from({ length: 2 * n + 1 }, (_, i) => (i === 2 * n ? 1 : i * (2 / (2 * n)) - 1));
}
