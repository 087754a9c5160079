// One HTML file with everything within: the server serves it under a policy that loads nothing.
import { defineConfig } from "vite";
import { viteSingleFile } from "vite-plugin-singlefile";

export default defineConfig({
  plugins: [viteSingleFile({ removeViteModuleLoader: true })],
  build: { target: "es2022", modulePreload: false, reportCompressedSize: false },
  test: { include: ["tests/*.test.ts"] },
} as Parameters<typeof defineConfig>[0]);
