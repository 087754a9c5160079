// A headless Chromium for tests and screenshots: Debian's package, a Chrome, or the one named by
// CHROMIUM.
import { execFileSync } from "node:child_process";
import { chromium } from "playwright-core";

function found() {
  for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
    try {
      return execFileSync("sh", ["-c", `command -v ${name}`], { encoding: "utf8" }).trim();
    } catch {
      // The next one.
    }
  }
  return undefined;
}

// Undefined: there is none on this machine.
export async function openBrowser() {
  const executablePath = process.env.CHROMIUM ?? found();
  return executablePath && chromium.launch({ executablePath, args: ["--no-sandbox"] });
}
