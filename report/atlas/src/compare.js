// Two circuits side by side: of two tasks, two search orders or thresholds, or two models; the overlap with what chance
// would give; the cross matrix; the controls.
import { inkOn } from "./colours.js";
import { at, circuitName, isMlp, nameOf, reported, spoken } from "./data.js";
import { choice, h, table, tips } from "./dom.js";
import { circuitScore, links, splitName } from "./drawer.js";
import { estimate, fixed, p, sizes } from "./format.js";
import { grid } from "./grid.js";
import { byMetric, drawing, drawLegend } from "./look.js";

/** What the circuit can be compared with: [key, text, {model, task, circuit}] by kind. */
function others({ data, model, task, circuit }) {
  const tasks = model.tasks
    .filter((t) => t !== task && reported(t))
    .map((t) => [`task:${t.name}`, t.words, { model, task: t, circuit: reported(t) }]);
  const orders = task.circuits
    .filter((c) => c !== circuit)
    .map((c) => [`order:${c.label}@${c.threshold}`, circuitName(c), { model, task, circuit: c }]);
  const models = data.models
    .filter((m) => m !== model)
    .flatMap((m) =>
      m.tasks
        .filter((t) => t.name === task.name && reported(t))
        .map((t) => [`model:${m.name}`, m.name, { model: m, task: t, circuit: reported(t) }]),
    );
  return { tasks, orders, models };
}

function pair(ctx) {
  const groups = others(ctx);
  const all = [...groups.tasks, ...groups.orders, ...groups.models];
  return { groups, other: (all.find(([key]) => key === ctx.state.compare) ?? all[0])?.[2] ?? null };
}

const LOOKS = {
  both: { fill: "var(--circuit)", stroke: "var(--ink)", text: "in both", ink: "var(--on-circuit)" },
  one: { fill: "var(--clean)", stroke: "var(--ink)", text: "in this one alone", ink: "var(--on-clean)" },
  none: { fill: "var(--paper)", stroke: "var(--faint)", text: "in neither" },
};

function title(ctx, { model, task, circuit }, apart) {
  return [apart ? model.name : null, task.words, circuit.reported ? "reported circuit" : circuitName(circuit)]
    .filter(Boolean)
    .join(", ");
}

export const compare = {
  title: "Compare",
  captionFirst: true,

  key: ({ model, task, circuit, state }) =>
    [model.name, task.name, circuit?.label, circuit?.threshold, state.compare].join("|"),

  controls(ctx) {
    const { groups } = pair(ctx);
    const list = (entries) => entries.map(([key, text]) => [key, text]);
    if (!ctx.circuit)
      return [h("p", { class: "note" }, "No circuit was searched for on this task; choose another for a comparison.")];
    return [
      choice(
        "compare",
        `Compare ${ctx.task.words} with`,
        [
          ["Another task", list(groups.tasks)],
          ["Another order or threshold", list(groups.orders)],
          ["Another model", list(groups.models)],
        ],
        ctx.state.compare ?? "",
        (key) => ctx.set({ compare: key }),
      ),
    ];
  },

  draw(ctx, box) {
    const { other } = pair(ctx);
    if (ctx.circuit && other) box.append(...sides(ctx, other));
    box.append(...crossMatrix(ctx), ...overlaps(ctx), ...between(ctx), ...controls(ctx), ...doubts(ctx));
    if (!box.childNodes.length) box.append(h("p", {}, "This study has nothing to compare."));
  },

  highlight() {},

  alt: ({ task }) => `Circuit of ${task.words} beside another.`,

  caption(ctx) {
    const { other } = pair(ctx);
    if (!ctx.circuit || !other) return "";
    return `Left: ${title(ctx, ctx, other.model !== ctx.model)}. Right: ${title(ctx, other, other.model !== ctx.model)}. Rows are layers from the first at the top, columns heads, the MLP at the right.`;
  },

  tables(ctx) {
    const { other } = pair(ctx);
    const { model, circuit } = ctx;
    const made = [];
    if (circuit && other && other.model === model) {
      const [a, b] = [new Set(circuit.members), new Set(other.circuit.members)];
      made.push({
        title: "Components of the two circuits",
        name: "compare",
        header: ["component", "left", "right"],
        rows: model.ids
          .filter((id) => a.has(id) || b.has(id))
          .map((id) => [nameOf(model, id), a.has(id) ? 1 : 0, b.has(id) ? 1 : 0]),
      });
    } else if (circuit && other) {
      made.push({
        title: "Components of the two circuits",
        name: "compare",
        header: ["model", "component"],
        rows: [
          ...circuit.members.map((id) => [model.name, nameOf(model, id)]),
          ...other.circuit.members.map((id) => [other.model.name, nameOf(other.model, id)]),
        ],
      });
    }
    const cross = model.compare?.cross ?? [];
    if (cross.length)
      made.push({
        title: "Cross matrix: percent of full",
        name: "cross",
        header: ["circuit", "task", "value", "low", "high"],
        rows: cross.map((c) => [c.circuit, c.task, c.value, c.low, c.high]),
      });
    return made;
  },
};

function sides(ctx, other) {
  const same = other.model === ctx.model;
  const both = new Set(same ? ctx.circuit.members.filter((id) => other.circuit.members.includes(id)) : []);
  const width = ctx.width > 720 ? (ctx.width - 24) / 2 : ctx.width;
  const side = (one) => {
    const members = new Set(one.circuit.members);
    const look = (id) => (members.has(id) ? (same && both.has(id) ? LOOKS.both : LOOKS.one) : LOOKS.none);
    const svg = grid(
      one.model,
      Math.min(width - 26, 560),
      `${title(ctx, one, !same)}: ${sizes([...members], (id) => isMlp(one.model, id))}.`,
      {
        look,
        extra: 30,
        selected: one.model === ctx.model ? ctx.selected : null,
        text: (id) => (members.has(id) ? nameOf(one.model, id) : null),
        options: { widest: 52, tallest: 24 },
      },
    );
    const { m } = svg.node().layout;
    drawLegend(
      svg,
      same ? [LOOKS.both, LOOKS.one] : [{ ...LOOKS.one, text: "in the circuit" }],
      m.left,
      m.height + 10,
      Math.max(300, width - 40),
    );
    tips(svg.node(), (id) =>
      typeof id === "number" ? [spoken(one.model, id), look(id).text, one.task.roleOf.get(id)?.label ?? null] : null,
    );
    svg
      .node()
      .addEventListener(
        "click",
        ({ target }) => typeof target.__data__ === "number" && one.model === ctx.model && ctx.open(target.__data__),
      );
    return h(
      "section",
      { class: "panel" },
      h("h3", {}, title(ctx, one, !same)),
      h(
        "p",
        { class: "note" },
        `${sizes([...members], (id) => isMlp(one.model, id))} of ${one.model.size}; keeps ${circuitScore(one.circuit)} (${splitName(one.circuit.split)}).`,
      ),
      h("div", { class: "wide" }, svg.node()),
    );
  };
  return [
    h("div", { class: "panels" }, side(ctx), side(other)),
    same
      ? inCommon(ctx, other, both)
      : h("p", { class: "note" }, "Components of two models are not the same components, so no overlap is counted."),
  ];
}

function inCommon(ctx, other, both) {
  const { model } = ctx;
  const [a, b] = [ctx.circuit.members.length, other.circuit.members.length];
  const union = a + b - both.size;
  return h(
    "div",
    { class: "card" },
    h("h3", {}, `In both: ${sizes([...both], (id) => isMlp(model, id))}`),
    h(
      "p",
      { class: "names" },
      links(
        ctx,
        [...both].sort((x, y) => x - y),
      ),
    ),
    h(
      "p",
      {},
      `Jaccard index ${union ? fixed(both.size / union, 2) : "n/a"} (${both.size} in both, ${union} in either). Two sets of this size drawn from all ${model.size} components without regard to layers would share ${fixed((a * b) / model.size, 1)}.`,
    ),
  );
}

/** The tests of the study: which circuits share more than chance would give. */
function overlaps(ctx) {
  const rows = ctx.model.compare?.overlap ?? [];
  if (!rows.length) return [];
  const of = (row) => row.a === ctx.task.name || row.b === ctx.task.name;
  const sorted = [...rows].sort((x, y) => of(y) - of(x));
  return [
    h(
      "section",
      { class: "panel full" },
      h("h3", {}, "Overlap of circuits, with chance"),
      h(
        "div",
        { class: "wide" },
        table(
          ["circuits", "counted", "shared", "by chance", "Jaccard", "p", "p (Holm)"],
          sorted.map((row) => [
            `${words(ctx, row.a)} and ${words(ctx, row.b)}`,
            String(row.level ?? "").replaceAll("_", " "),
            row.shared,
            fixed(row.expected, 1),
            fixed(row.jaccard, 2),
            p(row.p),
            p(row.p_holm),
          ]),
        ),
      ),
      h(
        "p",
        { class: "note" },
        ctx.model.compare.overlap_about ??
          "By chance: expected overlap of random circuits with as many heads in each layer; p: hypergeometric, one-sided; Holm: corrected for all rows.",
      ),
    ),
  ];
}

/** The same tests for circuits of two models of one study. */
function between(ctx) {
  const rows = (ctx.data.between ?? []).filter((row) => row.task == null || row.task === ctx.task.name);
  if (!rows.length) return [];
  const header = ["models", "counted", "shared", "by chance", "Jaccard", "p", "p (Holm)"];
  const cells = rows.map((row) => [
    `${row.a} and ${row.b}`,
    row.level,
    row.shared,
    fixed(row.expected, 1),
    fixed(row.jaccard, 2),
    p(row.p),
    p(row.p_holm),
  ]);
  return [
    h(
      "section",
      { class: "panel full" },
      h("h3", {}, `Circuits of ${ctx.task.words} in two models`),
      h("div", { class: "wide" }, table(header, cells)),
      h(
        "p",
        { class: "note" },
        "Components of the same name are counted as the same; this means something only for models that were trained alike.",
      ),
    ),
  ];
}

const words = (ctx, name) =>
  ctx.model.tasks.find((task) => task.name === name)?.words ?? String(name).replaceAll("_", " ");

/** Circuits (rows) evaluated on tasks (columns). */
function crossMatrix(ctx) {
  const cells = ctx.model.compare?.cross ?? [];
  if (!cells.length) return [];
  const circuits = [...new Set(cells.map((c) => c.circuit))];
  const tasks = [...new Set(cells.map((c) => c.task))];
  const longest = (names) => Math.max(...names.map((name) => words(ctx, name).length));
  const [left, top] = [Math.min(170, 20 + 6.2 * longest(circuits)), 20 + Math.min(90, 3.6 * longest(tasks))];
  const cell = Math.max(40, Math.min(84, (Math.min(ctx.width, 1000) - left - 30) / tasks.length));
  const svg = drawing(
    left + cell * tasks.length + 60,
    top + circuits.length * 26 + 8,
    `Percent of full that each circuit keeps on each task: ${circuits.length} circuits, ${tasks.length} tasks.`,
  );
  const metric = {
    scale: "sequential",
    unit: "%",
    centre: 0,
    table: { value: cells.map((c) => Math.max(0, c.value ?? 0)) },
  };
  const { colour } = byMetric({ ids: cells.map((_, i) => i) }, null, metric);
  tasks.forEach((task, j) =>
    svg
      .append("text")
      .attr("class", task === ctx.task.name ? "tick strong" : "tick")
      .attr("transform", `translate(${left + (j + 0.5) * cell},${top - 8}) rotate(-35)`)
      .text(words(ctx, task)),
  );
  circuits.forEach((name, i) => {
    svg
      .append("text")
      .attr("class", name === ctx.task.name ? "tick strong" : "tick")
      .attr("x", left - 6)
      .attr("y", top + i * 26 + 17)
      .attr("text-anchor", "end")
      .text(words(ctx, name));
    tasks.forEach((task, j) => {
      const found = cells.find((c) => c.circuit === name && c.task === task);
      if (!found) return;
      const paint = at([found.value], 0) == null ? "var(--paper)" : colour(Math.max(0, found.value));
      const group = svg.append("g").datum(found);
      group
        .append("rect")
        .datum(found)
        .attr("x", left + j * cell + 1)
        .attr("y", top + i * 26 + 1)
        .attr("width", cell - 2)
        .attr("height", 24)
        .attr("rx", 2)
        .style("fill", paint);
      group
        .append("text")
        .datum(found)
        .attr("class", "in-cell")
        .attr("x", left + (j + 0.5) * cell)
        .attr("y", top + i * 26 + 17)
        .attr("text-anchor", "middle")
        .style("fill", ink(paint))
        .text(fixed(found.value, 0));
    });
  });
  tips(svg.node(), (d) =>
    d?.circuit
      ? [
          `circuit of ${words(ctx, d.circuit)}, evaluated on ${words(ctx, d.task)}`,
          estimate(d, "%"),
          "percent of the full model's logit difference on that task",
        ]
      : null,
  );
  return [
    h(
      "section",
      { class: "panel full" },
      h("h3", {}, "Circuits (rows) evaluated on tasks (columns)"),
      h("div", { class: "wide" }, svg.node()),
      h(
        "p",
        { class: "note" },
        "Percent of the full model's logit difference on the column's task when only the row's circuit is kept. Point at a cell for its 95 % interval.",
      ),
    ),
  ];
}

function controls(ctx) {
  const rows = (ctx.model.compare?.controls ?? []).filter(
    (row) => row.task === ctx.task.name || row.circuit === ctx.task.name,
  );
  if (!rows.length) return [];
  return [
    h(
      "section",
      { class: "panel full" },
      h("h3", {}, "Against random circuits"),
      h(
        "div",
        { class: "wide" },
        table(
          ["question", "circuit", "task", "percent of full", "median of controls [95 % of them]", "p (Holm)", ""],
          rows.map((row) => [
            row.question,
            words(ctx, row.circuit),
            words(ctx, row.task),
            estimate(row, "%"),
            estimate({ value: row.median, low: row.control_low, high: row.control_high }, "%"),
            p(row.p_holm ?? row.p),
            [row.state, row.reason].filter(Boolean).join(": "),
          ]),
        ),
      ),
      h(
        "p",
        { class: "note" },
        "Sufficiency: only the circuit is kept; necessity: its heads are ablated. Controls are random sets with as many heads in each layer; p: the share of them at least as extreme, the circuit counted in, corrected for all questions.",
      ),
    ),
  ];
}
/** What the shared sub-circuit survives, and every test that doubts the circuits. */
function doubts(ctx) {
  const found = ctx.model.compare?.doubts;
  if (!found?.rows?.length) return [];
  return [
    h(
      "section",
      { class: "panel full" },
      h("h3", {}, "Doubts: tests of the circuits"),
      found.sentence ? h("p", {}, found.sentence) : null,
      h("div", { class: "wide" }, table(found.header, found.rows)),
      h(
        "p",
        { class: "note" },
        "A null that is not rejected is not proved. Controls are random sets of heads with as many in each layer; corrected: Holm, over the tests of one kind.",
      ),
    ),
  ];
}

const ink = (paint) => (/^(#|rgb)/.test(paint) ? inkOn(paint) : "var(--ink)");
