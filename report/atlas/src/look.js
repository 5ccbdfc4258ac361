// How a component is coloured by a metric or a class: {fill, stroke, text} of an id, and the legend that explains it.
import { create } from "d3-selection";
import { CLASS, diverging, KIN, roleColours, sequential } from "./colours.js";
import { at, effect, isMlp, kinOf } from "./data.js";
import { fixed, quantity } from "./format.js";

/** A member of the circuit that the classes shown say nothing of. */
export const UNCLASSED = { fill: "var(--ghost)", stroke: "var(--ink)" };
const NONE = { fill: "var(--paper)", stroke: "var(--faint)" };

function kinText(model, kin) {
  if (model.main.length === 1) return "in the reported circuit";
  return kin === "all" && model.main.length === 2 ? "in both main tasks' circuits" : KIN[kin].text;
}

/** Colouring by classes: sharing, stability or role. `look(id)` is null for what belongs to no class. */
export function byClass(model, task, scheme) {
  if (scheme === "role") {
    const colours = roleColours(task);
    return {
      look: (id) => {
        const label = task.roleOf.get(id)?.label;
        return label ? { fill: colours.get(label), stroke: "var(--ink)", text: label } : null;
      },
      legend: [...colours].map(([label, fill]) => ({ fill, stroke: "var(--ink)", text: label })),
      empty: "No roles were computed for this task.",
    };
  }
  if (scheme === "stability") {
    const used = new Set(task.class ?? []);
    return {
      look: (id) => CLASS[task.class?.[id]] ?? null,
      legend: Object.entries(CLASS)
        .filter(([name]) => used.has(name))
        .map(([, entry]) => entry),
      empty: "The search was not repeated for this task, so no stability is known.",
    };
  }
  const used = new Set(model.ids.map((id) => kinOf(model, id)));
  return {
    look: (id) => {
      const kin = kinOf(model, id);
      return kin && { ...KIN[kin], text: kinText(model, kin) };
    },
    legend: ["all", "some", "only"]
      .filter((kin) => used.has(kin))
      .map((kin) => ({ ...KIN[kin], text: kinText(model, kin) })),
    empty: "No task of this study has a circuit.",
  };
}

/** The end of a diverging scale: the largest distance from the centre of a head; MLPs may lie beyond it. */
function reach(model, metric) {
  const distances = (ids) => {
    const values = ids.map((id) => at(metric.table.value, id)).filter((value) => value != null);
    return values.map((value) => Math.abs(value - metric.centre));
  };
  const heads = distances(model.ids.filter((id) => !isMlp(model, id)));
  const top = Math.max(0, ...heads) || Math.max(0, ...distances(model.ids)) || 1;
  return { top, beyond: distances(model.ids).filter((distance) => distance > top).length };
}

const root = (share) => Math.sign(share) * Math.sqrt(Math.abs(share));

/** Colouring by a metric of metricsOf: look(id), and a scale or a legend. */
export function byMetric(model, task, metric) {
  const scheme = { role: "role", class: "stability", kin: "sharing" }[metric.scale];
  if (scheme) {
    const classes = byClass(model, task, scheme);
    return { ...classes, look: (id) => classes.look(id) ?? NONE };
  }
  // Of diverging scales colour grows with the square root: a few components do most, and the rest should be seen too
  const both = metric.scale === "diverging";
  const largest = Math.max(1e-9, ...model.ids.map((id) => at(metric.table.value, id) ?? 0));
  const { top, beyond } = both ? reach(model, metric) : { top: largest <= 1 ? 1 : largest, beyond: 0 };
  const paint = both ? diverging() : sequential();
  const colour = (value) => paint(both ? root((value - metric.centre) / top) : value / top);
  const bar = {
    unit: metric.unit,
    note: [
      both ? "colour grows with the square root of the distance" : null,
      beyond ? `${beyond} beyond the ends` : null,
    ],
    shade: (share) => paint(both ? 2 * share - 1 : share),
    labels: both ? [-1, -0.25, 0, 0.25, 1].map((share) => metric.centre + top * share) : [0, top / 2, top],
  };
  return {
    look: (id) => {
      const { value } = effect(metric.table, id);
      return value == null ? { ...NONE, missing: true } : { fill: colour(value), stroke: "none", value };
    },
    bar,
    colour,
  };
}

/** A row of swatches with their meaning, as part of a drawing; gives its height. */
export function drawLegend(svg, entries, x, y, width) {
  const group = svg.append("g").attr("class", "legend").attr("transform", `translate(${x},${y})`);
  let [across, down] = [0, 0];
  for (const entry of entries) {
    const room = 22 + entry.text.length * 6.3;
    if (across && across + room > width) [across, down] = [0, down + 18];
    const item = group.append("g").attr("transform", `translate(${across},${down})`);
    if (entry.note) {
      // words alone
    } else if (entry.dash || entry.line) {
      item
        .append("line")
        .attr("x1", 0)
        .attr("x2", 13)
        .attr("y1", 6)
        .attr("y2", 6)
        .attr("class", "edge")
        .attr("stroke-dasharray", entry.dash ?? null)
        .style("stroke", entry.stroke)
        .style("stroke-width", 1.8);
    } else {
      item
        .append(entry.round ? "circle" : "rect")
        .attr("width", 11)
        .attr("height", 11)
        .attr("cx", 6)
        .attr("cy", 6)
        .attr("r", 5.5)
        .style("fill", entry.fill)
        .style("stroke", entry.stroke);
    }
    item.append("text").attr("x", 17).attr("y", 10).text(entry.text);
    across += room + 8;
  }
  return entries.length ? down + 18 : 0;
}

/** A colour bar with its numbers; gives its height. */
export function drawBar(svg, { shade, labels, unit, note }, x, y, width = 260) {
  const group = svg.append("g").attr("class", "legend").attr("transform", `translate(${x},${y})`);
  const steps = 48;
  for (let i = 0; i < steps; i++) {
    group
      .append("rect")
      .attr("x", (i * width) / steps)
      .attr("width", width / steps + 0.5)
      .attr("height", 9)
      .style("fill", shade((i + 0.5) / steps));
  }
  const last = labels.length - 1;
  const every = width < 250 && last === 4 ? 2 : 1; // where five numbers have no room
  labels.forEach((label, i) => {
    if (i % every) return;
    group
      .append("text")
      .attr("x", (i * width) / last)
      .attr("y", 21)
      .attr("text-anchor", i === 0 ? "start" : i === last ? "end" : "middle")
      .text(i === last ? quantity(label, unit) : fixed(label, unit === "%" ? 1 : 2));
  });
  group.append("text").attr("y", 34).attr("class", "faint").text(note.filter(Boolean).join("; "));
  return note.some(Boolean) ? 42 : 28;
}

/** An empty drawing; `alt` is its text alternative. */
export function drawing(width, height, alt) {
  return create("svg")
    .attr("class", "figure")
    .attr("viewBox", `0 0 ${width} ${height}`)
    .attr("width", width)
    .attr("height", height)
    .attr("role", "img")
    .attr("aria-label", alt);
}
