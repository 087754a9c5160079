// Drives the page in headless Chromium as a person would, against the stand-in server, or against
// `sluice serve` where SLUICE_PAGE_URL says where one is: then what only the stand-in answers is
// left out, and with SLUICE_PAGE_SCRIPTED what only tests/e2e/test_page.py's model answers is done.
// Exit status 77: there is no Chromium.
//
//   node ui/tests/page_test.mjs PAGE.html POLICY [NAME...]
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openBrowser } from "./browser.mjs";
import { standIn } from "./stand_in_server.mjs";

const [, , pagePath, policyPath, ...wanted] = process.argv;
const real = process.env.SLUICE_PAGE_URL;
const isScripted = real !== undefined && process.env.SLUICE_PAGE_SCRIPTED === "1";
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const field = (page) => page.getByRole("textbox", { name: "Message", exact: true });
const answer = (page) => page.getByRole("article", { name: "Answer" }).last();
const button = (page, name) => page.getByRole("button", { name, exact: true });

// Until the message is drawn: before that, the answer to the one before looks complete.
async function say(page, text) {
  await field(page).fill(text);
  await field(page).press("Enter");
  await page.locator(".asked", { hasText: text }).last().waitFor();
}

async function complete(page) {
  await page.locator('.answer[aria-busy="false"]').last().getByText("Retry").waitFor();
  await button(page, "Send").waitFor();
}

async function until(condition, what) {
  for (let tries = 0; tries < 400; ++tries) {
    if (await condition()) return;
    await new Promise((done) => setTimeout(done, 25));
  }
  assert.fail(`never came: ${what}`);
}

async function accessible(page) {
  // By the debugging interface, which the page's policy does not bind.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document));
  const told = violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(" | ")}`);
  assert.deepEqual(told, []);
}

// Both: also against a real server.
const both = {
  async "sends and streams"({ page }) {
    await say(page, "Hello there");
    await complete(page);
    assert.match(await answer(page).innerText(), /\S/);
    assert.equal(await page.locator(".error").count(), 0);
  },
  async "a reload keeps conversations"({ page }) {
    await say(page, "Remember this");
    await complete(page);
    const before = await answer(page).locator(".prose").innerText();
    await page.reload();
    assert.equal(await answer(page).locator(".prose").innerText(), before);
    assert.equal(await page.locator(".asked").innerText().then((t) => t.split("\n")[0]), "Remember this");
  },
  async "conversations are renamed, left and deleted"({ page }) {
    page.on("dialog", (dialog) => dialog.accept());
    await say(page, "First");
    await complete(page);
    await button(page, "New conversation").click();
    await say(page, "Second");
    await complete(page);
    await button(page, "Rename First").click();
    await page.getByRole("textbox", { name: "Title" }).fill("Renamed");
    await page.keyboard.press("Enter");
    await button(page, "Renamed").click();
    await page.locator(".asked", { hasText: "First" }).waitFor();
    await button(page, "Delete Second").click();
    await until(async () => (await page.locator(".sidebar li").count()) === 1, "one conversation");
  },
};

// Against a real server whose models say what is wanted.
const scripted = {
  async "another model answers once it is chosen, over a reload too"({ page }) {
    const models = page.getByRole("combobox", { name: "Model" });
    await say(page, "Hello there");
    await complete(page);
    await page.getByText("I have nothing to say.").waitFor();
    await models.selectOption("other");
    await say(page, "And you?");
    await page.getByText("I am another model.").waitFor();
    await complete(page);
    await page.reload();
    await page.getByText("I am another model.").waitFor();
    await until(async () => (await models.inputValue()) === "other", "the chosen model");
    await say(page, "Still you?");
    await until(async () => (await page.getByText("I am another model.").count()) === 2, "its answer");
    await complete(page);
    await models.selectOption("scripted");
    await say(page, "Back again");
    await until(async () => (await page.getByText("I have nothing to say.").count()) === 2, "the first's");
    assert.equal(await page.locator(".error").count(), 0);
  },
  async "a real answer is stopped"({ page }) {
    await say(page, "go on forever");
    await page.getByText("on and on").first().waitFor();
    await button(page, "Stop").click();
    await complete(page);
    await page.getByText("Stopped").waitFor();
    await say(page, "Hello there");
    await complete(page);
    assert.equal(await page.locator(".error").count(), 0);
  },
  async "a real tool runs when allowed, and a reload keeps it"({ page }) {
    await page.getByLabel("Agent").check();
    await say(page, "make it");
    await page.getByText("echo made >> made.txt").waitFor();
    await accessible(page);
    await button(page, "Allow once").click();
    await page.getByText("It is done.").waitFor();
    await complete(page);
    assert.equal(await page.locator(".error").count(), 0);
    await page.reload();
    await page.getByText("It is done.").waitFor();
    assert.match(await answer(page).innerText(), /echo made >> made\.txt[^]*It is done\./);
  },
  async "a real tool does not run when refused"({ page }) {
    await page.getByLabel("Agent").check();
    await say(page, "make it");
    await button(page, "Refuse").click();
    await page.getByText("Then I will not.").waitFor();
    await complete(page);
    assert.equal(await page.locator(".step.refused").count(), 1);
  },
  async "a real run is stopped while it asks"({ page }) {
    await page.getByLabel("Agent").check();
    await say(page, "make it");
    await button(page, "Allow once").waitFor();
    await button(page, "Stop").click();
    await complete(page);
    await page.getByText("Stopped").waitFor();
  },
};

const alone = {
  async "stops and retries"({ page, server }) {
    await say(page, "go on forever");
    await page.getByText("on on on").waitFor();
    await button(page, "Stop").click();
    await complete(page);
    await page.getByText("Stopped").waitFor();
    await button(page, "Retry").click();
    await until(() => server.requests.length === 2, "a second request");
    assert.equal(server.requests[1].messages.length, 1);
    await field(page).press("Escape");
    await complete(page);
  },
  async "edits and sends again"({ page, server }) {
    await say(page, "one");
    await complete(page);
    await say(page, "two");
    await complete(page);
    await button(page, "Edit").first().click();
    await page.getByRole("textbox", { name: "Edit your message" }).fill("three");
    await button(page, "Send again").click();
    await page.getByText("You said: three").waitFor();
    assert.deepEqual(server.requests.at(-1).messages, [{ role: "user", content: "three" }]);
    assert.equal(await page.locator(".asked").count(), 1);
  },
  async "settings and model arrive in the request"({ page, server }) {
    await page.getByRole("combobox", { name: "Model" }).selectOption("SmolLM2-135M-Instruct");
    await button(page, "Settings").click();
    await page.getByLabel("System prompt").fill("Be brief.");
    const numbers = {
      Temperature: "0.5", "Top p": "0.9", "Top k": "40", "Min p": "0.05", "Most tokens": "64", Seed: "7",
    };
    for (const [label, value] of Object.entries(numbers)) await page.getByLabel(label).fill(value);
    await page.getByLabel("Thinking").selectOption("false");
    await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
    await page.reload();
    await say(page, "hi");
    await complete(page);
    const { path, messages, ...rest } = server.requests[0];
    assert.equal(path, "/v1/chat/completions");
    assert.deepEqual(messages[0], { role: "system", content: "Be brief." });
    assert.deepEqual(rest, {
      model: "SmolLM2-135M-Instruct", temperature: 0.5, top_p: 0.9, top_k: 40, min_p: 0.05,
      max_tokens: 64, seed: 7, chat_template_kwargs: { enable_thinking: false }, stream: true,
      stream_options: { include_usage: true },
    });
  },
  async "thoughts are folded and not sent again"({ page, server }) {
    await say(page, "think about the cache");
    await complete(page);
    assert.equal(await page.getByText("They ask about").isVisible(), false);
    await page.getByText("Thoughts").click();
    assert.equal(await page.getByText("They ask about").isVisible(), true);
    await say(page, "more");
    await complete(page);
    assert.ok(!JSON.stringify(server.requests[1]).includes("They ask about"));
  },
  async "a tool runs when allowed"({ page, server }) {
    await page.getByLabel("Agent").check();
    await say(page, "count lines");
    await page.getByText("wc -l src/core/base/*.cpp").waitFor();
    await accessible(page);
    await button(page, "Allow once").click();
    await page.getByText("There are 1204 lines.").waitFor();
    assert.match(await answer(page).innerText(), /I will count[^]*wc -l[^]*There are 1204/);
    await complete(page);
    assert.deepEqual(server.approvals, [{ run: "run-1", id: "1", approve: true }]);
    assert.deepEqual(server.requests[0].tools_allowed, ["search", "shell", "files"]);
    const links = await page.locator(".sources a").evaluateAll((all) => all.map((a) => a.href));
    assert.deepEqual(links, ["https://example.org/wc"]);
  },
  async "a tool does not run when refused"({ page, server }) {
    await page.getByLabel("Agent").check();
    await say(page, "count lines");
    await button(page, "Refuse").click();
    await page.getByText("I did not run it.").waitFor();
    await complete(page);
    assert.equal(server.approvals[0].approve, false);
    assert.equal(await page.locator(".step.refused").count(), 1);
  },
  async "asks for the token, keeps it, and goes on"({ page, server, url }) {
    server.token = "secret";
    await page.goto(url);
    await page.locator("input[type=password]").fill("wrong");
    await page.keyboard.press("Enter");
    await page.locator("input[type=password]").fill("secret");
    await page.keyboard.press("Enter");
    await until(() => page.getByRole("dialog").count().then((n) => n === 0), "an end of asking");
    await page.reload();
    await say(page, "hi");
    await page.getByText("You said: hi").waitFor();
    server.token = "changed";
    await complete(page);
    await say(page, "again");
    await page.locator("input[type=password]").fill("changed");
    await page.keyboard.press("Enter");
    await page.getByText("You said: again").waitFor();
  },
  async "an error is one sentence"({ page }) {
    await say(page, "overload");
    await page.getByText("too many requests wait; try again later").waitFor();
    await button(page, "New conversation").click();
    await say(page, "break");
    await page.getByText("the model's file could not be read").waitFor();
    assert.match(await answer(page).innerText(), /Half/);
  },
  async "a server that is gone is said to be"({ page, server }) {
    await page.getByText("runs on this machine").waitFor();
    server.stop();
    await say(page, "anyone?");
    await page.getByText("The server does not answer").waitFor();
  },
  async "nothing in an answer runs"({ page }) {
    const outside = [];
    page.on("request", (request) => {
      if (request.url().includes("example.org")) outside.push(request.url());
    });
    await say(page, "hostile");
    await complete(page);
    for (const link of await page.locator(".prose a").all()) {
      assert.match(await link.getAttribute("href"), /^https?:/);
    }
    const bad = "script, img, svg, iframe, [onclick], [onerror], [onload], [style]";
    assert.equal(await page.locator(`.prose :is(${bad})`).count(), 0);
    assert.equal(await page.evaluate(() => globalThis.ran), undefined);
    assert.deepEqual(outside, []);
  },
  async "the plain page asks, answers and runs nothing"({ page }) {
    const folder = await mkdtemp(join(tmpdir(), "sluice-page-"));
    const here = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url));
    execFileSync("python3", [here("embed.py"), here("fallback.html"), join(folder, "page.cpp")]);
    const server = await standIn(here("fallback.html"), join(folder, "page.cpp.policy"));
    await rm(folder, { recursive: true });
    try {
      await page.goto(await server.start());
      await field(page).fill("<img src=x onerror='window.ran=1'>");
      await button(page, "Send").click();
      await page.getByText("You said: <img").waitFor();
      assert.equal(await page.locator("img").count(), 0);
      await field(page).fill("overload");
      await button(page, "Send").click();
      await page.getByText("too many requests wait").waitFor();
      await accessible(page);
    } finally {
      server.stop();
    }
  },
  async "code is copied"({ page, context }) {
    await context.grantPermissions(["clipboard-read", "clipboard-write"]);
    await say(page, "the cache");
    await complete(page);
    await page.locator(".code").getByText("Copy").click();
    await page.getByText("Copied").waitFor();
    assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^def step/);
  },
  async "conversations go out to a file and come back"({ page }) {
    await say(page, "export me");
    await complete(page);
    const [saved] = await Promise.all([page.waitForEvent("download"), button(page, "Export").click()]);
    const file = await saved.path();
    await page.getByLabel("Import file").setInputFiles(file);
    await until(async () => (await page.locator(".sidebar li").count()) === 2, "two conversations");
    await page.getByLabel("Import file").setInputFiles({
      name: "x.json", mimeType: "application/json", buffer: Buffer.from("{]"),
    });
    await page.getByText("holds no conversations").waitFor();
  },
  async "gauges and the report"({ page }) {
    await button(page, "Gauges").click();
    await page.getByText("tokens/s", { exact: true }).waitFor();
    await page.getByText("of 8.0 GB").waitFor();
    await page.getByText(/8\d %/).waitFor();
    assert.equal(await page.locator(".gauge canvas").count(), 5);
    await accessible(page);
    await button(page, "Report").click();
    await page.frameLocator("iframe").getByText("The fit report").waitFor();
    assert.equal(await page.locator("iframe").getAttribute("sandbox"), "");
  },
  async "works by keyboard alone"({ page }) {
    await page.getByText("runs on this machine").waitFor();
    await page.keyboard.type("hello");
    await page.keyboard.press("Enter");
    await page.getByText("You said: hello").waitFor();
    await complete(page);
    const seen = new Set();
    for (let i = 0; i < 24; ++i) {
      await page.keyboard.press("Tab");
      seen.add(await page.evaluate(() => {
        const at = document.activeElement;
        return at?.getAttribute("aria-label") ?? at?.textContent ?? "";
      }));
    }
    for (const name of ["Model", "Settings", "New conversation", "Edit", "Retry", "Conversation"]) {
      assert.ok(seen.has(name), `Tab never reached ${name}: ${[...seen].join(", ")}`);
    }
    await button(page, "Settings").focus();
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await accessible(page);
    await page.keyboard.press("Escape");
    await until(() => page.getByRole("dialog").count().then((n) => n === 0), "a closed dialog");
    assert.equal(await page.evaluate(() => document.activeElement?.textContent), "Settings");
  },
  async "fits a phone"({ page }) {
    await page.setViewportSize({ width: 320, height: 640 });
    await say(page, "the cache");
    await complete(page);
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= 320, `the page is ${width} pixels wide`);
    await button(page, "Conversations").click();
    await button(page, "New conversation").click();
    await page.getByText("What shall we work on?").waitFor();
    await accessible(page);
  },
  async "dark and light, by the system and by the switch"({ page }) {
    const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    await page.emulateMedia({ colorScheme: "light" });
    const light = await paper();
    await page.emulateMedia({ colorScheme: "dark" });
    const dark = await paper();
    assert.notEqual(light, dark);
    await say(page, "the cache");
    await complete(page);
    await accessible(page);
    await button(page, "Settings").click();
    await page.getByLabel("Appearance").selectOption("light");
    await until(async () => (await paper()) === light, "a light page");
    await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
    await accessible(page);
  },
};

async function run(browser, name, test) {
  const server = real ? undefined : await standIn(pagePath, policyPath);
  const url = real ?? (await server.start());
  const context = await browser.newContext({ viewport: { width: 1180, height: 800 } });
  if (real) {
    // A small model may go on to the end of its context.
    await context.addInitScript((max_tokens) => {
      localStorage["sluice.settings"] ??= JSON.stringify({ max_tokens, seed: 1 });
    }, isScripted ? 20000 : 24);
  }
  const page = await context.newPage();
  page.setDefaultTimeout(120000);  // weights from disk on a busy machine: a prompt took half a minute
  const broken = [];
  page.on("pageerror", (error) => broken.push(String(error)));
  page.on("console", (line) => {
    if (/Content Security Policy/.test(line.text())) broken.push(line.text());
  });
  try {
    await page.goto(url);
    await test({ page, context, server, url });
    assert.deepEqual(broken, []);
    console.log(`ok   ${name}`);
    return true;
  } catch (error) {
    console.log(`FAIL ${name}\n${error.stack}\n${broken.join("\n")}`);
    return false;
  } finally {
    await context.close();
    server?.stop();
  }
}

const browser = await openBrowser();
if (!browser) {
  console.log("skipped: needs the package chromium");
  process.exit(77);
}
let failed = 0;
for (const [name, test] of Object.entries({ ...both, ...(isScripted ? scripted : {}), ...(real ? {} : alone) })) {
  if (wanted.length > 0 && !wanted.some((part) => name.includes(part))) continue;
  if (!(await run(browser, name, test))) ++failed;
}
await browser.close();
process.exit(failed === 0 ? 0 : 1);
