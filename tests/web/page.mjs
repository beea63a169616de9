// Test of the page in Chromium, used like a person does.
//
//     node page.mjs .consumers/web PROFILE ADDRESS ELSEWHERE PHOTO...
//
// PROFILE is the folder of a persistent browser profile, so that a second call uses the cache of the first one.
// ELSEWHERE is another origin, which page and worker try to reach. Prints the content of the page and the saved file
// as JSON; without photos, only the notices after opening the page.

import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";

const [environment, profile, address, elsewhere, ...photos] = process.argv.slice(2);
const { chromium } = createRequire(path.resolve(environment, "package.json"))("playwright-core");
const executablePath = execFileSync("sh", ["-c", "command -v chromium"], { encoding: "utf8" }).trim();
// Chromium needs this option when it is run as root.
const browser = await chromium.launchPersistentContext(profile, {
  executablePath,
  args: ["--no-sandbox"],
  viewport: { width: 390, height: 844 },
});

/** Return the content of the page and the CSV file that it saves. */
async function seen(page) {
  const [file] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
  const texts = (selector) => page.$$eval(selector, (found) => found.map((element) => element.textContent));
  const numbers = await texts("#classes b");
  const shown = {
    csv: await readFile(await file.path(), "utf8"),
    total: Number(await page.textContent("#total")),
    classes: (await texts("#classes button span:last-of-type")).map((name, i) => [name, Number(numbers[i])]),
    headlines: await texts(".headline"),
    rows: await texts(".row h3"),
    advice: await texts(".advice li"),
    addedUp: await page.locator("#added-up").isVisible(),
    gaps: [await page.locator("svg .gap").count(), await page.locator(".hole").count()],
    about: await texts("#about dd"),
    boxes: await page.locator("svg .box").count(),
    overflow: await page.evaluate(() => document.documentElement.scrollWidth - innerWidth),
  };
  await page.click("#classes li:first-child button");
  return { ...shown, highlighted: await page.locator("svg .lit").count() };
}

/** Return whether page and worker can reach another origin. */
async function leaks(page) {
  const reach = (url) =>
    fetch(url, { mode: "no-cors" }).then(
      () => "reached",
      () => "refused",
    );
  return [await page.evaluate(reach, elsewhere), await page.workers()[0].evaluate(reach, elsewhere)];
}

try {
  const page = browser.pages()[0];
  const [asked, errors] = [[], []];
  browser.on("request", (request) => asked.push(request.url()));
  page.on("pageerror", (error) => errors.push(error.message));
  const settled = () => /^(Ready, also offline|Not ready)\.$/.test(document.getElementById("status").textContent);

  await page.goto(address);
  await page.waitForFunction(settled, null, { timeout: 120_000 });
  const found = {};
  if (photos.length) {
    await page.setInputFiles("#chooser", photos);
    await page.waitForFunction(settled, null, { timeout: 300_000 });
    Object.assign(found, await seen(page), { leaks: await leaks(page) });
  }
  const notices = await page.locator("#notices p").allTextContents();
  console.log(JSON.stringify({ ...found, notices, asked, errors }));
} finally {
  await browser.close();
}
