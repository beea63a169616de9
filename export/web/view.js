/**
 * User interface: a card for each photo with its boxes and rows, the summary, and notices.
 */

import { shelfRows, summaryRows } from "./count.js";

const SVG = "http://www.w3.org/2000/svg";
// With this step in degrees, any number of successive hues are well distributed.
const GOLDEN_ANGLE = 137.508;

// Number of classes that are visible before “Show all”. The same number is in style.css.
const FEW_CLASSES = 6;

const page = (id) => document.getElementById(id);
const plural = (n, one, many) => `${n} ${n === 1 ? one : many}`;
const colours = new Map();

/** Return the colour of a class, the same on every photo. Colours are assigned in order of appearance. */
function colourOf(name) {
  if (!colours.has(name)) {
    const hue = (205 + colours.size * GOLDEN_ANGLE) % 360;
    colours.set(name, `hsl(${hue.toFixed(0)} 90% ${colours.size % 2 ? 72 : 54}%)`);
  }
  return colours.get(name);
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function drawn(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function swatch(name) {
  const made = element("span", { className: "swatch" });
  made.style.background = colourOf(name);
  return made;
}

/** Show a message of kind "info" or "error". */
export function notice(text, kind = "info") {
  page("notices").append(element("p", { className: kind, role: kind === "error" ? "alert" : "status", textContent: text }));
}

/** Show the model and its training data. */
export function showAbout(list, about) {
  const facts = {
    Model: `${about.name}, ${about.recipe}, ${(about.bytes / 1e6).toFixed(1)} MB`,
    Products: `${plural(about.classes.length, "class", "classes")}: ${about.classes.join(", ")}`,
    "Training photos": [about.provenance.photos, about.provenance.licence, about.provenance.attribution].filter(Boolean).join("; "),
    Bundle: about.checked ? `sha256 ${about.sha256}` : "not verified, since the page was loaded without https",
  };
  list.replaceChildren(
    ...Object.entries(facts).flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]),
  );
}

/** Show the total and a button for each class. */
export function showSummary(photos, highlighted, onHighlight) {
  const rows = summaryRows(photos);
  const total = rows.reduce((sum, row) => sum + row.products, 0);
  page("total").textContent = total;
  page("total-of").innerText =
    `${total === 1 ? "product" : "products"}\n${plural(rows.length, "class", "classes")}, ${plural(photos.length, "photo", "photos")}`;
  page("added-up").hidden = photos.length < 2;
  page("all").textContent = `Show all ${plural(rows.length, "class", "classes")}`;
  page("all").hidden = rows.length <= FEW_CLASSES;
  page("download").disabled = total === 0;
  const focused = document.activeElement.dataset.name;
  const items = rows.map(({ name, products }) => {
    const button = element(
      "button",
      { type: "button" },
      swatch(name),
      element("span", { textContent: name }),
      element("b", { textContent: products }),
    );
    button.dataset.name = name;
    button.setAttribute("aria-pressed", name === highlighted);
    button.addEventListener("click", () => onHighlight(name));
    return element("li", {}, button);
  });
  page("classes").replaceChildren(...items);
  // The keyboard focus stays on the same class.
  if (focused)
    page("classes")
      .querySelector(`[data-name="${CSS.escape(focused)}"]`)
      ?.focus({ preventScroll: true });
}

/** One photo on the page. */
export class PhotoCard {
  /**
   * @param {File} file
   * @param {string} name Name of the photo on the page and in the CSV file.
   * @param {{onRemove: function(PhotoCard), onHighlight: function(string)}} handlers
   */
  constructor(file, name, { onRemove, onHighlight }) {
    this.file = file;
    this.name = name;
    this.state = "waiting";
    this.counted = null;
    this.onHighlight = onHighlight;
    this.marks = [];
    this.address = URL.createObjectURL(file);

    this.headline = element("p", { className: "headline", textContent: "Waiting …" });
    this.bar = element("progress", { hidden: true });
    this.bar.setAttribute("aria-label", `Counting ${name}`);
    this.frame = element("div", { className: "frame" }, element("img", { src: this.address, alt: `Photo ${name}` }));
    this.advice = element("ul", { className: "advice", hidden: true });
    this.advice.setAttribute("aria-label", "How to take a better photo");
    this.shelf = element("div", { className: "shelf" });
    const close = element("button", { type: "button", className: "close", textContent: "×" });
    close.setAttribute("aria-label", `Remove ${name}`);
    close.addEventListener("click", () => onRemove(this));
    const title = element("h2", { textContent: name });
    const heading = element("header", {}, title, close);
    this.element = element("article", {}, heading, this.frame, this.headline, this.bar, this.advice, this.shelf);
  }

  progress(tile, tiles) {
    this.state = "counting";
    this.headline.textContent = tiles > 1 ? `Counting part ${tile + 1} of ${tiles} …` : "Counting …";
    this.bar.hidden = false;
    if (tiles > 1) Object.assign(this.bar, { value: tile, max: tiles });
  }

  fail(why) {
    this.state = "failed";
    this.bar.hidden = true;
    this.frame.hidden = true;
    this.headline.classList.add("error");
    this.headline.textContent = `Not counted. ${why}`;
  }

  show(counted) {
    this.state = "counted";
    this.counted = counted;
    this.bar.hidden = true;
    const rows = shelfRows(counted.products);
    this.finding = counted.products.length
      ? `${plural(counted.products.length, "product", "products")} in ${plural(rows.length, "row", "rows")}${counted.gaps.length ? `, ${plural(counted.gaps.length, "gap", "gaps")}` : ""}`
      : "No products of the known classes were detected.";
    this.advice.hidden = counted.quality.fit;
    this.advice.replaceChildren(...counted.quality.advice.map((textContent) => element("li", { textContent })));
    this.frame.append(this.boxes(counted));
    const gapBefore = new Map(counted.gaps.map((gap) => [counted.products[gap.before], gap]));
    this.shelf.replaceChildren(...rows.map((row, i) => this.shelfRow(row, i + 1, gapBefore)));
  }

  boxes({ width, height, products, gaps }) {
    const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": true });
    for (const item of products) {
      const [x, y, w, h] = item.box;
      const group = drawn("g", {});
      group.append(drawn("rect", { x, y, width: w, height: h, class: "edge" }), drawn("rect", { x, y, width: w, height: h, class: "box" }));
      group.style.setProperty("--colour", colourOf(item.class));
      group.append(drawn("title", {}));
      group.lastChild.textContent = `${item.class}, ${Math.round(100 * item.score)} %, row ${item.row + 1}, position ${item.position + 1}`;
      this.mark(group, item.class);
      picture.append(group);
    }
    for (const { row, facings, box } of gaps) {
      const [x, y, w, h] = box;
      const hole = drawn("rect", { x, y, width: w, height: h, class: "gap" });
      hole.append(drawn("title", {}));
      hole.lastChild.textContent = `Row ${row + 1}: gap for ${plural(facings, "product", "products")}, sold out or not detected`;
      picture.append(hole);
    }
    return picture;
  }

  /** Return one shelf row: its products from left to right, neighbours of one class grouped, and the gaps between them. */
  shelfRow(row, number, gapBefore) {
    const runs = [];
    for (const item of row) {
      const gap = gapBefore.get(item);
      if (gap) runs.push({ gap: gap.facings });
      if (runs.at(-1)?.name === item.class) runs.at(-1).length += 1;
      else runs.push({ name: item.class, length: 1 });
    }
    const chips = runs.map(({ name, length, gap }) => {
      if (gap) return element("li", { className: "chip hole", textContent: gap > 1 ? `gap × ${gap}` : "gap" });
      const chip = element("button", { type: "button", className: "chip" }, swatch(name), name);
      if (length > 1) chip.append(element("b", { textContent: `× ${length}` }));
      this.mark(chip, name);
      return element("li", {}, chip);
    });
    const heading = element("h3", { textContent: `Row ${number}` }, element("span", { textContent: row.length }));
    return element("div", { className: "row" }, heading, element("ol", {}, ...chips));
  }

  mark(node, name) {
    node.addEventListener("click", () => this.onHighlight(name));
    this.marks.push({ node, name });
  }

  highlight(highlighted) {
    if (!this.counted) return;
    const { products } = this.counted;
    const number = products.filter((item) => item.class === highlighted).length;
    this.headline.textContent =
      highlighted === null ? this.finding : `${highlighted}: ${number} of ${plural(products.length, "product", "products")}`;
    for (const { node, name } of this.marks) {
      node.classList.toggle("dim", highlighted !== null && name !== highlighted);
      node.classList.toggle("lit", name === highlighted);
      node.setAttribute("aria-pressed", name === highlighted);
    }
  }

  close() {
    URL.revokeObjectURL(this.address);
    this.element.remove();
  }
}
