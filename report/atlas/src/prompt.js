// One prompt: its tokens, a head's attention as arcs and as a matrix, attribution, the lens layer by layer, the answers.
import { line } from "d3-shape";
import { scaleLinear } from "d3-scale";
import { arcs, attentionNote, attentionRows, missing, weightMatrix } from "./attention.js";
import { at, isMlp, nameOf, pattern, spoken } from "./data.js";
import { choice, h, table, tips } from "./dom.js";
import { dots } from "./dots.js";
import { splitName, stepper } from "./drawer.js";
import { fixed, quantity, token } from "./format.js";
import { grid, mark } from "./grid.js";
import { byMetric, drawBar, drawing } from "./look.js";

const STRONGEST = 12;

/** The head whose attention is shown: the chosen one, else the first in the page that the circuit holds. */
export function headShown({ prompt, selected, circuit, model }) {
  if (selected != null && !isMlp(model, selected)) return selected;
  const kept = prompt?.attention?.heads ?? [];
  return kept.filter((id) => circuit?.members.includes(id)).at(-1) ?? kept[0] ?? null;
}

/** Prompts in the order asked for: as sampled, by clean logit difference, or by what ablating the chosen component changes. */
export function ordered(model, task, state, selected) {
  const change = (prompt) => {
    const values = Object.values(prompt.ablated ?? {})[0];
    const left = prompt.ablated?.[model.kind] ?? values;
    return selected == null || at(left, selected) == null || prompt.clean == null
      ? 0
      : at(left, selected) - prompt.clean;
  };
  const prompts = [...task.prompts];
  if (state.by === "clean") prompts.sort((a, b) => (a.clean ?? 0) - (b.clean ?? 0) || a.prompt - b.prompt);
  if (state.by === "effect") prompts.sort((a, b) => change(a) - change(b) || a.prompt - b.prompt);
  return prompts;
}

const panel = (title, ...parts) => h("section", { class: "panel" }, h("h3", {}, title), ...parts);
const note = (text) => h("p", { class: "note" }, text);

export const prompt = {
  title: "Prompt",
  captionFirst: true,

  key: ({ model, task, state, prompt: p, selected }) =>
    [model.name, task.name, state.by, p?.prompt, selected].join("|"),

  controls(ctx) {
    const { state, set, prompts, prompt: p, model } = ctx;
    if (!p) return [note("The page holds no prompts of this task.")];
    const heads = p.attention?.heads ?? [];
    const head = headShown(ctx);
    const known = head == null || heads.includes(head) ? heads : [head, ...heads];
    return [
      choice(
        "prompt",
        "Prompt",
        [
          [
            "",
            prompts.map((q) => [
              q.prompt,
              `${q.prompt}: \u2026 ${token((q.answer ?? "").trim())} (${fixed(q.clean, 1)})`,
            ]),
          ],
        ],
        p.prompt,
        (value) => set({ prompt: value }),
      ),
      choice(
        "by",
        "Sorted by",
        [
          [
            "",
            [
              ["prompt", "number"],
              ["clean", "clean logit difference"],
              ["effect", `effect of ${ctx.selected == null ? "the chosen component" : nameOf(model, ctx.selected)}`],
            ],
          ],
        ],
        state.by,
        (by) => set({ by }),
      ),
      known.length
        ? choice(
            "attending",
            "Attention of",
            [
              [
                "",
                known.map((id) => [
                  nameOf(model, id),
                  `${nameOf(model, id)}${ctx.circuit?.members.includes(id) ? " (circuit)" : ""}`,
                ]),
              ],
            ],
            nameOf(model, head),
            (name) => set({ head: name }),
          )
        : null,
      stepper(ctx, "view"),
    ].filter(Boolean);
  },

  draw(ctx, box) {
    const { prompt: p } = ctx;
    if (!p) return;
    const head = headShown(ctx);
    const half = ctx.width > 760 ? (ctx.width - 24) / 2 : ctx.width;
    const why = missing(ctx, head ?? 0);
    box.append(
      h(
        "div",
        { class: "panels" },
        panel("Text", text(p)),
        panel("Answer and runner-up", answers(p)),
        panel(
          `Attention of ${head == null ? "heads" : nameOf(ctx.model, head)}`,
          why ? note(why) : [h("div", { class: "wide" }, arcs(ctx, head, Math.min(half - 26, 400))), attentionNote()],
        ),
        why
          ? null
          : panel(
              `Attention of ${nameOf(ctx.model, head)} as a matrix`,
              h("div", { class: "wide" }, weightMatrix(ctx, head, Math.min(half - 26, 520))),
              note("A row is the token that looks, a column the one looked at; from 0 (pale) to 1."),
            ),
        panel("Attribution: who writes the answer", attribution(ctx, half - 26)),
        panel("Logit lens", lens(p, half - 26)),
        panel("Ablate one component", ablation(ctx, half - 26)),
      ),
    );
  },

  highlight(ctx, box) {
    for (const node of box.querySelectorAll("svg.figure")) if (node.layout) mark(node, ctx.model, ctx.selected);
  },

  alt: ({ prompt: p, task }) => (p ? `Prompt ${p.prompt} of ${task.words}.` : "No prompt."),

  caption(ctx) {
    const { prompt: p, task } = ctx;
    if (!p) return "";
    return `Prompt ${p.prompt} of ${task.words} (${splitName(p.split)}), one of ${task.prompts.length}${task.prompts_of > task.prompts.length ? ` sampled from ${task.prompts_of}` : ""}. Logit difference: the logit of the answer (${token(p.answer ?? "?")}) minus that of the incorrect answer (${token(p.incorrect ?? "?")}) at the last token. One prompt is an example, no estimate: it has no interval.`;
  },

  tables(ctx) {
    const { model, prompt: p } = ctx;
    if (!p) return [];
    const kinds = Object.keys(p.ablated ?? {});
    const head = headShown(ctx);
    const made = [
      {
        title: "Components on this prompt",
        name: "prompt-components",
        header: ["component", "direct attribution", ...kinds.map((kind) => `logit difference, ablated (${kind})`)],
        rows: model.ids.map((id) => [
          nameOf(model, id),
          at(p.attribution, id),
          ...kinds.map((kind) => at(p.ablated[kind], id)),
        ]),
      },
    ];
    if (p.lens?.points)
      made.push({
        title: "Logit lens",
        name: "lens",
        header: ["point", "logit difference", "top tokens"],
        rows: p.lens.points.map((point, i) => [
          point,
          at(p.lens.value, i),
          (p.lens.top?.[i] ?? []).map(token).join(" "),
        ]),
      });
    if (head != null && pattern(p, head))
      made.push({
        title: `Attention of ${nameOf(model, head)}`,
        name: "attention",
        header: ["from", "token", "to", "token looked at", "weight"],
        rows: attentionRows(p, head),
      });
    return made;
  },
};

/** The tokens in a line, members and other roles marked; below, the corrupted prompt where they differ. */
function text(p) {
  const span = (list, other) =>
    list.map((t, i) =>
      h(
        "span",
        {
          class: `token${other && other[i] !== t ? " differs" : ""}${/member|last|slot/.test(p.roles?.[i] ?? "") ? " marked" : ""}`,
          title: p.roles?.[i]?.replaceAll("_", " "),
        },
        t.replaceAll("\n", "\u21b5"),
      ),
    );
  return [
    h("p", { class: "prompt-text" }, span(p.tokens), h("strong", {}, ` \u2192 ${token(p.answer ?? "?")}`)),
    p.corrupted?.length
      ? [
          h(
            "p",
            { class: "note" },
            "The corrupted prompt, from which ablated values are taken; what differs is underlined:",
          ),
          h("p", { class: "prompt-text" }, span(p.corrupted, p.tokens)),
        ]
      : null,
  ];
}

function answers(p) {
  const rows = (p.top ?? []).map(([name, value], i) => [
    i + 1,
    token(name),
    fixed(value, 2),
    name === p.answer ? "answer" : name === p.incorrect ? "incorrect answer" : "",
  ]);
  return [
    h(
      "p",
      {},
      `Logit difference ${quantity(p.clean, "logits")}: ${token(p.answer ?? "?")} over ${token(p.incorrect ?? "?")}.`,
    ),
    rows.length
      ? h("div", { class: "wide" }, table(["rank", "token", "logit", ""], rows))
      : note("The model's top tokens were not computed."),
  ];
}

function attribution(ctx, width) {
  const { model, prompt: p } = ctx;
  if (!p.attribution) return note("Not computed for this prompt.");
  const ids = model.ids
    .filter((id) => at(p.attribution, id) != null)
    .sort((a, b) => Math.abs(at(p.attribution, b)) - Math.abs(at(p.attribution, a)) || a - b);
  const rows = ids.slice(0, STRONGEST).map((id) => ({
    id,
    name: nameOf(model, id),
    value: at(p.attribution, id),
    strong: id === ctx.selected || ctx.circuit?.members.includes(id),
  }));
  const figure = dots(rows, 0, "logits", Math.min(width, 460));
  figure.addEventListener("click", ({ target }) => target.__data__?.id != null && ctx.open(target.__data__.id));
  return [
    h("div", { class: "wide" }, figure),
    note(
      `What each component writes directly along answer minus incorrect answer, in logits; positive: for the answer. The ${rows.length} largest of ${ids.length}; filled: in the circuit.`,
    ),
  ];
}

function lens(p, given) {
  const points = p.lens?.points ?? [];
  const values = points.map((_, i) => at(p.lens.value, i));
  if (!values.some((v) => v != null)) return note("Not computed for this prompt.");
  const width = Math.min(given, 520);
  const [height, left, bottom] = [190, 40, 42];
  const ends = values.filter((v) => v != null);
  const svg = drawing(
    width,
    height,
    `Logit difference by the logit lens after each part of the model, ending at ${quantity(ends.at(-1), "logits")}.`,
  );
  const x = scaleLinear([0, Math.max(1, points.length - 1)], [left, width - 14]);
  const y = scaleLinear([Math.min(0, ...ends), Math.max(0, ...ends)], [height - bottom, 12]).nice(4);
  for (const tick of y.ticks(4)) {
    svg
      .append("line")
      .attr("class", tick === 0 ? "zero" : "rule")
      .attr("x1", left)
      .attr("x2", width - 14)
      .attr("y1", y(tick))
      .attr("y2", y(tick));
    svg
      .append("text")
      .attr("class", "tick")
      .attr("x", left - 5)
      .attr("y", y(tick) + 3.5)
      .attr("text-anchor", "end")
      .text(String(tick).replace("-", "\u2212"));
  }
  const path = line(
    (_, i) => x(i),
    (v) => y(v),
  ).defined((v) => v != null);
  svg.append("path").attr("class", "curve").attr("d", path(values));
  const passed = points.flatMap((point, i) => (point.startsWith("resid_mid") ? [] : [i])); // before layer 0, 1, ...
  const every = Math.ceil((passed.length * 22) / (width - left));
  passed.forEach((i, layers) => {
    if (layers % every) return;
    svg
      .append("text")
      .attr("class", "tick")
      .attr("text-anchor", "middle")
      .attr("x", x(i))
      .attr("y", height - bottom + 16)
      .text(layers);
  });
  svg
    .append("text")
    .attr("class", "tick")
    .attr("text-anchor", "middle")
    .attr("x", (left + width - 14) / 2)
    .attr("y", height - 8)
    .text("layers passed");
  svg
    .append("g")
    .selectAll("circle")
    .data(values.map((value, i) => ({ value, i })).filter(({ value }) => value != null))
    .join("circle")
    .attr("class", "dot solid")
    .attr("r", 3.2)
    .attr("cx", ({ i }) => x(i))
    .attr("cy", ({ value }) => y(value));
  tips(svg.node(), (d) =>
    d?.i == null
      ? null
      : [
          `after ${points[d.i]}`,
          quantity(d.value, "logits"),
          p.lens.top?.[d.i] ? `top: ${p.lens.top[d.i].map(token).join(", ")}` : null,
        ],
  );
  const rows = points.map((point, i) => [
    point,
    fixed(values[i], 2),
    (p.lens.top?.[i] ?? []).slice(0, 3).map(token).join("  "),
  ]);
  return [
    h("div", { class: "wide" }, svg.node()),
    h(
      "details",
      {},
      h("summary", {}, "Top tokens at each point"),
      h("div", { class: "wide" }, table(["point", "logit difference", "top tokens"], rows)),
    ),
    note("Logit difference, in logits, read from the residual stream through the final norm and the unembedding."),
  ];
}

function ablation(ctx, width) {
  const metric =
    ctx.metrics.find(({ key }) => key === `here:${ctx.model.kind}`) ??
    ctx.metrics.find(({ key }) => key.startsWith("here:") && key !== "here:attribution");
  if (!metric || ctx.prompt.clean == null) return note("Not computed for this prompt.");
  const { model } = ctx;
  const colours = byMetric(model, ctx.task, metric);
  const svg = grid(model, Math.min(width, 560), `${metric.title}, every component.`, {
    look: colours.look,
    selected: ctx.selected,
    outlined: new Set(ctx.circuit?.members),
    extra: 52,
    options: { widest: 46, tallest: 24 },
  });
  drawBar(svg, colours.bar, 26, svg.node().layout.m.height + 8, 230);
  const node = svg.node();
  tips(node, (id) =>
    typeof id === "number"
      ? [
          spoken(model, id),
          `${quantity(at(metric.table.value, id), "logits")} left; ${quantity(ctx.prompt.clean, "logits")} without ablation`,
        ]
      : null,
  );
  node.addEventListener("click", ({ target }) => typeof target.__data__ === "number" && ctx.open(target.__data__));
  return [h("div", { class: "wide" }, node), note(metric.about)];
}
