// Bundles src/ into the one script of the atlas page: npm ci && npm run build. The bundle begins with the digest of its
// sources, which tests/report/test_atlas_bundle.py computes again (a change of src/ without a build fails there), and
// with the licences of the packages in it, which ask to stand in every copy.
import { createHash } from "node:crypto";
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2] ?? join(here, "../../scripts/atlas/report/atlas/bundle.js");

function digest() {
  const hash = createHash("sha256");
  const modules = readdirSync(join(here, "src"))
    .filter((name) => name.endsWith(".js"))
    .sort();
  for (const path of ["package-lock.json", ...modules.map((name) => `src/${name}`)]) {
    hash
      .update(path)
      .update("\0")
      .update(readFileSync(join(here, path)))
      .update("\0");
  }
  return hash.digest("hex");
}

/** Each licence text once, under the names and versions of the packages that come with it. */
function licences(inputs) {
  const packages = new Set(inputs.map((path) => /node_modules\/([^/]+)/.exec(path)?.[1]).filter(Boolean));
  const texts = new Map();
  for (const name of [...packages].sort()) {
    const folder = join(here, "node_modules", name);
    const file = ["LICENSE", "LICENSE.md", "LICENSE.txt"].map((f) => join(folder, f)).find(existsSync);
    const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const text = readFileSync(file, "utf8").trim();
    texts.set(text, [...(texts.get(text) ?? []), `${name} ${version}`]);
  }
  return [...texts].map(([text, names]) => `${names.join(", ")}:\n\n${text}`).join("\n\n");
}

const made = await build({
  entryPoints: [join(here, "src/main.js")],
  absWorkingDir: here,
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2020",
  charset: "utf8",
  legalComments: "none",
  metafile: true,
  write: false,
});
const head = `/* sources sha256:${digest()}\n\n${licences(Object.keys(made.metafile.inputs))} */\n`;
writeFileSync(target, head + made.outputFiles[0].text.replaceAll("</", "<\\/"));
