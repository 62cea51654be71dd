// speedscope's own importer, Firefox Profiler's own loader if there, and Chromium on what readers.sh has exported.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { once } from "node:events";
import { createServer } from "node:http";
import { gunzipSync } from "node:zlib";
import { extname, join } from "node:path";
import { strict as assert } from "node:assert";
import puppeteer from "puppeteer-core";

const browser = await puppeteer.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

async function open(url) {
  const page = await browser.newPage();
  const errors = [];
  page.on("console", (message) => { if (message.type() === "error") errors.push(message.text()); });
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.setViewport({ width: 1400, height: 800 });
  await page.goto(url, { waitUntil: "networkidle0" });
  return { page, errors };
}

// speedscope, as it is released, is a page: its importer reads the file that the address names.
const release = join("node_modules", "speedscope", "dist", "release");
const types = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json" };
const server = createServer((request, response) => {
  const name = decodeURIComponent(request.url.split(/[?#]/)[0]).slice(1);
  const path = name === "x.speedscope.json" ? name : join(release, name);
  try {
    response.writeHead(200, { "content-type": types[extname(path)] ?? "application/octet-stream" });
    response.end(readFileSync(path));
  } catch {
    response.end();
  }
}).listen(0, "127.0.0.1");
await once(server, "listening");
const origin = `http://127.0.0.1:${server.address().port}`;
assert(readdirSync(release).includes("index.html"));
{
  const { page, errors } = await open(`${origin}/index.html#profileURL=${encodeURIComponent(`${origin}/x.speedscope.json`)}`);
  await page.waitForFunction(() => document.title.includes("speedscope") && document.querySelector("canvas"), { timeout: 20000 });
  await page.screenshot({ path: "speedscope.png" });
  const text = await page.evaluate(() => document.body.innerText);
  assert(!/failed|error|unrecognized/i.test(text), text);
  console.log("speedscope: loaded", errors.length, "errors");
  await page.close();
}
server.close();

// Firefox Profiler's processed format: what its loader demands, and that loader itself, which brings it up to date.
const packed = readFileSync("x.firefox.json.gz");
const firefox = JSON.parse(gunzipSync(packed));
assert(firefox.meta.preprocessedProfileVersion > 0 && firefox.threads.length > 0);
const samplesOf = (profile) => profile.threads.reduce((sum, thread) => sum + thread.samples.length, 0);
assert.equal(samplesOf(firefox), Number(process.argv[2]));
for (const { frameTable, funcTable, stackTable, samples, stringArray } of firefox.threads) {
  const within = (column, length) => assert(column.every((at) => at === null || (at >= 0 && at < length)));
  within(samples.stack, stackTable.length);
  within(stackTable.frame, frameTable.length);
  stackTable.prefix.forEach((prefix, at) => assert(prefix === null || prefix < at));
  within(frameTable.func, funcTable.length);
  within([...funcTable.name, ...funcTable.fileName], stringArray.length);
  within(frameTable.category, firefox.meta.categories.length);
}
console.log("firefox: processed profile version", firefox.meta.preprocessedProfileVersion, firefox.threads.length, "threads");
if (existsSync("firefox-loader.mjs")) {
  const { load } = await import(join(process.cwd(), "firefox-loader.mjs"));
  const profile = await load(new Uint8Array(packed));
  assert.equal(samplesOf(profile), Number(process.argv[2]));
  const lines = (tables) => tables.flatMap(({ frameTable }) => frameTable.line).filter((line) => line > 0).length;
  const { meta, shared } = profile;
  console.log("firefox: its own loader makes version", meta.preprocessedProfileVersion, "of it");
  assert(lines([shared]) >= (lines(firefox.threads) > 0 ? 1 : 0), "lines are kept");
}

{
  const { page, errors } = await open(`file://${process.cwd()}/x.html`);
  const frames = () => page.$$eval(".frame", (frames) => frames.length);
  const status = () => page.$eval("#status", (status) => status.textContent);
  const all = await frames();
  assert(all > 3, `${all} frames`);
  await page.screenshot({ path: "all.png" });

  const names = await page.$$eval(".frame", (frames) => frames.map((frame) => frame.textContent).filter((name) => name.length > 3));
  const wanted = names[names.length - 1];
  await page.keyboard.press("/");
  await page.type("#search", wanted);
  assert(await page.$$eval(".found", (found) => found.length) > 0, wanted);
  assert((await status()).includes("%"));
  await page.screenshot({ path: "search.png" });
  await page.$eval("#search", (search) => { search.value = ""; search.dispatchEvent(new Event("input")); });

  await page.$$eval(".frame", (frames) => frames[2].click());
  assert(await page.$$eval(".above", (above) => above.length) > 0, "zoomed");
  await page.screenshot({ path: "zoom.png" });
  await page.keyboard.press("Escape");
  assert.equal(await frames(), all);

  const total = async () => Number((await status()).match(/: ([\d.]+) /)[1]);
  const whole = await total();
  await page.click("#modes input[name=user]");
  const kernel = await total();
  assert(kernel < whole, "a mode is filtered");
  await page.screenshot({ path: "filter.png" });
  await page.click("#modes input[name=user]");
  const domains = await page.$$eval("#domain option", (options) => options.map((option) => option.value));
  await page.select("#domain", domains[domains.length - 1]);
  assert(await total() <= whole);
  assert.deepEqual(errors, []);
  console.log(`html: ${all} frames, ${domains.length - 1} domains, search for ${wanted}, zoom and filters, no console error`);
}
{
  const { page, errors } = await open(`file://${process.cwd()}/diff.html`);
  await page.screenshot({ path: "diff.png" });
  assert.deepEqual(errors, []);
}
await browser.close();
