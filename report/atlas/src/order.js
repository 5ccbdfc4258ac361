// How the model represents order: successor heads, how members lie at each layer, and what each analysis found.
import { classWords, headOf, idOf, isMlp, layerOf, nameOf, NEXT } from "./data.js";
import { button, byId, choice, follow, h, slider, table } from "./dom.js";
import { count } from "./format.js";
import { mark } from "./grid.js";
import { curve, moveTo, pointName, scatter } from "./members.js";
import { scoresOf, successorAlt, successorMap, successorTable, targetsOf } from "./successors.js";

const PAIRS = [
  ["12", "PC 1 and 2"],
  ["13", "PC 1 and 3"],
  ["23", "PC 2 and 3"],
];

/** What is asked for: a class, its scores, its layout with the point shown, and its shapes. */
function asked({ model, task, state }) {
  const { classes = [], layouts = [], shapes = [] } = model.order ?? {};
  const names = classes.map((one) => one.name);
  const name = [state.class, task.name].find((one) => names.includes(one)) ?? names[0] ?? null;
  const targets = targetsOf(model, name);
  const keys = targets.flatMap(([, list]) => list.map(([key]) => key));
  const target = [state.target, NEXT].find((key) => keys.includes(key)) ?? keys[0];
  const own = layouts.filter((one) => one.class === name);
  const layout = own.find((one) => one.at === state.at) ?? own[0] ?? null;
  const curves = shapes.filter((one) => one.class === name && (!layout || one.at === layout.at));
  const i = layout ? pointAt(layout, state.layer) : null;
  const pcs = PAIRS.some(([key]) => key === state.pcs) ? state.pcs : PAIRS[0][0];
  return {
    name,
    targets,
    target,
    scores: scoresOf(model, name, target),
    wheres: own.map((one) => [one.at, one.where]),
    layout,
    curves,
    shape: curves.find((one) => one.shape === state.shape) ?? curves[0] ?? null,
    i,
    point: layout?.points[i] ?? null,
    pcs: [...pcs].map((n) => Number(n) - 1),
    pair: pcs,
  };
}

/** The number of the point nearest to the layer asked for; by itself where the class's shape stands out most. */
function pointAt({ points, best }, layer) {
  const asked = layer == null || layer === "" ? NaN : Number(layer);
  const wanted = Number.isFinite(asked) ? asked : (best ?? points.at(-1));
  const apart = (point) => Math.abs(point - wanted);
  return points.reduce((near, point, i) => (apart(point) < apart(points[near]) ? i : near), 0);
}

const panel = (title, ...parts) => h("section", { class: "panel" }, h("h3", {}, title), ...parts);
const note = (text) => h("p", { class: "note" }, text);
const half = (ctx) => (ctx.width > 760 ? (ctx.width - 24) / 2 : ctx.width) - 8;

export const order = {
  title: "Order",
  captionFirst: true,

  /** Whether a model has it: a study that leaves all of its analyses out has not. */
  has: (model) => Boolean(model.order),

  key: (ctx) => {
    const { name, target, layout, shape, pair } = asked(ctx);
    return [ctx.model.name, ctx.task.name, name, target, layout?.at, shape?.shape, pair].join("|");
  },

  controls(ctx) {
    const { model, set } = ctx;
    const { name, targets, target, wheres, layout, curves, shape, i, pair } = asked(ctx);
    const made = [];
    const classes = (model.order.classes ?? []).map((one) => [one.name, one.words]);
    if (classes.length)
      made.push(choice("class", "Class", [["", classes]], name, (now) => set({ class: now, layer: null })));
    if (targets.length) made.push(choice("target", "Score of heads", targets, target, (now) => set({ target: now })));
    if (wheres.length > 1) made.push(choice("at", "Read", [["", wheres]], layout.at, (at) => set({ at, layer: null })));
    if (curves.length > 1)
      made.push(
        choice("shape", "By layer", [["", curves.map((one) => [one.shape, one.words])]], shape.shape, (now) =>
          set({ shape: now }),
        ),
      );
    if (layout) {
      const last = layout.points.length - 1;
      if (layout.explained[0]?.length > 2)
        made.push(choice("pcs", "Components", [["", PAIRS]], pair, (pcs) => set({ pcs })));
      const to = (k) => set({ layer: layout.points[k] }, { step: true });
      made.push(
        h(
          "div",
          { class: "fields stepped" },
          slider("layer", "Layer", { min: 0, max: last, value: i, text: (k) => pointName(layout.points[k]) }, to),
          stepper(to),
        ),
      );
    }
    return made;
  },

  /** Where the slider stands: what changes with it is drawn alone. */
  position: (ctx) => asked(ctx).point,

  sync(ctx) {
    const { layout, i } = asked(ctx);
    if (!layout) return;
    follow("layer", i, pointName(layout.points[i]));
    for (const [id, end] of [
      ["view-previous", 0],
      ["view-next", layout.points.length - 1],
    ])
      if (byId(id)) byId(id).disabled = i === end;
  },

  draw(ctx, box) {
    const { model, set } = ctx;
    const found = asked(ctx);
    const { name, scores, layout, shape } = found;
    const words = classWords(model, name);
    const width = half(ctx);
    const panels = [];
    if (scores) panels.push(panel(`Successor heads: ${words}, ${scores.words}`, successorMap(ctx, scores, width)));
    const go = (point) => set({ layer: point }, { step: true });
    if (layout || shape) {
      const alt = shape ? shapeAlt(ctx, shape) : "";
      panels.push(
        panel(
          `How ${words} lie${layout ? `, ${layout.where}` : ""}`,
          layout ? h("div", { class: "wide", id: "layout" }, drawLayout(ctx, found)) : null,
          shape ? h("div", { class: "wide" }, curve(shape, found.point, width, alt, go)) : null,
          shape ? note(shape.about) : null,
        ),
      );
    }
    if (panels.length) box.append(h("div", { class: "panels" }, panels));
    const parts = (model.order.parts ?? []).map(part);
    if (parts.length) box.append(h("div", { class: "panels parts" }, parts));
    if (!box.childNodes.length) box.append(note("No analysis of order has results."));
  },

  /** Another point: the layout is drawn anew, the curves keep all but where their line stands. */
  step(ctx, box) {
    const found = asked(ctx);
    box.querySelector("#layout")?.replaceChildren(drawLayout(ctx, found));
    for (const node of box.querySelectorAll(".shape-curve")) moveTo(node, found.point);
  },

  highlight(ctx, box) {
    const node = box.querySelector("svg.figure");
    if (node?.layout) mark(node, ctx.model, ctx.selected);
  },

  alt(ctx) {
    const { name, scores } = asked(ctx);
    return scores ? successorAlt(ctx, scores) : `How ${classWords(ctx.model, name)} lie, layer by layer.`;
  },

  caption(ctx) {
    const { layout, scores, point } = asked(ctx);
    const map = scores ? "Map: a row a layer, the first at the top, a column a head; click one for what it does. " : "";
    const lie = layout
      ? `Layout: means of the members, ${pointName(point)}, by their principal components, joined in their order (dashed around the end and over members of several tokens), the first the faintest; below it how sure their shape is, layer by layer. Keys n and p turn the layer.`
      : "";
    return map + lie;
  },

  tables(ctx) {
    const { name, scores, layout, curves, i, point } = asked(ctx);
    const words = classWords(ctx.model, name);
    const made = scores ? [successorTable(ctx, scores)] : [];
    if (layout) {
      const axes = layout.explained[i].map((_, j) => `PC ${j + 1}`);
      made.push({
        title: `Members of ${words}, ${pointName(point)}, ${layout.where}`,
        name: `members-${name}-${point}`,
        header: ["member", ...axes],
        rows: layout.members.map((member, k) => [member, ...layout.coordinates[i][k]]),
      });
    }
    for (const shape of curves)
      made.push({
        title: `${shape.title}, ${words}, ${shape.words}`,
        name: `shape-${name}-${shape.shape}`.replaceAll(":", "-"),
        header: ["point", "value", "null, low", "null, high", "corrected p"],
        rows: shape.points.map((at, k) => [
          pointName(at),
          shape.value[k],
          shape.null_low?.[k] ?? null,
          shape.null_high?.[k] ?? null,
          shape.p?.[k] ?? null,
        ]),
      });
    for (const one of ctx.model.order.parts ?? [])
      for (const t of one.tables ?? []) made.push({ ...t, name: `${one.name}-${t.title}` });
    return made;
  },
};

function drawLayout(ctx, found) {
  const { layout, i, pcs, name, point } = found;
  const alt = `${layout.members.length} ${classWords(ctx.model, name)} ${pointName(point)}, by principal components ${pcs.map((k) => k + 1).join(" and ")}. The table below says the same.`;
  return scatter(layout, i, pcs, half(ctx), alt);
}

function shapeAlt({ model }, shape) {
  const sure = shape.points.filter((_, k) => shape.p?.[k] != null && shape.p[k] < 0.05);
  const where = sure.length ? `sure at ${sure.map(pointName).join(", ")}` : "sure nowhere";
  return `${shape.title} of ${classWords(model, shape.class)} at ${shape.points.length} points: ${where}. The table below says the same.`;
}

/** Earlier and later point; the keys n and p press them too. */
function stepper(to) {
  const move = (by) => () => to(Number(byId("layer").value) + by);
  return h(
    "p",
    { class: "stepper" },
    button("\u2039 earlier", move(-1), { id: "view-previous" }),
    button("later \u203a", move(1), { id: "view-next" }),
  );
}

const unfolded = new Set(); // what was folded out stays so when the figure is drawn again

function fold(key, summary, ...held) {
  const remember = ({ target }) => (target.open ? unfolded.add(key) : unfolded.delete(key));
  return h("details", { open: unfolded.has(key), ontoggle: remember }, h("summary", {}, summary), held);
}

/** What an analysis found, in words; more of them, and its tables, fold out. */
function part({ name, title, sentences = [], tables = [], note: about }) {
  const [first, ...others] = sentences;
  const list = others.map((text) => h("li", {}, text));
  const more = `${others.length} more ${others.length === 1 ? "finding" : "findings"}`;
  return h(
    "section",
    { class: tables.some((t) => t.open) ? "panel spread" : "panel" }, // a table that is seen at once gets the width
    h("h3", {}, title),
    first ? h("p", {}, first) : null,
    others.length ? fold(`${name} findings`, more, h("ul", {}, list)) : null,
    tables.map((t) => {
      const held = h(
        "div",
        { class: "wide", tabindex: 0, role: "region", "aria-label": t.title },
        table(t.header, t.rows),
        t.note ? note(t.note) : null,
      );
      return t.open ? held : fold(`${name} ${t.title}`, `Table: ${t.title} (${count(t.rows.length, "row")})`, held);
    }),
    about ? fold(`${name} note`, "What these numbers are", note(about)) : null,
  );
}

/** Where an arrow key leads in the map of heads. */
export function movedInOrder({ model, selected, circuit }, event, [down, across]) {
  const heads = model.n_heads;
  if (selected == null || isMlp(model, selected))
    return { head: nameOf(model, circuit?.members.find((id) => !isMlp(model, id)) ?? idOf(model, "0.0")) };
  const [layer, head] = [layerOf(model, selected), headOf(model, selected)];
  const to = Math.max(0, Math.min(model.n_layers - 1, layer + down));
  const place = { Home: 0, End: heads - 1 }[event.key] ?? Math.max(0, Math.min(heads - 1, head + across));
  return { head: `${to}.${place}` };
}
