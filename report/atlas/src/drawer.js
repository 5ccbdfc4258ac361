// What is known of one component, in a circuit or not; with none chosen, of the task.
import { scaleLinear } from "d3-scale";
import { arcs, attentionNote, missing } from "./attention.js";
import { at, edgesOf, effect, isMlp, layerOf, headOf, nameOf, ownEffects, reported, spoken } from "./data.js";
import { button, h, table, tips } from "./dom.js";
import { count, estimate, fixed, p, quantity, sizes, token } from "./format.js";
import { drawing } from "./look.js";

export function drawer(ctx) {
  return ctx.selected == null ? overview(ctx) : component(ctx, ctx.selected);
}

const section = (title, ...parts) => h("section", {}, h("h3", {}, title), ...parts);
const note = (text) => h("p", { class: "note" }, text);

/** A link that opens a component. */
export function link(ctx, id, text) {
  if (id < 0) return nameOf(ctx.model, id);
  return button(text ?? nameOf(ctx.model, id), () => ctx.open(id), { class: "name", "aria-label": `Open ${spoken(ctx.model, id)}` });
}

export const links = (ctx, ids) => ids.flatMap((id, i) => [i ? ", " : null, link(ctx, id)]);

// ---- the task --------------------------------------------------------------------------------------------------------
function overview(ctx) {
  const { model, task } = ctx;
  const mlp = (id) => isMlp(model, id);
  const own = reported(task);
  const rows = task.circuits.filter((c) => !c.reported).map((c) => [String(c.label).replaceAll("_", " "), `${fixed(c.threshold, 0)}\u00a0%`, sizes(c.members, mlp), c.percent ? estimate(triple(c.percent), "%") : "n/a"]);
  return [
    h("h2", {}, task.words),
    h("p", {}, task.full ? `Full model: a logit difference (answer minus incorrect answer) of ${estimate(triple(task.full), "logits")} on the reported prompts.` : "The full model's score is not in the page."),
    own ? section("Reported circuit", h("p", {}, `${sizes(own.members, mlp)}; keeps ${circuitScore(own)} (${splitName(own.split)}).`), h("p", { class: "names" }, links(ctx, own.members)))
      : section("Reported circuit", note("None was searched for on this task; other tasks' circuits are evaluated on it.")),
    model.compare?.shared?.sentence ? section("Shared", h("p", {}, model.compare.shared.sentence)) : null,
    rows.length ? section("By search order and threshold", h("div", { class: "wide" }, table(["order", "threshold", "size", "percent of full"], rows))) : null,
    note("Choose a component in the figure, or type its name in the search box: 3.1 is head 1 of layer 3, m3 the MLP of layer 3."),
  ];
}

const triple = ([value, low, high]) => ({ value, low, high });
export const splitName = (split) => ({ held_out: "held-out prompts", search: "search prompts" })[split] ?? (split ? `${String(split).replaceAll("_", " ")} prompts` : "prompts of the report");
export const circuitScore = (circuit) => (circuit.percent ? `${estimate(triple(circuit.percent), "%")} of the full model's logit difference` : "a score that was not computed");

// ---- a component -----------------------------------------------------------------------------------------------------
function component(ctx, id) {
  const { model, task } = ctx;
  const held = model.holders.get(id);
  const group = model.n_kv_heads && model.n_kv_heads < model.n_heads && !isMlp(model, id)
    ? `, key/value head ${Math.floor((headOf(model, id) * model.n_kv_heads) / model.n_heads)}` : "";
  return [
    h("div", { class: "drawer-head" }, h("h2", {}, spoken(model, id)), button("\u00d7", () => ctx.open(null), { "aria-label": "Close", class: "close" })),
    h("p", { class: "note" }, `layer ${layerOf(model, id)}${isMlp(model, id) ? ", after the attention" : `, head ${headOf(model, id)}${group}`}. `,
      held.length ? `In the reported circuit of ${held.map((t) => t.words).join(", ")}.` : "In no main task's reported circuit."),
    role(ctx, id),
    here(ctx, id),
    isMlp(model, id) ? null : attention(ctx, id),
    effects(ctx, id),
    scores(ctx, id),
    neighbours(ctx, id),
    positions(ctx, id),
    writes(ctx, id),
    backup(ctx, id),
  ];
}

function role(ctx, id) {
  const found = ctx.model.tasks.map((task) => [task, task.roleOf.get(id)]).filter(([task, r]) => r && (task === ctx.task || task.main));
  if (!found.length) return section("Role", note(`None: no role of ${nameOf(ctx.model, id)} was computed or passed its test.`));
  found.sort(([a], [b]) => (b === ctx.task) - (a === ctx.task));
  return section("Role", h("ul", {}, found.map(([task, r]) => h("li", {}, h("strong", {}, r.label || "no label"), ` (${task.words})`,
    r.labels?.length > 1 ? `, also ${r.labels.filter((l) => l !== r.label).join(", ")}` : "",
    r.evidence ? `: ${r.evidence}` : "", r.null ? h("span", { class: "null" }, ` Against the null: ${r.null}`) : ""))));
}

/** "Ablate it": what is left of the logit difference on the prompt shown. */
function here(ctx, id) {
  const { prompt, task } = ctx;
  if (!prompt) return null;
  const rows = Object.entries(prompt.ablated ?? {}).filter(([, values]) => at(values, id) != null).map(([kind, values]) =>
    [kind.replaceAll("_", " "), quantity(at(values, id), "logits"), prompt.clean == null ? "" : signed(at(values, id) - prompt.clean)]);
  const own = at(prompt.attribution, id);
  return section(`On prompt ${prompt.prompt} of ${task.words}`, stepper(ctx),
    h("p", { class: "prompt-text" }, prompt.tokens.join("").trim(), " ", h("strong", {}, token(prompt.answer ?? ""))),
    h("p", {}, `Logit difference ${quantity(prompt.clean, "logits")}`, own == null ? "." : `, of which the component writes ${quantity(own, "logits")} directly.`),
    rows.length ? h("div", { class: "wide" }, table(["ablate it:", "is left", "change"], rows)) : note("Single ablations on this prompt were not computed."));
}

const signed = (value) => (value > 0 ? "+" : "") + fixed(value, 2);

/** Next and previous prompt. */
export function stepper(ctx, where = "drawer") {
  const { task, prompts, prompt } = ctx;
  const i = prompts.indexOf(prompt);
  return h("p", { class: "stepper" },
    button("\u2039 previous", () => ctx.set({ prompt: prompts[i - 1].prompt }), { disabled: i <= 0, id: `${where}-previous` }),
    h("span", {}, ` ${i + 1} of ${prompts.length}${task.prompts_of > prompts.length ? ` (of ${task.prompts_of} of the task)` : ""} `),
    button("next \u203a", () => ctx.set({ prompt: prompts[i + 1].prompt }), { disabled: i >= prompts.length - 1, id: `${where}-next` }));
}

function attention(ctx, id) {
  const why = missing(ctx, id);
  return section("Attention", why ? note(why) : [h("div", { class: "wide" }, arcs(ctx, id, Math.min(360, ctx.drawerWidth))), attentionNote(),
    button("Open as a matrix in the Prompt view", () => ctx.set({ view: "prompt" }))]);
}

/** Percent of full with it alone ablated, for every task, with intervals. */
function effects(ctx, id) {
  const rows = ctx.model.tasks.map((task) => [task, ownEffects(ctx.model, task)]).filter(([, own]) => own && at(own[1].value, id) != null)
    .map(([task, own]) => ({ task, kind: own[0], ...effect(own[1], id) }));
  if (!rows.length) return section("Effect", note("Single ablations were not computed."));
  const others = Object.entries(ctx.task.effects ?? {}).filter(([kind]) => kind !== rows[0].kind && at(ctx.task.effects[kind]?.value, id) != null)
    .map(([kind, values]) => [kind.replaceAll("_", " "), estimate(effect(values, id), "%")]);
  return section(`Effect: percent of full left when it alone is ablated (${rows[0].kind.replaceAll("_", " ")})`,
    h("div", { class: "wide" }, dots(rows.map((row) => ({ ...row, name: row.task.words, strong: row.task === ctx.task })), 100, "%", Math.min(400, ctx.drawerWidth))),
    others.length ? h("div", { class: "wide" }, table([`${ctx.task.words}, ablated by`, "percent of full left"], others)) : null);
}

/** Rows of dots with intervals around a centre. */
export function dots(rows, centre, unit, width) {
  const [step, left] = [18, Math.min(130, 12 + 6.2 * Math.max(...rows.map((r) => r.name.length)))];
  const room = 128;
  const ends = rows.flatMap((r) => [r.value, r.low, r.high]).filter((v) => v != null).concat(centre);
  const svg = drawing(width, rows.length * step + 8, rows.map((r) => `${r.name}: ${estimate(r, unit)}`).join("; "));
  const x = scaleLinear([Math.min(...ends), Math.max(...ends) + 1e-9], [left + 8, width - room - 6]);
  svg.append("line").attr("class", "zero").attr("x1", x(centre)).attr("x2", x(centre)).attr("y1", 2).attr("y2", rows.length * step + 4);
  rows.forEach((row, i) => {
    const y = 12 + i * step;
    const group = svg.append("g").datum(row).attr("class", row.strong ? "ranked member" : "ranked");
    const name = row.name.length > 20 ? `${row.name.slice(0, 19)}\u2026` : row.name;
    group.append("text").attr("class", row.strong ? "tick strong" : "tick").attr("x", left).attr("y", y + 4).attr("text-anchor", "end").text(name);
    if (row.low != null) group.append("line").attr("class", "interval").attr("x1", x(row.low)).attr("x2", x(row.high)).attr("y1", y).attr("y2", y);
    group.append("circle").attr("class", "dot").attr("r", 4).attr("cx", x(row.value)).attr("cy", y);
    group.append("text").attr("class", "tick value").attr("x", width - 2).attr("y", y + 4).attr("text-anchor", "end").text(estimate(row, unit));
  });
  tips(svg.node(), (d) => (d?.name ? [d.name, estimate(d, unit)] : null));
  return svg.node();
}

/** Attribution, patching, OV, detectors and whatever else there is of it. */
function scores(ctx, id) {
  const rows = ctx.metrics.filter(({ key, table: t }) => t && !/^(ablation|here)/.test(key) && at(t.value, id) != null)
    .map(({ title, table: t, unit }) => [title, estimate(effect(t, id), unit)]);
  const share = at(ctx.task.share, id);
  return rows.length ? section("Scores", h("div", { class: "wide" }, table(["score", "value"], rows)),
    share == null ? null : note(`Class in the repeated searches: ${ctx.task.class?.[id] ?? "none"}.`)) : null;
}

function neighbours(ctx, id) {
  const all = edgesOf(ctx.task);
  if (!all.length) return null;
  const list = (edges, end) => (edges.length ? h("ul", { class: "plain" }, edges.slice(0, 6).map((edge) => h("li", {}, link(ctx, edge[end]),
    end === "sender" && edge.port ? ` into ${edge.port}` : edge.port ? ` (${edge.port})` : "", `: ${estimate(edge, ctx.task.edges.unit ?? "logits")}`, edge.inside ? " \u2022" : ""))) : note("none among the edges of the page"));
  return section(`Neighbours, by ${ctx.task.edges.method}`, h("h4", {}, "reads from"), list(all.filter((e) => e.receiver === id), "sender"),
    h("h4", {}, "is read by"), list(all.filter((e) => e.sender === id), "receiver"),
    note(`${ctx.task.edges.about ?? "Change of the logit difference without the edge: negative, the edge helps"}. \u2022: in the reported edge circuit.`));
}

function positions(ctx, id) {
  const of = ctx.task.positions;
  const rows = (of?.roles ?? []).map((name, i) => ({ name: name.replaceAll("_", " "), value: at(of.value?.[i], id), low: at(of.low?.[i], id), high: at(of.high?.[i], id) })).filter((row) => row.value != null);
  if (!rows.length) return null;
  return section("Positions", h("div", { class: "wide" }, dots(rows, of.centre ?? 0, of.unit ?? "points", Math.min(400, ctx.drawerWidth))),
    note(of.about ?? "Points of percent of full that are lost when it is ablated at positions of that role alone; above 0: it is needed there."));
}

function writes(ctx, id) {
  const of = ctx.task.tokens?.[id];
  if (!of) return isMlp(ctx.model, id) ? section("What it writes", note("Not computed for this MLP.")) : null;
  const list = (pairs) => (pairs ?? []).map(([text, value]) => [token(text), fixed(value, 2)]);
  return section(isMlp(ctx.model, id) ? "What it writes" : "What it writes (OV tokens)", h("div", { class: "two" },
    of.top?.length ? table(["raises", "by"], list(of.top)) : null, of.bottom?.length ? table(["lowers", "by"], list(of.bottom)) : null), of.about ? note(of.about) : null);
}

function backup(ctx, id) {
  const rows = (ctx.task.backup ?? []).filter(([ablated, other]) => ablated === id || other === id);
  if (!rows.length) return null;
  return section("Backup", h("ul", { class: "plain" }, rows.slice(0, 8).map(([ablated, other, change, low, high, probability]) => h("li", {},
    ablated === id ? ["when it is ablated, ", link(ctx, other), " writes "] : ["when ", link(ctx, ablated), " is ablated, it writes "],
    `${change > 0 ? "+" : ""}${estimate({ value: change, low, high }, "logits")} more directly`, probability == null ? "" : ` (p = ${p(probability)})`))),
    rows.length > 8 ? note(`${count(rows.length - 8, "more pair")} in the tables.`) : null);
}
