// Colours of the figures (scripts/atlas/report/style.py, settings of `figures`), for light and dark paper. Classes are
// told apart by lightness or shape too, so that no meaning hangs on hue alone.
import { scaleLinear } from "d3-scale";

export function dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

const DIVERGING = {
  light: ["#b2182b", "#ef8a62", "#f4f4f2", "#67a9cf", "#2166ac"],
  dark: ["#ff8a80", "#a8434a", "#262b31", "#3f79ad", "#9cc9f0"],
};
const SEQUENTIAL = {
  light: ["#f1f4f8", "#a9c4df", "#4477aa", "#1a3a5e"],
  dark: ["#20262d", "#2f5579", "#6ea3d8", "#dcebf9"],
};

/** Colour of a value between -1 and 1 (0: no effect). */
export function diverging() {
  return scaleLinear([-1, -0.5, 0, 0.5, 1], DIVERGING[dark() ? "dark" : "light"]).clamp(true);
}

/** Colour of a share between 0 and 1. */
export function sequential() {
  return scaleLinear([0, 1 / 3, 2 / 3, 1], SEQUENTIAL[dark() ? "dark" : "light"]).clamp(true);
}

/** Black or white, whichever reads better on a colour. */
export function inkOn(colour) {
  const [r, g, b] = (
    colour.startsWith("#")
      ? colour
          .slice(1)
          .match(/../g)
          .map((x) => parseInt(x, 16))
      : colour.match(/[\d.]+/g)
  ).map(Number);
  return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#222222" : "#ffffff";
}

const PALETTE = [
  "#4477aa",
  "#ee6677",
  "#228833",
  "#ccbb44",
  "#66ccee",
  "#aa3377",
  "#dd8833",
  "#994455",
  "#999933",
  "#44aa99",
];
const PALETTE_DARK = [
  "#77aadd",
  "#ee8899",
  "#55bb77",
  "#ddcc66",
  "#88ddee",
  "#dd77bb",
  "#eeaa66",
  "#cc8899",
  "#bbbb66",
  "#77ccbb",
];

/** Labels in the order of their frequency, each with a colour; beyond the palette all are grey. */
export function roleColours(task) {
  const counts = new Map();
  for (const role of task.roleOf.values()) if (role.label) counts.set(role.label, (counts.get(role.label) ?? 0) + 1);
  const palette = dark() ? PALETTE_DARK : PALETTE;
  return new Map(
    [...counts]
      .sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]))
      .map(([label], i) => [label, palette[i] ?? "var(--faint)"]),
  );
}

export const KIN = {
  all: { fill: "var(--circuit)", stroke: "var(--ink)", text: "in the circuits of all main tasks" },
  some: { fill: "url(#hatch)", stroke: "var(--circuit)", text: "in some of them" },
  only: { fill: "var(--clean)", stroke: "var(--ink)", text: "in one task's alone" },
};
export const CLASS = {
  core: { fill: "var(--core)", stroke: "var(--ink)", text: "core: kept by at least 90 % of searches" },
  contingent: { fill: "var(--contingent)", stroke: "var(--ink)", text: "contingent: by 10 to 90 %" },
  noise: { fill: "var(--paper)", stroke: "var(--grey)", text: "noise: by under 10 %" },
};
