// The atlas page: reads its data, keeps its state in the address, and draws one view, the drawer and the table beside it.
import { compare } from "./compare.js";
import { dark } from "./colours.js";
import { idOf, isMlp, kinOf, metricsOf, nameOf, read, reported, spoken } from "./data.js";
import { announce, button, byId, choice, h, hideTip, showTip, table } from "./dom.js";
import { circuitScore, drawer, splitName } from "./drawer.js";
import { count, sizes } from "./format.js";
import { graph } from "./graph.js";
import { matrix } from "./matrix.js";
import { moved } from "./keys.js";
import { order } from "./order.js";
import { ordered, prompt } from "./prompt.js";
import { saveCsv, saveSvg } from "./save.js";
import { setUpSearch } from "./search.js";
import { makeState } from "./state.js";

const VIEWS = { graph, matrix, prompt, compare, order };
const viewsOf = (model) => Object.entries(VIEWS).filter(([, view]) => view.has?.(model) ?? true);
const PHONE = 900; // px; the drawer is a sheet at the foot of the page below it
const data = read();
const state = makeState(render);
let printing = false;
const drawn = {}; // keys of what stands on the page, so that only what changed is drawn again

function context() {
  const s = state.get();
  const model = data.models.find((m) => m.name === s.model) ?? data.models[0];
  const task = model.tasks.find((t) => t.name === s.task) ?? model.main[0] ?? model.tasks[0];
  const asked = task.circuits.find(
    (c) => String(c.label) === s.order && (s.threshold == null || String(c.threshold) === s.threshold),
  );
  const circuit = asked ?? reported(task) ?? task.circuits[0] ?? null;
  const selected = idOf(model, s.head);
  const prompts = ordered(model, task, s, selected);
  const shown = prompts.find((p) => String(p.prompt) === s.prompt) ?? prompts[0] ?? null;
  const view = viewsOf(model).find(([key]) => key === s.view)?.[1] ?? graph;
  const wide = document.documentElement.clientWidth;
  return {
    data,
    model,
    task,
    circuit,
    selected,
    prompts,
    prompt: shown,
    state: s,
    view,
    metrics: metricsOf(model, task, shown),
    width: Math.max(300, byId("figure").clientWidth),
    drawerWidth: wide > PHONE ? 368 : Math.max(280, Math.min(wide - 36, 560)), // a window may open as a sliver
    set: (patch, how) => state.set(strings(patch), how),
    open: (id) => state.set({ head: id == null ? null : nameOf(model, id) }),
    tip: (lines, event) => showTip(lines, event.clientX, event.clientY),
  };
}

const strings = (patch) =>
  Object.fromEntries(Object.entries(patch).map(([key, value]) => [key, value == null ? null : String(value)]));

/** Draws what a change of the state touches. */
function render() {
  if (printing) return;
  if (!data.models.length || !data.models.some((m) => m.tasks.length)) {
    byId("finding").textContent = "This page holds no results.";
    return;
  }
  theme(state.get().theme);
  const ctx = context();
  const { view } = ctx;
  const paper = [ctx.width, ctx.drawerWidth, dark()].join("|");
  renew("head", [ctx.model.name, ctx.task.name, state.get().view].join("|"), () => header(ctx));
  const controls = `${view.title}|${view.key(ctx)}`;
  renew("controls", controls, () => withFocus(() => byId("controls").replaceChildren(...view.controls(ctx))));
  view.sync?.(ctx);
  const { edges, select, circuit } = { ...ctx.state, circuit: ctx.circuit };
  const step = view.position ? view.position(ctx) : ctx.state.step; // where the view's slider stands
  renew("figure", [controls, paper, step == null, edges, select, circuit?.label, circuit?.threshold].join("|"), () => {
    hideTip();
    const box = byId("figure");
    const from = document.createDocumentFragment();
    view.draw(ctx, from);
    box.replaceChildren(from);
    byId("main").classList.toggle("caption-first", Boolean(view.captionFirst));
    drawn.step = step;
    drawn.words = null;
  });
  renew("step", step, () => view.step?.(ctx, byId("figure")));
  renew("words", [drawn.figure, step].join("|"), () => {
    byId("figure").setAttribute("aria-label", `${view.title}: ${view.alt(ctx)}`);
    byId("caption").textContent = view.caption(ctx);
    fillTables(ctx);
  });
  view.highlight(ctx, byId("figure"));
  renew(
    "drawer",
    [
      view.title,
      ctx.model.name,
      ctx.task.name,
      ctx.selected,
      ctx.prompt?.prompt,
      ctx.circuit?.label,
      ctx.circuit?.threshold,
      ctx.state.by,
      ctx.state.target,
      paper,
    ].join("|"),
    () => {
      const aside = byId("drawer");
      withFocus(() => aside.replaceChildren(...drawer(ctx).filter(Boolean)));
      document.body.classList.toggle("sheet", ctx.selected != null && view !== prompt); // the Prompt view shows the same
      if (drawn.chosen !== ctx.selected) aside.scrollTop = 0;
      drawn.chosen = ctx.selected;
    },
  );
  document.documentElement.dataset.shown = location.hash; // what is on the page now
}

function renew(name, key, draw) {
  if (drawn[name] === key) return;
  drawn[name] = key;
  draw();
}

/** Keeps the focus on the control of the same id when controls are made anew. */
function withFocus(change) {
  const id = document.activeElement?.id;
  change();
  if (id && document.activeElement?.id !== id) byId(id)?.focus({ preventScroll: true });
}

function theme(name) {
  if (name === "dark" || name === "light") document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
}

// ---- the head of the page ----------------------------------------------------------------------------------------------
function header(ctx) {
  const { model, task, set } = ctx;
  const fresh = { order: null, threshold: null, step: null, prompt: null, select: null, edges: null, inside: null };
  const list = (main) => model.tasks.filter((t) => Boolean(t.main) === main).map((t) => [t.name, t.words]);
  withFocus(() => {
    byId("switches").replaceChildren(
      ...(data.models.length > 1
        ? [
            choice("model", "Model", [["", data.models.map((m) => [m.name, m.name])]], model.name, (name) =>
              set({ ...fresh, model: name, head: null, compare: null }),
            ),
          ]
        : []),
      choice(
        "task",
        "Task",
        [
          ["Searched", list(true)],
          ["Only evaluated", list(false)],
        ],
        task.name,
        (name) => set({ ...fresh, task: name }),
      ),
    );
    byId("views").replaceChildren(
      ...viewsOf(model).map(([key, { title }]) =>
        button(title, () => set({ view: key }), {
          id: `view-${key}`,
          "aria-pressed": String(VIEWS[key] === ctx.view),
        }),
      ),
    );
  });
  byId("finding").replaceChildren(...finding(ctx));
  byId("title").textContent = data.title ?? "Atlas";
  byId("warning").textContent = model.warning ?? "";
  byId("warning").hidden = !model.warning;
  const shape = `${count(model.n_layers, "layer")} of ${count(model.n_heads, "head")} and an MLP`;
  const source = (model.source ?? "").replace(model.warning || "\n", "").trim(); // the warning stands above
  byId("source").textContent = `${model.name} \u00b7 ${source || shape}`;
  document.title = `${task.words}, ${model.name}: ${data.title ?? "atlas"}`;
}

/** What a newcomer should know first, in two sentences. */
function finding({ model, task }) {
  const own = reported(task);
  const mlp = (id) => isMlp(model, id);
  const said = own
    ? [
        h("strong", {}, `${task.words[0].toUpperCase()}${task.words.slice(1)}: `),
        `${sizes(own.members, mlp)}, ${own.members.length} of ${count(model.size, "component")}, keep ${circuitScore(own)} on ${splitName(own.split)}.`,
      ]
    : [
        h("strong", {}, `${task.words[0].toUpperCase()}${task.words.slice(1)}: `),
        "no circuit was searched for on this task; those of other tasks are evaluated on it (Compare).",
      ];
  if (model.main.length > 1) {
    const every = model.ids.filter((id) => kinOf(model, id) === "all");
    said.push(
      ` The reported circuits of all ${count(model.main.length, "searched task")} share ${every.length ? sizes(every, mlp) : "no component"}.`,
    );
  }
  return said;
}

// ---- tables, saving, keys ------------------------------------------------------------------------------------------------
const fileName = (ctx, name) => [ctx.model.name, ctx.task.name, name].join("-").replace(/[^\w.-]+/g, "-");

function fillTables(ctx) {
  const box = byId("tables");
  if (!box.open) {
    byId("table-body").replaceChildren();
    return;
  }
  byId("table-body").replaceChildren(
    ...ctx.view.tables(ctx).map((t) =>
      h(
        "section",
        {},
        h(
          "p",
          {},
          button(`Save "${t.title}" as CSV`, () => saveCsv(fileName(ctx, t.name), t)),
        ),
        h(
          "div",
          { class: "wide", tabindex: 0, role: "region", "aria-label": t.title },
          table(t.header, t.rows, t.title),
        ),
      ),
    ),
  );
}

function keys(event) {
  const typing =
    /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey;
  const ctx = context();
  if (event.key === "Escape" && event.target.id !== "search") ctx.open(null);
  else if (typing) return;
  else if (event.key === "/") byId("search").focus();
  else if (/^[1-9]$/.test(event.key) && viewsOf(ctx.model)[event.key - 1])
    ctx.set({ view: viewsOf(ctx.model)[event.key - 1][0] });
  else if (event.key === "n" || event.key === "p")
    byId(`${byId("view-next") ? "view" : "drawer"}-${event.key === "n" ? "next" : "previous"}`)?.click();
  else if (event.target.id === "figure" && /^(Arrow|Home|End)/.test(event.key)) {
    const patch = moved(ctx, event, byId("figure").querySelector("svg.figure")?.layout?.column);
    if (!patch) return;
    ctx.set(patch, { step: true });
    const now = context();
    if (patch.head)
      announce(
        `${spoken(now.model, now.selected)}${now.task.roleOf.get(now.selected)?.label ? `, ${now.task.roleOf.get(now.selected).label}` : ""}${now.circuit?.members.includes(now.selected) ? ", in the circuit" : ""}`,
      );
    if (patch.prompt) announce(`prompt ${patch.prompt}`);
  } else if (event.target.id === "figure" && event.key === "Enter") byId("drawer").focus();
  else return;
  event.preventDefault();
}

function start() {
  byId("save-svg").addEventListener("click", () => {
    const ctx = context();
    saveSvg(
      fileName(ctx, ctx.state.view),
      byId("figure"),
      `${ctx.view.title}: ${ctx.task.words}, ${ctx.model.name}`,
      ctx.view.caption(ctx),
    );
  });
  byId("save-csv").addEventListener("click", () => {
    const ctx = context();
    const [first] = ctx.view.tables(ctx);
    if (first) saveCsv(fileName(ctx, first.name), first);
  });
  byId("theme").addEventListener("click", () => state.set({ theme: dark() ? "light" : "dark" }, { step: true }));
  byId("tables").addEventListener("toggle", () => fillTables(context()));
  byId("notes").replaceChildren(
    ...[...(data.note ?? []), "Attention weights are kept in steps of 1/255; n/a: not computed or not defined."].map(
      (text) => h("li", {}, text),
    ),
  );
  document.addEventListener("keydown", keys);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
  window.addEventListener("beforeprint", () => {
    printing = true;
    document.documentElement.dataset.theme = "light";
    drawn.figure = drawn.drawer = null;
    printed();
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    drawn.figure = drawn.drawer = null;
    render();
  });
  let width = byId("figure").clientWidth;
  new ResizeObserver(() => {
    if (Math.abs(byId("figure").clientWidth - width) < 8) return;
    width = byId("figure").clientWidth;
    render();
  }).observe(byId("figure"));
  setUpSearch(context);
  render();
  document.documentElement.classList.add("ready");
}

/** On paper all is light, whatever the page's theme. */
function printed() {
  const ctx = context();
  byId("figure").replaceChildren();
  ctx.view.draw(ctx, byId("figure"));
  ctx.view.highlight(ctx, byId("figure"));
  byId("drawer").replaceChildren(...drawer(ctx).filter(Boolean));
}

start();
