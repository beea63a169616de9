/**
 * Is this photo fit to be counted? Light, sharpness and view, each measured, compared with a limit, and said in one sentence.
 *
 * Mirrors shelfcount/shelf/photo_gate.py (limits, advice) and shelfcount/vision/photo_quality.py (measures), which
 * give the reasons for each constant and step.
 */

import { height as heightOf, width as widthOf } from "./boxes.js";
import { FOCAL_LENGTH } from "./facings.js";
import { roundHalfToEven, stretch, tiles } from "./pixels.js";
import { tilesPerSide } from "./tiling.js";

export const LIMITS = {
  dark: 51,
  bright: 0.51,
  glare: 0.082,
  blur: 0.91,
  motion: 0.06,
  tilt: 14,
  yaw: 34,
  pitch: 35,
  product_size: 0.63,
  product_pixels: 0.2,
};
const LOWER_LIMITS = ["dark", "product_size", "product_pixels"];

const COPY_SIDE = 416;
const BLOWN = 250;
const GLARE_BLOCK = 8;
const GLARE_LEVEL = 250;
const GLARE_DETAIL = 15;
const WINDOWS = 3;
const WINDOW_SIDE = 96;
const OVERLAP = 0.25;
const DIRECTIONS = [
  [1, 0],
  [0, 1],
  [1, 1],
  [1, -1],
];
const [FINE, COARSE] = [1, 4];
const USUAL_BLUR = 0.74;
const CELLS = 24;
const MIN_EDGE = 10 * 48;
const MIN_EDGE_CELLS = 40;
const [SEARCH_TILT, TILT_STEP] = [27, 3];
const [SEARCH_TURN, TURN_STEP] = [42, 7];
const AGREEMENT = 3;
const SEARCHES = 3;
const LEVELNESS = 0.015;
const MIN_AGREEING = 0.045;

/**
 * Whether a photo is fit to be counted by a model, and if not, what to do.
 *
 * @param {{width: number, height: number, data: Uint8ClampedArray}} photo
 * @param {object} spec Of the model.
 * @param {number[][] | null} boxes [left, top, right, bottom] in pixels of what was found; null before counting.
 * @returns {{fit: boolean, advice: string[], checks: object}} As in the JSON of `shelfcount count`, not rounded.
 */
export function checkPhoto(photo, spec, boxes = null) {
  const copy = smallCopy(photo);
  const { blur, motion, angle } = sharpness(photo, spec);
  const values = { ...light(copy), blur, motion, ...view(copy), ...productSizes(boxes ?? [], spec, photo) };
  const checks = {};
  const said = [];
  for (const [name, share] of Object.entries(LIMITS)) {
    const [value, limit] = [values[name], name.startsWith("product") ? share * spec.product_px[1] : share];
    checks[name] = { value, limit };
    const fit = value === null || (LOWER_LIMITS.includes(name) ? value >= limit : Math.abs(value) <= limit);
    if (!fit) said.push(advice(name, value, limit, angle));
  }
  return { fit: said.length === 0, advice: said, checks };
}

function advice(name, value, limit, angle) {
  const whole = (number) => String(roundHalfToEven(number));
  const [amount, percent] = [`${whole(Math.abs(value))} degrees`, `${whole(100 * value)} %`];
  const way = Math.abs(angle) < 30 ? "sideways" : Math.abs(angle) > 60 ? "up and down" : "aslant";
  const by = (positive, negative) => (value > 0 ? positive : negative);
  return {
    dark: `Add light or brighten the exposure: nine tenths of the photo are darker than ${whole(value)} of 255.`,
    bright: `Tap on a bright product so that the phone exposes less: ${percent} of the photo is blown out.`,
    glare: `Step aside or turn the flash off: glare hides ${percent} of the photo.`,
    blur: "Tap on a product to focus, and wipe the lens: the photo is blurred.",
    motion: `Hold the phone still, and tap to focus: the photo is smeared ${way}.`,
    tilt: `Turn the phone ${by("clockwise", "counter-clockwise")}: the shelf slopes down to the ${by("right", "left")} by ${amount}.`,
    yaw: `Step to the ${by("left", "right")}: the shelf is seen from the ${by("right", "left")} by ${amount}.`,
    pitch: `${by("Lower", "Raise")} the phone to the height of the shelf's middle: it looks ${by("down", "up")} by ${amount}.`,
    product_size: `Come closer, and take several photos if the shelf does not fit: the model sees products ${whole(value)} pixels large and needs ${whole(limit)}.`,
    product_pixels: `Use the photo in its original size: products are ${whole(value)} pixels large on it, ${whole(limit)} are needed.`,
  }[name];
}

// ---------------------------------------------------------------- light

/** About `COPY_SIDE` pixels on the longer side, each the mean of four that lie apart. */
export function smallCopy({ width, height, data }) {
  const step = Math.max(1, Math.floor(Math.max(width, height) / COPY_SIDE + 0.5));
  if (step === 1) return { width, height, data };
  const [w, h] = [width, height].map((side) => Math.max(1, Math.floor(side / step)));
  const [right, down] = [width, height].map((side) => 3 * Math.min(step >> 1, side - 1));
  const out = new Uint8ClampedArray(w * h * 3);
  for (let y = 0, at = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      for (let channel = 0; channel < 3; channel++, at++) {
        const i = (y * step * width + x * step) * 3 + channel;
        const below = i + down * width;
        out[at] = (data[i] + data[i + right] + data[below] + data[below + right] + 2) >> 2;
      }
    }
  }
  return { width: w, height: h, data: out };
}

/** Grey levels as OpenCV's cvtColor gives them. */
function grey({ width, height, data }) {
  const levels = new Uint8Array(width * height);
  for (let i = 0, at = 0; i < levels.length; i++, at += 3) {
    levels[i] = (9798 * data[at] + 19235 * data[at + 1] + 3735 * data[at + 2] + 16384) >> 15;
  }
  return { width, height, levels };
}

function light(copy) {
  const { data, width } = copy;
  const { levels } = grey(copy);
  const counts = new Array(256).fill(0);
  for (const level of levels) counts[level]++;
  let dark = 0;
  for (let upTo = counts[0]; upTo * 10 < 9 * levels.length; upTo += counts[++dark]);
  let blown = 0;
  for (let at = 0; at < data.length; at += 3) if (Math.max(data[at], data[at + 1], data[at + 2]) >= BLOWN) blown++;

  const [rows, columns] = [copy.height, width].map((side) => Math.floor(side / GLARE_BLOCK));
  const n = GLARE_BLOCK * GLARE_BLOCK;
  let white = 0;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      let [least, sum, squares] = [0, 0, 0];
      for (let y = row * GLARE_BLOCK; y < (row + 1) * GLARE_BLOCK; y++) {
        for (let x = column * GLARE_BLOCK; x < (column + 1) * GLARE_BLOCK; x++) {
          const i = y * width + x;
          least += Math.min(data[3 * i], data[3 * i + 1], data[3 * i + 2]);
          sum += levels[i];
          squares += levels[i] * levels[i];
        }
      }
      if (n * squares - sum * sum < (GLARE_DETAIL * n) ** 2 && least >= GLARE_LEVEL * n) white++;
    }
  }
  return { dark, bright: blown / levels.length, glare: rows * columns ? white / (rows * columns) : 0 };
}

// ---------------------------------------------------------------- sharpness

function sharpness(photo, spec) {
  const [near, far] = [
    [0, 0, 0, 0],
    [0, 0, 0, 0],
  ];
  let [xx, xy, yy] = [0, 0, 0];
  for (const { width, height, levels } of windows(photo, spec)) {
    if (Math.min(width, height) <= COARSE) continue;
    DIRECTIONS.forEach(([x, y], i) => {
      near[i] += difference({ width, height, levels }, FINE * x, FINE * y);
      far[i] += difference({ width, height, levels }, COARSE * x, COARSE * y);
    });
    for (let y = 1; y < height - 1; y++) {
      for (let i = y * width + 1; i < (y + 1) * width - 1; i++) {
        const [across, down] = [levels[i + 1] - levels[i - 1], levels[i + width] - levels[i - width]];
        xx += across * across;
        xy += across * down;
        yy += down * down;
      }
    }
  }
  if (!near.every((value) => value > 0)) return { blur: null, motion: null, angle: 0 };
  const blurs = near.map((value, i) => Math.log(far[i] / value) / Math.log(COARSE / FINE) / 2);
  const blur = blurs.reduce((a, b) => a + b) / blurs.length;
  const spread = Math.hypot(xx - yy, 2 * xy);
  const weakest = Math.sqrt(Math.max(xx + yy - spread, 0) / (xx + yy + spread));
  const strong = ((Math.atan2(2 * xy, xx - yy) / 2) * 180) / Math.PI;
  return { blur, motion: Math.max(Math.max(...blurs) - USUAL_BLUR, 0) * (1 - weakest), angle: strong > 0 ? strong - 90 : strong + 90 };
}

/** Grey windows as the network sees them in the finest tiles, but never enlarged. */
function* windows(photo, spec) {
  const [across, down] = shrink(spec, photo).map((pixels) => Math.max(1, pixels));
  const width = Math.min(photo.width, Math.floor(WINDOW_SIDE * across + 0.5));
  const height = Math.min(photo.height, Math.floor(WINDOW_SIDE * down + 0.5));
  for (let i = 0; i < WINDOWS * WINDOWS; i++) {
    const left = Math.floor((((i % WINDOWS) + 1) * (photo.width - width)) / (WINDOWS + 1));
    const top = Math.floor(((Math.floor(i / WINDOWS) + 1) * (photo.height - height)) / (WINDOWS + 1));
    const [w, h] = [Math.min(width, WINDOW_SIDE), Math.min(height, WINDOW_SIDE)];
    yield grey({ width: w, height: h, data: stretch(photo, [left, top, left + width, top + height], h, w) });
  }
}

/** Pixels of the photo for one of the network's input, across and down, in the finest tiles. */
function shrink(spec, { width, height }) {
  const [, , right, bottom] = tiles(width, height, tilesPerSide(spec, width, height), OVERLAP)[0];
  return [right / spec.width, bottom / spec.height];
}

/** Mean squared difference of grey levels that are `right` and `down` pixels apart. */
function difference({ width, height, levels }, right, down) {
  const [first, last] = [Math.max(0, -down), height - Math.max(0, down)];
  let sum = 0;
  for (let y = first; y < last; y++) {
    const [row, other] = [y * width, (y + down) * width + right];
    for (let x = 0; x < width - right; x++) sum += (levels[row + x] - levels[other + x]) ** 2;
  }
  return sum / ((last - first) * (width - right));
}

// ---------------------------------------------------------------- view

function view(copy) {
  const { width, height, levels } = grey(copy);
  const focal = FOCAL_LENGTH * Math.max(width, height);
  const at = (x, y) => levels[y * width + x];
  const level = lines(at, width, height, focal);
  // Turned about the diagonal, what is upright is level.
  const upright = lines((x, y) => at(y, x), height, width, focal);
  const [tilt, turn] = level ? meetingPoint(level) : [null, null];
  const [, pitch] = upright ? meetingPoint(upright) : [null, null];
  // Without a negative zero.
  return { tilt, yaw: turn && -turn, pitch };
}

/** The strongest nearly level edge of each cell: place in focal lengths from the middle, unit gradient. */
function lines(at, width, height, focal) {
  const [stepX, stepY] = [width, height].map((side) => Math.floor((side - 4) / CELLS));
  if (Math.min(stepX, stepY) < 1) return null;
  const found = [];
  const [gx, gy] = gradients(at, CELLS * stepX, CELLS * stepY);
  for (let row = 0; row < CELLS; row++) {
    for (let column = 0; column < CELLS; column++) {
      let [best, place] = [0, -1];
      for (let y = row * stepY; y < (row + 1) * stepY; y++) {
        for (let x = column * stepX; x < (column + 1) * stepX; x++) {
          const i = y * CELLS * stepX + x;
          const strength = 10 * Math.abs(gx[i]) <= 7 * Math.abs(gy[i]) ? gx[i] * gx[i] + gy[i] * gy[i] : 0;
          if (strength > best) [best, place] = [strength, i];
        }
      }
      if (best < MIN_EDGE * MIN_EDGE) continue;
      const [x, y] = [place % (CELLS * stepX), Math.floor(place / (CELLS * stepX))];
      const length = Math.sqrt(best);
      found.push([(x + 2.5 - width / 2) / focal, (y + 2.5 - height / 2) / focal, gx[place] / length, gy[place] / length]);
    }
  }
  return found.length < MIN_EDGE_CELLS ? null : found;
}

/** OpenCV's Sobel with 5 pixels, across and down, from the third pixel of the third row on. */
function gradients(at, width, height) {
  const [smooth, step] = [
    [1, 4, 6, 4, 1],
    [-1, -2, 0, 2, 1],
  ];
  const [rowSmooth, rowStep] = [new Int32Array(width * (height + 4)), new Int32Array(width * (height + 4))];
  for (let y = 0, i = 0; y < height + 4; y++) {
    for (let x = 0; x < width; x++, i++) {
      for (let k = 0; k < 5; k++) {
        const level = at(x + k, y);
        rowSmooth[i] += smooth[k] * level;
        rowStep[i] += step[k] * level;
      }
    }
  }
  const [gx, gy] = [new Int32Array(width * height), new Int32Array(width * height)];
  for (let i = 0; i < gx.length; i++) {
    for (let k = 0; k < 5; k++) {
      gx[i] += smooth[k] * rowStep[i + k * width];
      gy[i] += step[k] * rowSmooth[i + k * width];
    }
  }
  return [gx, gy];
}

/** Tilt and turn in degrees of the direction that most lines share: a search from coarse to fine. */
function meetingPoint(lines) {
  let [tilts, turns] = [grid(0, TILT_STEP, SEARCH_TILT / TILT_STEP), grid(0, TURN_STEP, SEARCH_TURN / TURN_STEP)];
  let [tiltStep, turnStep, within] = [TILT_STEP, TURN_STEP, AGREEMENT];
  let best;
  for (let search = 0; search < SEARCHES; search++) {
    best = { worth: -Infinity };
    for (const tilt of tilts) {
      for (const turn of turns) {
        const share = agreeing(lines, radians(tilt), radians(turn), Math.sin(radians(within)));
        const worth = share - LEVELNESS * ((tilt / SEARCH_TILT) ** 2 + (turn / SEARCH_TURN) ** 2);
        if (worth > best.worth) best = { worth, share, tilt, turn };
      }
    }
    [tiltStep, turnStep, within] = [tiltStep / 2, turnStep / 2, within / 1.5];
    [tilts, turns] = [grid(best.tilt, tiltStep, 2), grid(best.turn, turnStep, 2)];
  }
  return best.share >= MIN_AGREEING ? [best.tilt, best.turn] : [null, null];
}

const radians = (degrees) => (degrees * Math.PI) / 180;
const grid = (middle, step, n) => Array.from({ length: 2 * n + 1 }, (_, i) => middle + step * (i - n));

/** Share of the lines that run to the meeting point of a view, weighted by nearness. */
function agreeing(lines, tilt, turn, within) {
  const [right, down, ahead] = [Math.cos(turn) * Math.cos(tilt), Math.cos(turn) * Math.sin(tilt), Math.sin(turn)];
  let sum = 0;
  for (const [x, y, gx, gy] of lines) {
    const [dx, dy] = [right - ahead * x, down - ahead * y];
    sum += Math.max(1 - Math.abs(dx * gx + dy * gy) / Math.sqrt(dx * dx + dy * dy) / within, 0);
  }
  return sum / lines.length;
}

// ---------------------------------------------------------------- products

/** Pixels of the median product in the network's input and on the photo; null for no boxes. */
function productSizes(boxes, spec, photo) {
  if (!boxes.length) return { product_size: null, product_pixels: null };
  const sizes = boxes.map((box) => Math.sqrt(Math.max(widthOf(box), 0) * Math.max(heightOf(box), 0))).sort((a, b) => a - b);
  const half = sizes.length >> 1;
  const median = sizes.length % 2 ? sizes[half] : (sizes[half - 1] + sizes[half]) / 2;
  const [across, down] = shrink(spec, photo);
  return { product_size: median / Math.sqrt(across * down), product_pixels: median };
}
