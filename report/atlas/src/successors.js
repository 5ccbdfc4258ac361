// Successor scores: by how many members of a class each head raises the next one most. A map of heads, the rows of the
// drawer, and the same as metrics of the Matrix view.
import { at, classWords, isMlp, nameOf, NEXT, spoken } from "./data.js";
import { h, table, tips } from "./dom.js";
import { count, fixed, p } from "./format.js";
import { grid } from "./grid.js";
import { byMetric, drawBar, drawLegend } from "./look.js";

const rowsOf = (model) => model.order?.successors?.rows ?? [];

/** Targets of a class, as groups of [key, words] for a list. */
export function targetsOf(model, name) {
  const groups = new Map();
  for (const row of rowsOf(model))
    if (row.class === name) groups.set(row.group, [...(groups.get(row.group) ?? []), [row.target, row.words]]);
  return [...groups];
}

/** The scores of a class towards a target, or null. */
export const scoresOf = (model, name, target) =>
  rowsOf(model).find((row) => row.class === name && row.target === target) ?? null;

/** "0.83 of 12 members". */
const wording = (row, id) =>
  at(row.value, id) == null ? "not computed" : `${fixed(at(row.value, id), 2)} of ${count(row.members, "member")}`;

/** What the scores are held against: random heads, and what is there without a head. */
function beside({ random, alone }) {
  const parts = [];
  if (random?.high != null)
    parts.push(`random heads ${fixed(random.median, 2)}, 97.5\u00a0% of them at most ${fixed(random.high, 2)}`);
  if (alone?.value != null) parts.push(`no head at all ${fixed(alone.value, 2)} (p ${p(alone.p)})`);
  return parts.join("; ");
}

/** The map of all heads, and what stands below it. */
export function successorMap(ctx, row, width) {
  const { model, task, circuit } = ctx;
  const metric = { scale: row.centre ? "diverging" : "sequential", unit: "", centre: row.centre ?? 0, table: row };
  const heads = { ids: model.ids.filter((id) => !isMlp(model, id)) };
  const colours = byMetric({ ...model, ...heads }, task, metric);
  const sure = new Set(row.sure);
  const svg = grid(model, width, successorAlt(ctx, row), {
    look: colours.look,
    outlined: new Set(circuit?.members),
    dotted: sure,
    selected: ctx.selected,
    extra: 84,
    text: (id) => (at(row.value, id) == null ? null : fixed(at(row.value, id), 2)),
    options: { widest: 60, tallest: 24, whole: 420, mlps: false },
  });
  const node = svg.node();
  const { m } = node.layout;
  const down = drawBar(svg, colours.bar, m.left, m.height + 8, Math.min(240, width - m.left - 30));
  drawLegend(
    svg,
    [
      { fill: "var(--paper)", stroke: "var(--ink)", text: `in the circuit shown (${task.words})` },
      { fill: "var(--ink)", stroke: "none", round: true, text: "sure: corrected p < 0.05" },
    ],
    m.left,
    m.height + 12 + down,
    Math.max(300, width) - m.left,
  );
  tips(node, (id) =>
    typeof id !== "number"
      ? null
      : [
          spoken(model, id),
          wording(row, id),
          beside(row),
          `corrected p ${p(at(row.p, id))}`,
          circuit?.members.includes(id) ? "in the circuit shown" : "not in the circuit shown",
        ],
  );
  node.addEventListener("click", ({ target }) => typeof target.__data__ === "number" && ctx.open(target.__data__));
  return [h("div", { class: "wide" }, node), h("p", { class: "note" }, about(ctx, row))];
}

export function successorAlt({ model }, row) {
  const sure = row.sure.length ? `sure are ${row.sure.map((id) => nameOf(model, id)).join(", ")}` : "none is sure";
  return `Successor scores of all heads on ${classWords(model, row.class)}, ${row.words}, ${row.group}: ${sure}. The table below says the same.`;
}

function about({ model }, row) {
  const held = beside(row);
  return `${row.about} ${held ? `Beside it: ${held}.` : ""}`.trim();
}

/** Lines of the drawer: a head's score on every class towards one target. */
export function successorSection(ctx, id) {
  const { model, state, set } = ctx;
  if (isMlp(model, id)) return null;
  const known = rowsOf(model).filter((row) => at(row.value, id) != null);
  const wanted = [state.target, NEXT].find((target) => known.some((row) => row.target === target));
  const rows = known.filter((row) => row.target === (wanted ?? known[0].target));
  if (!rows.length) return null;
  return h(
    "section",
    {},
    h("h3", {}, `Successor scores: ${rows[0].words}, ${rows[0].group}`),
    h(
      "div",
      { class: "wide" },
      table(
        ["class", "score", "random, 97.5 %", "corrected p"],
        rows.map((row) => [
          `${classWords(model, row.class)}${row.sure.includes(id) ? " \u2022" : ""}`,
          fixed(at(row.value, id), 2),
          row.random?.high == null ? "n/a" : fixed(row.random.high, 2),
          p(at(row.p, id)),
        ]),
      ),
    ),
    h(
      "p",
      { class: "note" },
      `${rows[0].about} \u2022: sure. `,
      state.view === "order"
        ? null
        : h("button", { type: "button", class: "name", onclick: () => set({ view: "order" }) }, "All heads: Order"),
    ),
  );
}

/** The table of a map: all heads, the largest scores first. */
export function successorTable({ model }, row) {
  const ids = model.ids.filter((id) => at(row.value, id) != null);
  ids.sort((a, b) => at(row.value, b) - at(row.value, a) || a - b);
  return {
    title: `Successor scores, ${classWords(model, row.class)}, ${row.words}, ${row.group}`,
    name: `successors-${row.class}-${row.target}`,
    header: ["head", "score", "random heads, median", "random heads, 97.5 %", "corrected p", "sure"],
    rows: ids.map((id) => [
      nameOf(model, id),
      at(row.value, id),
      row.random?.median ?? null,
      row.random?.high ?? null,
      at(row.p, id),
      row.sure.includes(id) ? 1 : 0,
    ]),
  };
}
