// Looks at the inspector's page as a person would: in Chromium, by keyboard, in light and dark.
//
//   node inspector.mjs <chromium> <address of the page> <token> <directory for the screenshots>
//
// Writes `send` when it is ready for events to come; exits with 1 and the reason if something is
// not as it should be.

import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const [program, address, token, pictures] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: program,
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"],
});
try {
  await look();
} finally {
  await browser.close();
}

async function until(what, ask) {
  const end = Date.now() + 30_000;
  for (;;) {
    let last;
    try {
      if (await ask()) return;
    } catch (error) {
      last = error;
    }
    assert(Date.now() < end, `never: ${what}${last ? `: ${last}` : ""}`);
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}

async function look() {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, colorScheme: "light" });
  const complaints = [], asked = [];
  page.on("console", message => { if (["error", "warning"].includes(message.type())) complaints.push(message.text()); });
  page.on("pageerror", error => complaints.push(String(error)));
  page.on("request", request => asked.push(request.url()));

  const response = await page.goto(address);
  assert.equal(response.status(), 200);
  assert.match(response.headers()["content-security-policy"], /^default-src 'none'; script-src 'sha256-/);
  assert(await page.locator("#login").isVisible());
  assert(!(await page.locator("#view").isVisible()), "nothing is shown without the token");

  // A wrong token, then the right one, by keyboard: the field has the focus.
  await page.keyboard.type("not-the-token-at-all");
  await page.keyboard.press("Enter");
  await until("the wrong token is refused", async () => (await page.locator("#problem").textContent()) === "This token is not accepted.");
  assert.equal(complaints.length, 1, String(complaints));
  assert.match(complaints.pop(), /401/);
  await page.locator("#token").fill("");
  await page.keyboard.type(token);
  await page.keyboard.press("Enter");
  await until("the view", () => page.locator("#view").isVisible());
  assert(!(await page.locator("#login").isVisible()));
  assert.equal(await page.locator("#token").inputValue(), "", "the token is not left in the field");

  // Live.
  assert(await page.locator("#empty").isVisible());
  console.log("send");
  const rows = page.locator("#rows > tr");
  const verdicts = () => page.locator("#rows .badge").allTextContents();
  await until("the events come", async () => (await rows.count()) === 5);
  assert.deepEqual((await verdicts()).sort(), ["duplicate", "forwarded", "forwarded", "signature_missing", "timestamp_too_old"]);
  await until("the answer comes", async () => (await rows.filter({ hasText: "500" }).count()) === 1);
  assert.match(await rows.filter({ hasText: "500" }).textContent(), /not accepted; may come again/);
  assert.match(await page.locator("#news").textContent(), /^\d new: /, "screen readers announce it");
  assert.match(await page.locator("#chart").getAttribute("aria-label"), /1 forwarded, 1 forwarded, not accepted, 1 duplicate, 0 challenge answered, 2 refused, 0 guard failed/);
  assert.equal(await page.locator("#legend").textContent(), "1 forwarded1 forwarded, not accepted1 duplicate0 challenge answered2 refused0 guard failed");

  assert(await rows.filter({ hasText: "500" }).locator(".badge.undelivered").isVisible(), "what the application refused is not green");
  assert.match(await page.locator("#where").textContent(), /^127\.0\.0\.1:\d+, version \d+\.\d+\.\d+$/);

  // Why, and what to do; opened by keyboard, and still open after the next answer of the guard.
  const stale = rows.filter({ hasText: "timestamp_too_old" });
  assert.match(await stale.textContent(), /off by \d+ s, 300 s accepted/);
  await stale.locator("summary").focus();
  await page.keyboard.press("Enter");
  assert.match(await stale.locator("details").innerText(), /Refused at this step: The timestamp must be recent\.[^]*tolerance_seconds/);
  await page.waitForResponse(/\/events$/);
  await page.waitForResponse(/\/events$/);
  assert(await stale.locator("details").evaluate(details => details.open));
  assert.equal(await page.evaluate(() => document.activeElement.tagName), "SUMMARY", "the focus stays");

  // Duplicates of one event.
  const duplicate = rows.filter({ has: page.locator(".duplicate") });
  assert.match(await duplicate.locator("button").textContent(), /^[0-9a-f]{8} ×2$/);
  await duplicate.locator("button").click();
  assert.deepEqual(await verdicts(), ["duplicate", "forwarded"]);
  assert.equal(await page.locator("button[aria-pressed=true]").count(), 2);
  await page.locator("#all").click();
  assert.equal(await rows.count(), 5);

  // Filters.
  await page.getByRole("combobox", { name: "Verdict" }).selectOption("any: refused");
  assert.deepEqual((await verdicts()).sort(), ["signature_missing", "timestamp_too_old"]);
  await page.getByRole("combobox", { name: "Verdict" }).selectOption("duplicate");
  assert.deepEqual(await verdicts(), ["duplicate"]);
  await page.getByRole("combobox", { name: "Verdict" }).selectOption("");
  await page.getByRole("combobox", { name: "Source" }).selectOption("suno");
  assert.equal(await rows.count(), 5);
  await page.getByLabel("Id contains").fill("no-such-id");
  assert.equal(await rows.count(), 0);
  assert(await page.locator("#empty").isVisible());
  await page.getByLabel("Id contains").fill("");
  await page.getByRole("combobox", { name: "Source" }).selectOption("");
  assert.equal(await rows.count(), 5);

  // Pause.
  await page.getByRole("button", { name: "Pause" }).click();
  assert.equal(await page.locator("#state").textContent(), "Paused.");
  await page.getByRole("button", { name: "Pause" }).click();
  await until("it goes on", async () => /^Live/.test(await page.locator("#state").textContent()));

  // Everything that can be set has a label, and every text can be read.
  const unnamed = await page.evaluate(() => [...document.querySelectorAll("input,select")].filter(one => !one.labels.length).map(one => one.id));
  assert.deepEqual(unnamed, []);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    assert.deepEqual(await page.evaluate(faint), [], colorScheme);
    await page.screenshot({ path: `${pictures}/${colorScheme}.png`, fullPage: true });
  }
  await page.setViewportSize({ width: 390, height: 800 });
  assert(await page.evaluate(() => document.scrollingElement.scrollWidth <= innerWidth), "a narrow window has no sideways scrolling");
  const failing = rows.filter({ hasText: "500" });
  for (const part of [failing.locator(".badge"), failing.locator("code"), failing.locator("td:nth-child(8)")]) {
    const box = await part.boundingBox();
    assert(box.x >= 0 && box.x + box.width <= 390, "verdict, id and the upstream's answer are seen on a phone");
  }
  await page.screenshot({ path: `${pictures}/narrow.png`, fullPage: true });

  assert.deepEqual(complaints, []);
  const others = asked.filter(url => url !== address && url !== `${address}/events` && !url.startsWith("data:"));
  assert.deepEqual(others, [], "nobody else is asked");
  assert(asked.every(url => !url.includes(token)));
  const kept = await page.evaluate(() => localStorage.length + sessionStorage.length + document.cookie.length);
  assert.equal(kept, 0, "the token is stored nowhere");
}

// Texts with less contrast than WCAG 2.2 asks for (4.5 to 1).
function faint() {
  const channels = color => color.match(/[\d.]+/g).map(Number);
  const light = color => {
    const [r, g, b] = channels(color).map(value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = node => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (channels(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const has = [...node.childNodes].some(child => child.nodeType === Node.TEXT_NODE && child.textContent.trim());
    if (!has || !node.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push(`${node.tagName} ${node.textContent.slice(0, 20)} ${ratio.toFixed(2)}`);
  }
  return found;
}
