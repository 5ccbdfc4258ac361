// What is known of one component, in a circuit or not; with none chosen, of the task.
import { dots } from "./dots.js";
import { arcs, attentionNote, missing } from "./attention.js";
import { at, edgesOf, effect, isMlp, layerOf, headOf, nameOf, ownEffects, reported, spoken } from "./data.js";
import { button, h, table } from "./dom.js";
import { count, estimate, fixed, p, quantity, sizes, token } from "./format.js";
import { successorSection } from "./successors.js";

export function drawer(ctx) {
  return ctx.selected == null ? overview(ctx) : component(ctx, ctx.selected);
}

const section = (title, ...parts) => h("section", {}, h("h3", {}, title), ...parts);
const note = (text) => h("p", { class: "note" }, text);

/** A link that opens a component. */
export function link(ctx, id, text) {
  if (id < 0) return nameOf(ctx.model, id);
  return button(text ?? nameOf(ctx.model, id), () => ctx.open(id), {
    class: "name",
    "aria-label": `Open ${spoken(ctx.model, id)}`,
  });
}

export const links = (ctx, ids) =>
  ids.flatMap((id, i) => [h("span", { class: "whole" }, link(ctx, id), i < ids.length - 1 ? "," : null), " "]);

// ---- the task --------------------------------------------------------------------------------------------------------
function overview(ctx) {
  const { model, task } = ctx;
  const mlp = (id) => isMlp(model, id);
  const own = reported(task);
  const rows = task.circuits
    .filter((c) => !c.reported)
    .map((c) => [
      String(c.label).replaceAll("_", " "),
      `${fixed(c.threshold, 0)}\u00a0%`,
      sizes(c.members, mlp),
      c.percent ? estimate(triple(c.percent), "%") : "n/a",
    ]);
  return [
    h("h2", {}, task.words),
    h(
      "p",
      {},
      task.full
        ? `Full model: a logit difference (answer minus incorrect answer) of ${estimate(triple(task.full), "logits")} on the reported prompts.`
        : "The full model's score is not in the page.",
    ),
    own
      ? section(
          "Reported circuit",
          h("p", {}, `${sizes(own.members, mlp)}; keeps ${circuitScore(own)} (${splitName(own.split)}).`),
          h("p", { class: "names" }, links(ctx, own.members)),
        )
      : section(
          "Reported circuit",
          note("None was searched for on this task; other tasks' circuits are evaluated on it."),
        ),
    model.compare?.shared?.sentence ? section("Shared", h("p", {}, model.compare.shared.sentence)) : null,
    rows.length
      ? section(
          "By search order and threshold",
          h("div", { class: "wide" }, table(["order", "threshold", "size", "percent of full"], rows)),
        )
      : null,
    note(
      "Choose a component in the figure, or type its name in the search box: 3.1 is head 1 of layer 3, m3 the MLP of layer 3.",
    ),
  ];
}

const triple = ([value, low, high]) => ({ value, low, high });
export const splitName = (split) =>
  ({ held_out: "held-out prompts", search: "search prompts" })[split] ??
  (split ? `${String(split).replaceAll("_", " ")} prompts` : "prompts of the report");
export const circuitScore = (circuit) =>
  circuit.percent
    ? `${estimate(triple(circuit.percent), "%")} of the full model's logit difference`
    : "a score that was not computed";

// ---- a component -----------------------------------------------------------------------------------------------------
function component(ctx, id) {
  const { model, task } = ctx;
  const { view } = ctx.state;
  const held = model.holders.get(id);
  const group =
    model.n_kv_heads && model.n_kv_heads < model.n_heads && !isMlp(model, id)
      ? `, key/value head ${Math.floor((headOf(model, id) * model.n_kv_heads) / model.n_heads)}`
      : "";
  return [
    h(
      "div",
      { class: "drawer-head" },
      h("h2", {}, spoken(model, id)),
      button("\u00d7", () => ctx.open(null), { "aria-label": "Close", class: "close" }),
    ),
    h(
      "p",
      { class: "note" },
      `layer ${layerOf(model, id)}${isMlp(model, id) ? ", after the attention" : `, head ${headOf(model, id)}${group}`}. `,
      held.length
        ? `In the reported circuit of ${held.map((t) => t.words).join(", ")}.`
        : "In no main task's reported circuit.",
    ),
    role(ctx, id),
    view === "order" ? successorSection(ctx, id) : null,
    here(ctx, id),
    ablate(ctx, id),
    effects(ctx, id),
    needed(ctx, id),
    scores(ctx, id),
    view === "order" ? null : successorSection(ctx, id),
    neighbours(ctx, id),
    positions(ctx, id),
    writes(ctx, id),
    backup(ctx, id),
  ];
}

/** The role on the task shown with its evidence, then the labels on other tasks. */
function role(ctx, id) {
  const own = ctx.task.roleOf.get(id);
  const others = ctx.model.tasks.filter((task) => task !== ctx.task && task.roleOf.get(id)?.label);
  const said = others.length
    ? note(`Elsewhere: ${others.map((task) => `${task.roleOf.get(id).label} (${task.words})`).join(", ")}.`)
    : null;
  if (!own)
    return section(
      "Role",
      note(`None on ${ctx.task.words}: no role of ${nameOf(ctx.model, id)} was computed, or none passed.`),
      said,
    );
  const more = (own.labels ?? []).filter((label) => label !== own.label);
  return section(
    "Role",
    h(
      "p",
      {},
      h("strong", {}, own.label || "no label"),
      more.length ? `, also ${more.join(", ")}` : "",
      own.evidence ? `: ${own.evidence}` : "",
      own.null ? h("span", { class: "null" }, ` (${own.null})`) : "",
    ),
    said,
  );
}

/** The prompt shown and, of a head, where it looks. */
function here(ctx, id) {
  const { prompt, task } = ctx;
  if (!prompt)
    return section(
      "On a prompt",
      note(
        task.several_tokens
          ? "The page holds no prompts of this task, whose answers have several tokens."
          : "The page holds no prompts of this task.",
      ),
    );
  return section(
    `${isMlp(ctx.model, id) ? "On" : "Attention on"} prompt ${prompt.prompt} of ${task.words}`,
    stepper(ctx),
    h("p", { class: "prompt-text" }, prompt.tokens.join("").trim(), " ", h("strong", {}, token(prompt.answer ?? ""))),
    isMlp(ctx.model, id) ? null : attention(ctx, id),
  );
}

/** "Ablate it": what is left of the logit difference on the prompt shown. */
function ablate(ctx, id) {
  const { prompt } = ctx;
  if (!prompt) return null;
  const rows = Object.entries(prompt.ablated ?? {})
    .filter(([, values]) => at(values, id) != null)
    .map(([kind, values]) => [
      kind.replaceAll("_", " "),
      quantity(at(values, id), "logits"),
      prompt.clean == null ? "" : signed(at(values, id) - prompt.clean),
    ]);
  const own = at(prompt.attribution, id);
  return section(
    "Ablate it, on this prompt",
    h(
      "p",
      {},
      `Logit difference ${quantity(prompt.clean, "logits")}`,
      own == null ? "." : `, of which ${nameOf(ctx.model, id)} writes ${quantity(own, "logits")} directly.`,
    ),
    rows.length
      ? h("div", { class: "wide" }, table(["ablated by", "is left", "change"], rows))
      : note("Single ablations on this prompt were not computed."),
  );
}

const signed = (value) => (value > 0 ? "+" : "") + fixed(value, 2);

/** Next and previous prompt. */
export function stepper(ctx, where = "drawer") {
  const { task, prompts, prompt } = ctx;
  const i = prompts.indexOf(prompt);
  return h(
    "p",
    { class: "stepper" },
    button("\u2039 previous", () => ctx.set({ prompt: prompts[i - 1].prompt }), {
      disabled: i <= 0,
      id: `${where}-previous`,
    }),
    h(
      "span",
      {},
      ` ${i + 1} of ${prompts.length}${task.prompts_of > prompts.length ? ` (of ${task.prompts_of} of the task)` : ""} `,
    ),
    button("next \u203a", () => ctx.set({ prompt: prompts[i + 1].prompt }), {
      disabled: i >= prompts.length - 1,
      id: `${where}-next`,
    }),
  );
}

function attention(ctx, id) {
  const why = missing(ctx, id);
  return why
    ? note(why)
    : [
        h("div", { class: "wide" }, arcs(ctx, id, Math.min(360, ctx.drawerWidth))),
        attentionNote(),
        button("Open in the Prompt view", () => ctx.set({ view: "prompt" })),
      ];
}

/** Percent of full with it alone ablated, for every task, with intervals. */
function effects(ctx, id) {
  const rows = ctx.model.tasks
    .map((task) => [task, ownEffects(ctx.model, task)])
    .filter(([, own]) => own && at(own[1].value, id) != null)
    .map(([task, own]) => ({ task, kind: own[0], ...effect(own[1], id) }));
  if (!rows.length) return section("Effect", note("Single ablations were not computed."));
  const others = Object.entries(ctx.task.effects ?? {})
    .filter(([kind]) => kind !== rows[0].kind && at(ctx.task.effects[kind]?.value, id) != null)
    .map(([kind, values]) => [kind.replaceAll("_", " "), estimate(effect(values, id), "%")]);
  return section(
    `Effect: percent of full left when it alone is ablated (${rows[0].kind.replaceAll("_", " ")})`,
    h(
      "div",
      { class: "wide" },
      dots(
        rows.map((row) => ({ ...row, name: row.task.words, strong: row.task === ctx.task })),
        100,
        "%",
        Math.min(400, ctx.drawerWidth),
      ),
    ),
    others.length
      ? h("div", { class: "wide" }, table([`${ctx.task.words}, ablated by`, "percent of full left"], others))
      : null,
  );
}

/** Whether the reported circuit loses more without it than without what is added at random. */
function needed(ctx, id) {
  const own = (ctx.task.needed ?? []).find(([member]) => member === id);
  if (!own) return null;
  const [, loss, bar, probability, state] = own;
  return section(
    "Needed in the circuit?",
    h(
      "p",
      {},
      h("strong", {}, state),
      `: without it the reported circuit loses ${quantity(loss, "points")} of percent of full; without a component again that was added to it, ${quantity(bar, "points")} at most for 95 % of those outside (corrected p ${p(probability)}).`,
    ),
  );
}

/** Attribution, patching, OV, detectors and whatever else there is of it. */
function scores(ctx, id) {
  const rows = ctx.metrics
    .filter(({ key, table: t }) => t && !/^(ablation|here|successor)/.test(key) && at(t.value, id) != null)
    .map(({ title, table: t, unit }) => [title, estimate(effect(t, id), unit)]);
  const share = at(ctx.task.share, id);
  return rows.length
    ? section(
        "Scores",
        h("div", { class: "wide" }, table(["score", "value"], rows)),
        share == null ? null : note(`Class in the repeated searches: ${ctx.task.class?.[id] ?? "none"}.`),
      )
    : null;
}

function neighbours(ctx, id) {
  const all = edgesOf(ctx.task);
  if (!all.length) return null;
  const list = (edges, end) =>
    edges.length
      ? h(
          "ul",
          { class: "plain" },
          edges
            .slice(0, 6)
            .map((edge) =>
              h(
                "li",
                {},
                link(ctx, edge[end]),
                end === "sender" && edge.port ? ` into ${edge.port}` : edge.port ? ` (${edge.port})` : "",
                `: ${estimate(edge, ctx.task.edges.unit ?? "logits")}`,
                edge.inside ? " \u2022" : "",
                edge.class ? ` ${edge.class}` : "",
              ),
            ),
        )
      : note("none among the edges of the page");
  return section(
    `Neighbours, by ${ctx.task.edges.method}`,
    h("h4", {}, "reads from"),
    list(
      all.filter((e) => e.receiver === id),
      "sender",
    ),
    h("h4", {}, "is read by"),
    list(
      all.filter((e) => e.sender === id),
      "receiver",
    ),
    note(
      `${ctx.task.edges.about ?? "Change of the logit difference without the edge: negative, the edge helps"}. \u2022: in the reported edge circuit. Core, contingent, noise: in at least 90 %, in 10 to 90 %, in fewer of the searches on other data.`,
    ),
  );
}

function positions(ctx, id) {
  const of = ctx.task.positions;
  const rows = (of?.roles ?? [])
    .map((name, i) => ({
      name: name.replaceAll("_", " "),
      value: at(of.value?.[i], id),
      low: at(of.low?.[i], id),
      high: at(of.high?.[i], id),
    }))
    .filter((row) => row.value != null);
  if (!rows.length) return null;
  return section(
    "Positions",
    h("div", { class: "wide" }, dots(rows, of.centre ?? 0, of.unit ?? "points", Math.min(400, ctx.drawerWidth))),
    note(
      of.about ??
        "Points of percent of full that are lost when it is ablated at positions of that role alone; above 0: it is needed there.",
    ),
  );
}

function writes(ctx, id) {
  const of = ctx.task.tokens?.[id];
  if (!of) return isMlp(ctx.model, id) ? section("What it writes", note("Not computed for this MLP.")) : null;
  const list = (pairs) => (pairs ?? []).map(([text, value]) => [token(text), fixed(value, 2)]);
  return section(
    isMlp(ctx.model, id) ? "What it writes" : "What it writes (OV tokens)",
    h(
      "div",
      { class: "two" },
      of.top?.length ? table(["raises", "by"], list(of.top)) : null,
      of.bottom?.length ? table(["lowers", "by"], list(of.bottom)) : null,
    ),
    ctx.task.tokens_about ? note(ctx.task.tokens_about) : null,
  );
}

function backup(ctx, id) {
  const rows = (ctx.task.backup ?? []).filter(([ablated, other]) => ablated === id || other === id);
  if (!rows.length) return null;
  return section(
    "Backup",
    h(
      "ul",
      { class: "plain" },
      rows
        .slice(0, 8)
        .map(([ablated, other, change, low, high, probability]) =>
          h(
            "li",
            {},
            ablated === id
              ? ["when it is ablated, ", link(ctx, other), " writes "]
              : ["when ", link(ctx, ablated), " is ablated, it writes "],
            `${change > 0 ? "+" : ""}${estimate({ value: change, low, high }, "logits")} more directly`,
            probability == null ? "" : ` (p = ${p(probability)})`,
          ),
        ),
    ),
    rows.length > 8 ? note(`${count(rows.length - 8, "more pair")} in the tables.`) : null,
  );
}
