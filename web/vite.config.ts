// Builds the page into api/static: relative addresses, so that it works behind any path prefix; hashed names, which the
// API serves as immutable. `npm run dev` talks to a service on its usual port.
import { defineConfig } from "vitest/config";

export default defineConfig({
  base: "./",
  build: {
    outDir: "../api/static",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
  },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  server: {
    proxy: { "/v1": "http://127.0.0.1:8080", "/openapi.json": "http://127.0.0.1:8080", "/readyz": "http://127.0.0.1:8080" },
  },
  test: { include: ["tests/**/*.test.ts"] },
});
