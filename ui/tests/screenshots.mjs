// Takes the pictures of docs/images: the page against the stand-in server.
//
//   node ui/tests/screenshots.mjs PAGE.html POLICY FOLDER
import { join } from "node:path";
import { openBrowser } from "./browser.mjs";
import { standIn } from "./stand_in_server.mjs";

const [, , pagePath, policyPath, folder] = process.argv;
const server = await standIn(pagePath, policyPath);
const url = await server.start();
const browser = await openBrowser();
if (!browser) throw new Error("needs the package chromium");

async function picture(name, { width, height, scheme, agent = false, gauges = false }) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme });
  const page = await context.newPage();
  await page.goto(url);
  await page.getByText("runs on this machine").waitFor();
  const say = async (text) => {
    const field = page.getByRole("textbox", { name: "Message", exact: true });
    await field.fill(text);
    await field.press("Enter");
  };
  const complete = () => page.getByText("Answer complete").waitFor({ state: "attached" });
  if (gauges) {
    for (const title of ["Plan of the week", "Which quantization for 16 GB?"]) {
      await say(title);
      await complete();
      await page.getByRole("button", { name: "New conversation" }).click();
    }
    await page.getByRole("button", { name: "Gauges" }).click();
  }
  if (agent) {
    await page.getByLabel("Agent").check();
    await say("How many lines of C++ are in core/base?");
    await page.getByText("Allow once").waitFor();
  } else {
    await say("I think about inference: what does the key-value cache do?");
    await complete();
  }
  if (gauges) await page.waitForTimeout(13000); // for something to see in the gauges
  await page.screenshot({ path: join(folder, `${name}.png`) });
  await context.close();
}

const desktop = { width: 1180, height: 780 };
await Promise.all([
  picture("page_light", { ...desktop, scheme: "light", gauges: true }),
  picture("page_dark", { ...desktop, scheme: "dark", gauges: true }),
  picture("page_phone", { width: 390, height: 780, scheme: "light" }),
  picture("page_agent", { ...desktop, height: 560, scheme: "light", agent: true }),
]);
await browser.close();
server.stop();
