// Every head and MLP of the model, coloured by one metric; sorted within layers or ranked; a rectangle can be selected.
import { select } from "d3-selection";
import { scaleLinear } from "d3-scale";
import { at, effect, headOf, idOf, isMlp, layerOf, metricsOf, nameOf, spoken } from "./data.js";
import { button, choice, h, table, tips } from "./dom.js";
import { estimate, fixed, interval, quantity, sizes } from "./format.js";
import { grid, mark } from "./grid.js";
import { byMetric, drawBar, drawing, drawLegend } from "./look.js";

const ORDERS = [
  ["model", "as in the model"],
  ["layer", "within each layer"],
  ["rank", "ranked"],
];
const RANKED = 60;

function chosen({ model, task, prompt, state }) {
  const metrics = metricsOf(model, task, prompt);
  return { metrics, metric: metrics.find(({ key }) => key === state.metric) ?? metrics[0] ?? null };
}

const distance = (metric, id) => {
  const value = at(metric.table?.value, id);
  return value == null ? -1 : Math.abs(value - metric.centre);
};

/** Head columns by size of the metric within each layer, largest first: id -> column. */
function within(model, metric) {
  const columns = new Map();
  for (let layer = 0; layer < model.n_layers; layer++) {
    const heads = model.ids.filter((id) => layerOf(model, id) === layer && !isMlp(model, id));
    heads.sort((a, b) => distance(metric, b) - distance(metric, a) || a - b).forEach((id, i) => columns.set(id, i));
  }
  return columns;
}

/** Ids in the rectangle of state.select ("0.0:3.4"); an MLP counts as the last column. */
function selection({ model, state }, column) {
  const [a, b] = (state.select ?? "").split(":").map((name) => idOf(model, name));
  if (a == null || b == null) return [];
  const place = (id) => [layerOf(model, id), isMlp(model, id) ? model.n_heads : (column?.(id) ?? headOf(model, id))];
  const [[l1, c1], [l2, c2]] = [place(a), place(b)];
  return model.ids.filter((id) => {
    const [l, c] = place(id);
    return l >= Math.min(l1, l2) && l <= Math.max(l1, l2) && c >= Math.min(c1, c2) && c <= Math.max(c1, c2);
  });
}

function wording({ model, task }, metric, id) {
  if (metric.table) return estimate(effect(metric.table, id), metric.unit);
  return byMetric(model, task, metric).look(id).text ?? "none";
}

function columnsOf(ctx, metric) {
  if (ctx.state.sort !== "layer" || !metric?.table) return undefined;
  const columns = within(ctx.model, metric);
  return (id) => columns.get(id) ?? ctx.model.n_heads;
}

export const matrix = {
  title: "Matrix",

  key: ({ model, task, state, prompt }) =>
    [model.name, task.name, state.metric, state.sort, prompt?.prompt, Boolean(state.select)].join("|"),

  controls(ctx) {
    const { state, set } = ctx;
    const { metrics, metric } = chosen(ctx);
    if (!metric) return [h("p", { class: "note" }, "No score of components was computed for this task.")];
    const group = (test) => metrics.filter(({ key }) => test(key)).map(({ key, title }) => [key, title]);
    const made = [
      choice(
        "metric",
        "Metric",
        [
          ["Over all prompts", group((key) => !/^(here|role|class|kin|successor)/.test(key))],
          ["Order", group((key) => key.startsWith("successor"))],
          ["Classes", group((key) => /^(role|class|kin)$/.test(key))],
          ["On one prompt", group((key) => key.startsWith("here"))],
        ],
        metric.key,
        (key) => set({ metric: key }),
      ),
    ];
    if (metric.table)
      made.push(choice("sort", "Order", [["", ORDERS]], state.sort, (sort) => set({ sort, select: null })));
    if (state.select) made.push(button("Clear selection", () => set({ select: null })));
    return made;
  },

  draw(ctx, box) {
    const { model, task, state, circuit } = ctx;
    const { metric } = chosen(ctx);
    if (!metric) return;
    const width = Math.min(ctx.width, 1080);
    if (state.sort === "rank" && metric.table) {
      box.append(ranking(ctx, metric, width));
      return;
    }
    const colours = byMetric(model, task, metric);
    const column = columnsOf(ctx, metric);
    const digits = metric.unit === "%" ? 0 : 2;
    const svg = grid(model, width, matrix.alt(ctx), {
      look: colours.look,
      outlined: new Set(circuit?.members),
      selected: ctx.selected,
      column,
      extra: 76,
      text: metric.table
        ? (id) => (at(metric.table.value, id) == null ? null : fixed(at(metric.table.value, id), digits))
        : null,
    });
    const node = svg.node();
    const { m } = node.layout;
    const down = colours.bar
      ? drawBar(svg, colours.bar, m.left, m.height + 8)
      : drawLegend(svg, colours.legend, m.left, m.height + 8, Math.max(m.width, 320) - m.left);
    drawLegend(
      svg,
      [{ fill: "var(--paper)", stroke: "var(--ink)", text: "outlined: in the circuit shown" }],
      m.left,
      m.height + 12 + down,
      width,
    );
    box.append(node);
    const held = selection(ctx, column);
    select(node)
      .selectAll("rect.cell")
      .classed("held", (id) => held.includes(id));
    if (held.length) box.append(summary(ctx, metric, held));
    tips(node, (id) =>
      typeof id !== "number"
        ? null
        : [
            spoken(model, id),
            wording(ctx, metric, id),
            metric.title,
            circuit?.members.includes(id) ? "in the circuit shown" : "not in the circuit shown",
          ],
    );
    dragging(ctx, node);
  },

  highlight(ctx, box) {
    const node = box.querySelector("svg.figure");
    if (node) mark(node, ctx.model, ctx.selected);
  },

  alt(ctx) {
    const { model, task } = ctx;
    const { metric } = chosen(ctx);
    return metric
      ? `${metric.title} of every head and MLP of ${model.name} on ${task.words}: ${model.n_layers} layers from top to bottom, ${model.n_heads} heads from left to right, the MLP at the right. The table below says the same.`
      : "Nothing to draw.";
  },

  caption(ctx) {
    const { metric } = chosen(ctx);
    if (!metric) return "";
    const cut =
      ctx.state.sort === "rank"
        ? ` The ${Math.min(RANKED, ctx.model.size)} largest of ${ctx.model.size}, by distance from ${metric.centre}${metric.unit === "%" ? "\u00a0%" : ""}; bars are 95 % intervals over prompts where there are any.`
        : "";
    const order =
      ctx.state.sort === "layer" && metric.table
        ? " Heads stand by size within their layer, the largest at the left."
        : "";
    return `${metric.about}${order}${cut} Point at a cell for its value; drag over cells to select them (or Shift and arrow keys).`;
  },

  tables(ctx) {
    const { model, task } = ctx;
    const { metric } = chosen(ctx);
    if (!metric) return [];
    const held = selection(ctx, columnsOf(ctx, metric));
    const ids = [...(held.length ? held : model.ids)];
    if (metric.table && ctx.state.sort !== "model")
      ids.sort((a, b) => distance(metric, b) - distance(metric, a) || a - b);
    const colours = metric.table ? null : byMetric(model, task, metric);
    return [
      {
        title: `${metric.title}${held.length ? ", selected components" : ""}`,
        name: metric.key.replace(/\W+/g, "-"),
        header: [
          "component",
          "layer",
          metric.unit && metric.unit !== "share" ? `value (${metric.unit})` : "value",
          "low",
          "high",
        ],
        rows: ids.map((id) =>
          metric.table
            ? [
                nameOf(model, id),
                layerOf(model, id),
                at(metric.table.value, id),
                at(metric.table.low, id),
                at(metric.table.high, id),
              ]
            : [nameOf(model, id), layerOf(model, id), colours.look(id).text ?? "", null, null],
        ),
      },
    ];
  },
};

/** Dots with intervals, the largest first. */
function ranking(ctx, metric, width) {
  const { model, circuit } = ctx;
  const ids = model.ids
    .filter((id) => at(metric.table.value, id) != null)
    .sort((a, b) => distance(metric, b) - distance(metric, a) || a - b)
    .slice(0, RANKED);
  const ends = ids
    .flatMap((id) => Object.values(effect(metric.table, id)))
    .filter((v) => v != null)
    .concat(metric.centre);
  const [row, left] = [17, 58];
  const height = 34 + ids.length * row;
  const svg = drawing(Math.max(340, width), height, matrix.alt(ctx));
  const room = width > 560 ? 190 : 70;
  const x = scaleLinear([Math.min(...ends), Math.max(...ends)], [left + 8, Math.max(340, width) - room]).nice(5);
  for (const tick of x.ticks(5)) {
    svg.append("line").attr("class", "rule").attr("x1", x(tick)).attr("x2", x(tick)).attr("y1", 20).attr("y2", height);
    svg
      .append("text")
      .attr("class", "tick")
      .attr("x", x(tick))
      .attr("y", 14)
      .attr("text-anchor", "middle")
      .text(String(tick).replace("-", "\u2212"));
  }
  svg
    .append("line")
    .attr("class", "zero")
    .attr("x1", x(metric.centre))
    .attr("x2", x(metric.centre))
    .attr("y1", 20)
    .attr("y2", height);
  const members = new Set(circuit?.members);
  ids.forEach((id, i) => {
    const { value, low, high } = effect(metric.table, id);
    const y = 30 + i * row;
    const group = svg
      .append("g")
      .datum(id)
      .attr("class", `ranked${members.has(id) ? " member" : ""}`);
    group
      .append("rect")
      .attr("class", "target")
      .attr("x", 0)
      .attr("width", Math.max(340, width))
      .attr("y", y - row / 2)
      .attr("height", row);
    group
      .append("text")
      .attr("class", "tick")
      .attr("x", left)
      .attr("y", y + 4)
      .attr("text-anchor", "end")
      .text(nameOf(model, id));
    if (low != null && high != null)
      group.append("line").attr("class", "interval").attr("x1", x(low)).attr("x2", x(high)).attr("y1", y).attr("y2", y);
    group
      .append(isMlp(model, id) ? "rect" : "circle")
      .attr("class", "dot")
      .attr("r", 4)
      .attr("cx", x(value))
      .attr("cy", y)
      .attr("x", x(value) - 4)
      .attr("y", y - 4)
      .attr("width", 8)
      .attr("height", 8);
    group
      .append("text")
      .attr("class", "tick")
      .attr("x", Math.max(340, width) - 4)
      .attr("y", y + 4)
      .attr("text-anchor", "end")
      .text(
        width > 560
          ? `${quantity(value, metric.unit)} ${interval(low, high, metric.unit)}`
          : quantity(value, metric.unit),
      );
  });
  tips(svg.node(), (id) =>
    typeof id === "number"
      ? [
          spoken(model, id),
          estimate(effect(metric.table, id), metric.unit),
          members.has(id) ? "in the circuit shown (filled)" : "not in the circuit shown",
        ]
      : null,
  );
  svg
    .node()
    .addEventListener("click", ({ target }) => typeof target.__data__ === "number" && ctx.open(target.__data__));
  return svg.node();
}

/** What the selected cells have in common. */
function summary(ctx, metric, held) {
  const { model, circuit } = ctx;
  const inside = held.filter((id) => circuit?.members.includes(id));
  const ordered = metric.table ? [...held].sort((a, b) => distance(metric, b) - distance(metric, a)) : held;
  return h(
    "div",
    { class: "card" },
    h("h3", {}, `Selected: ${sizes(held, (id) => isMlp(model, id))}`),
    h(
      "p",
      {},
      `${inside.length} of them in the circuit shown${inside.length ? `: ${inside.map((id) => nameOf(model, id)).join(", ")}` : ""}. The largest:`,
    ),
    h(
      "div",
      { class: "wide" },
      table(
        ["component", metric.title],
        ordered.slice(0, 8).map((id) => [nameOf(model, id), wording(ctx, metric, id)]),
      ),
    ),
  );
}

/** A click opens a component, a drag selects a rectangle of cells. */
function dragging(ctx, node) {
  const { model, set } = ctx;
  let from = null;
  const idAt = (event) => document.elementFromPoint(event.clientX, event.clientY)?.__data__;
  node.addEventListener("pointerdown", (event) => {
    from = event.button === 0 && event.pointerType !== "touch" ? idAt(event) : null;
  });
  node.addEventListener("pointermove", (event) => {
    const to = idAt(event);
    if (from == null || to == null || to === from || !event.buttons) return;
    const held = new Set(
      selection({ model, state: { select: `${nameOf(model, from)}:${nameOf(model, to)}` } }, node.layout.column),
    );
    select(node)
      .selectAll("rect.cell")
      .classed("held", (id) => held.has(id));
  });
  node.addEventListener("pointerup", (event) => {
    const to = idAt(event);
    if (from != null && to != null && to !== from) set({ select: `${nameOf(model, from)}:${nameOf(model, to)}` });
    from = null;
  });
  node.addEventListener("click", (event) => {
    const id = idAt(event);
    if (typeof id === "number" && !node.querySelector(".held")) ctx.open(id);
    else if (typeof id === "number") set({ select: null, head: nameOf(model, id) });
  });
}
