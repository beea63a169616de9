/**
 * Detection of out-of-stock gaps: the boxes are rectified to a front view of the shelf, then gaps between facings are measured.
 *
 * Mirrors the parts of shelfcount/shelf/facings.py that gaps need. That file explains the constants and steps.
 */

const EDGE_SCATTER = 0.05;
const SIZE_SCATTER = 0.06;
export const FOCAL_LENGTH = 0.785;
const USUAL_ANGLES = [8, 8, 20].map((degrees) => (degrees * Math.PI) / 180);
const MAX_ANGLES = [25, 25, 40].map((degrees) => (degrees * Math.PI) / 180);
const MAX_STEPS = 30;
const CORNER = 0.03;
const RISE_OF_STACKED = 0.4;
const SHARED_WIDTH = 0.5;
const MIN_GAP = 0.6;
const MAX_SPACING = 0.4;
const STEP = 1e-3;

/**
 * Find gaps in the shelf rows with space for at least one more product.
 *
 * @param {object[]} products Class name, box [x, y, w, h] in pixels, and row of each product.
 * @param {{width: number, height: number}} photo Size of the photo in pixels.
 * @returns {{row: number, after: number, before: number, facings: number, box: number[]}[]} Gaps by row, from left to right:
 *   indices in `products` of the products on both sides, number of facings that fit, and [x, y, w, h] in pixels of the photo.
 */
export function gaps(products, { width, height }) {
  if (!products.length) return [];
  const boxes = products.map(({ box: [x, y, w, h] }) => [x, y, x + w, y + h]);
  const row = products.map((item) => item.row);
  const toFront = fitFront(boxes, products, row, width, height);
  const front = outlines(boxes, toFront, 0).map(({ middle: [x, y], size: [w, h] }) => [x - w, y - h, x + w, y + h]);
  const onBoard = standsOnBoard(front, row);
  const holes = Array.from({ length: most(row) + 1 }, (_, number) =>
    [...boxes.keys()].filter((i) => row[i] === number && onBoard[i]).sort((a, b) => middleOf(front[a]) - middleOf(front[b])),
  ).flatMap((board) => board.slice(1).map((before, i) => hole(front, board[i], before)));
  // The median is over the whole shelf, since a row that is half sold out has few regular spaces.
  const usual = Math.min(Math.max(median(holes.map(({ share }) => share)), 0), MAX_SPACING);
  const toPhoto = inverse(toFront);
  return holes
    .map(({ after, before, share }) => ({ after, before, fitting: (share - usual) / (1 + usual) }))
    .filter(({ fitting }) => fitting > MIN_GAP)
    .map(({ after, before, fitting }) => {
      const [left, right] = [front[after], front[before]];
      const box = around([left[2], Math.max(left[1], right[1]), right[0], (left[3] + right[3]) / 2], toPhoto);
      return { row: row[after], after, before, facings: Math.max(1, Math.round(fitting)), box };
    });
}

function hole(front, after, before) {
  const [left, right] = [front[after], front[before]];
  return { after, before, share: (right[0] - left[2]) / Math.min(left[2] - left[0], right[2] - right[0]) };
}

// ---------------------------------------------------------------- front view

/** Fit the homography to the front view, in which rows are level and products of one class have equal sizes: Levenberg-Marquardt over three camera angles. */
function fitFront(boxes, products, row, width, height) {
  const onBoard = standsOnBoard(boxes, row);
  const inRows = groups(row.map((number, i) => (onBoard[i] ? number : null)));
  const kinds = groups(products.map((item) => item.class));
  if (!inRows.length && !kinds.length) return frontOf([0, 0, 0], width, height);

  const oddness = (angles) => oddnessOf(boxes, frontOf(angles, width, height), inRows, kinds);
  const askew = (angles) => angles.reduce((sum, angle, i) => sum + (angle / USUAL_ANGLES[i]) ** 2, 0);
  const cost = (angles, odd) => 2 * odd.reduce((sum, value) => sum + Math.log1p((value * value) / 4), 0) + askew(angles) / 2;

  let [angles, damping] = [[0, 0, 0], 1e-3];
  let odd = oddness(angles);
  for (let step = 0; step < MAX_STEPS; step++) {
    const slopes = angles.map((_, k) => {
      const moved = oddness(angles.map((angle, i) => (i === k ? angle + STEP : angle)));
      return moved.map((value, i) => (value - odd[i]) / STEP);
    });
    const weights = odd.map((value) => 1 / (1 + (value * value) / 4));
    const dot = (a, b) => a.reduce((sum, value, i) => sum + value * weights[i] * b[i], 0);
    const normal = slopes.map((a, i) => slopes.map((b, j) => dot(a, b) + (i === j ? 1 / USUAL_ANGLES[i] ** 2 : 0)));
    const damped = normal.map((line, i) => line.map((value, j) => (i === j ? value * (1 + damping) : value)));
    const target = slopes.map((slope, i) => -dot(slope, odd) - angles[i] / USUAL_ANGLES[i] ** 2);
    const change = times(inverse(damped), target);
    const tried = angles.map((angle, i) => Math.min(Math.max(angle + change[i], -MAX_ANGLES[i]), MAX_ANGLES[i]));
    const triedOdd = oddness(tried);
    const gain = cost(angles, odd) - cost(tried, triedOdd);
    if (gain > 0) [angles, odd] = [tried, triedOdd];
    damping *= gain > 0 ? 0.1 : 10;
    if (Math.abs(gain) < 1e-3) break;
  }
  return frontOf(angles, width, height);
}

/** Return the homography from photo to front view for roll, pitch and yaw of the camera in radians. */
function frontOf(angles, width, height) {
  const [roll, nod, turn] = angles.map(Math.sin);
  const [rolled, nodded, turned] = angles.map(Math.cos);
  // The first two columns of the three rotations' product.
  const rotation = [
    [rolled * turned - roll * nod * turn, -roll * nodded],
    [roll * turned + rolled * nod * turn, rolled * nodded],
    [-nodded * turn, nod],
  ];
  const [focal, x, y] = [FOCAL_LENGTH * Math.max(width, height), width / 2, height / 2];
  const pose = rotation.map(([a, b], i) => [a, b, i === 2 ? focal : 0]);
  const lens = [
    [focal, 0, x],
    [0, focal, y],
    [0, 0, 1],
  ];
  const shift = [
    [1, 0, x],
    [0, 1, y],
    [0, 0, 1],
  ];
  return product(shift, inverse(product(lens, pose)));
}

/** Return the upright products in the front view whose projected outlines the boxes enclose. */
function outlines(boxes, toFront, corner) {
  return boxes.map((box) => {
    const half = halfOf(box);
    const [x, y, depth] = times(toFront, [box[0] + half[0], box[1] + half[1], 1]);
    const middle = [x / depth, y / depth];
    // The projection is approximated as linear around the centre of a product.
    const [[a, b], [c, d]] = middle.map((place, i) => [0, 1].map((j) => (toFront[i][j] - place * toFront[2][j]) / depth));
    const scale = Math.abs(a * d - b * c);
    const lean = [
      [Math.abs(d) / scale, Math.hypot(b / scale, corner)],
      [Math.hypot(c / scale, corner), Math.abs(a) / scale],
    ];
    const upright = [half[0] / lean[0][0], half[1] / lean[1][1]];
    const whole = lean[0][0] * lean[1][1] - lean[0][1] * lean[1][0];
    const solved = [(half[0] * lean[1][1] - half[1] * lean[0][1]) / whole, (half[1] * lean[0][0] - half[0] * lean[1][0]) / whole];
    return { half, middle, lean, size: solved.map((value, i) => Math.min(Math.max(value, 0.3 * upright[i]), upright[i])) };
  });
}

const halfOf = ([left, top, right, bottom]) => [Math.max(right - left, 1) / 2, Math.max(bottom - top, 1) / 2];

/** Return the deviations of the feet from the height of their row, and of the boxes from the size of their class, in units of the scatter. */
function oddnessOf(boxes, toFront, inRows, kinds) {
  const seen = outlines(boxes, toFront, CORNER);
  const unit = 2 * median(seen.map(({ size }) => size[1])) * EDGE_SCATTER;
  const feet = inRows.flatMap((own) => {
    const foot = own.map((i) => (seen[i].middle[1] + seen[i].size[1]) / unit);
    const usual = median(foot);
    return foot.map((value) => value - usual);
  });
  const sizes = kinds.flatMap((own) => {
    const usual = [0, 1].map((side) => median(own.map((i) => seen[i].size[side])));
    return own.flatMap((i) => {
      const expected = seen[i].lean.map(([w, h]) => w * usual[0] + h * usual[1]);
      return expected.map((value, side) => Math.log(seen[i].half[side] / value) / SIZE_SCATTER);
    });
  });
  return [...feet, ...sizes];
}

/** Return the indices of each value that occurs more than once, without null. */
function groups(values) {
  const found = new Map();
  values.forEach((value, i) => found.set(value, [...(found.get(value) ?? []), i]));
  found.delete(null);
  return [...found.values()].filter((own) => own.length > 1);
}

/** Return for each product whether it is directly on the shelf board and not on top of another product of its row. */
function standsOnBoard(boxes, row) {
  const rests = (a, b) => {
    const common = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
    return common > SHARED_WIDTH * Math.min(a[2] - a[0], b[2] - b[0]) && b[3] - a[3] > RISE_OF_STACKED * (a[3] - a[1]);
  };
  return boxes.map((box, i) => !boxes.some((other, j) => row[i] === row[j] && rests(box, other)));
}

/** Return the bounding box [x, y, w, h] of the corners of a box, mapped by a homography. */
function around([left, top, right, bottom], homography) {
  const corners = [left, right].flatMap((x) => [top, bottom].map((y) => times(homography, [x, y, 1])));
  const [x, y] = [0, 1].map((side) => corners.map((corner) => corner[side] / corner[2]));
  return [Math.min(...x), Math.min(...y), Math.max(...x) - Math.min(...x), Math.max(...y) - Math.min(...y)];
}

// ---------------------------------------------------------------- numbers

const middleOf = ([left, , right]) => (left + right) / 2;
const most = (values) => values.reduce((a, b) => Math.max(a, b));
const times = (matrix, vector) => matrix.map((line) => line.reduce((sum, value, i) => sum + value * vector[i], 0));
const product = (a, b) => a.map((line) => [0, 1, 2].map((j) => line.reduce((sum, value, i) => sum + value * b[i][j], 0)));

function inverse([[a, b, c], [d, e, f], [g, h, i]]) {
  const whole = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  return [
    [e * i - f * h, c * h - b * i, b * f - c * e],
    [f * g - d * i, a * i - c * g, c * d - a * f],
    [d * h - e * g, b * g - a * h, a * e - b * d],
  ].map((line) => line.map((value) => value / whole));
}

function median(values) {
  if (!values.length) return 0;
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
