// Builds the page into the Python package, and notes there which sources it was built from (tests/test_studio_build.py
// compares). `npm run dev` serves it with reload and passes /api on to a running `reverie studio`.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { defineConfig } from "vite";

const HERE = import.meta.dirname;
const OUT = join(HERE, "../src/reverie/studio/page");
const SOURCES = ["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.js"];

/** sha256 over "path, zero byte, content" of every source in the order of their paths. */
function fingerprint() {
  const inside = readdirSync(join(HERE, "src"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(HERE.length + 1));
  const hash = createHash("sha256");
  for (const path of [...SOURCES, ...inside].sort()) hash.update(path + "\0").update(readFileSync(join(HERE, path)));
  return hash.digest("hex");
}

/** The licences of what the built page holds of others: its library and its typeface. */
function licences() {
  const packages = ["preact", "@fontsource/newsreader"];
  return packages.map((name) => `${name}\n\n${readFileSync(join(HERE, "node_modules", name, "LICENSE"), "utf8")}`).join("\n\n");
}

const notes = {
  name: "notes",
  apply: "build",
  closeBundle() {
    writeFileSync(join(OUT, "sources.json"), JSON.stringify({ sha256: fingerprint() }) + "\n");
    writeFileSync(join(OUT, "licences.txt"), licences());
  },
};

export default defineConfig({
  base: "./",
  plugins: [notes],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  server: { proxy: { "/api": process.env.STUDIO || "http://127.0.0.1:8760" } },
  build: {
    outDir: OUT,
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: {
      output: {
        entryFileNames: "page.js",
        chunkFileNames: "[name].js",
        assetFileNames: "[name][extname]",
      },
    },
  },
});
