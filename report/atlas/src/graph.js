// The graph of a task's circuit: layers from the embeddings (top) to the logits (bottom), heads in columns, MLPs at the
// right; edges between them where the study scored edges; the circuit at every step of a search.
import { select } from "d3-selection";
import { line } from "d3-shape";
import { scaleLinear, scaleSqrt } from "d3-scale";
import { zoom, zoomIdentity } from "d3-zoom";
import { at, circuitName, edgesOf, effect, headOf, isMlp, kinOf, layerOf, membersAt, nameOf, ownEffects, spoken, traceOf } from "./data.js";
import { button, byId, check, choice, h, hideTip, slider, tips } from "./dom.js";
import { count, estimate, fixed, quantity, sizes } from "./format.js";
import { byClass, drawing, drawLegend } from "./look.js";

const MOST_EDGES = 3000;
const SCHEMES = [["sharing", "which tasks share it"], ["stability", "stability of the search"], ["role", "role"]];

/** What is drawn: members of the circuit (at a step of its search, if one is asked for) and edges. */
function shown(ctx) {
  const { model, task, circuit, state } = ctx;
  const trace = traceOf(task, circuit);
  const step = trace && state.step != null ? Math.max(0, Math.min(trace.steps.length - 1, Number(state.step) || 0)) : null;
  const at = step == null ? null : membersAt(model, trace, step);
  const members = at ? at.left : new Set(circuit?.members ?? []);
  const all = step == null ? edgesOf(task, state.inside === "1") : [];
  const most = Math.min(all.length, MOST_EDGES);
  const asked = state.edges == null ? Math.min(most, 60) : Math.max(0, Math.min(most, Number(state.edges) || 0));
  return { trace, step, at, members, edges: all.slice(0, asked), most, asked };
}

/** Ids and edges that lie on drawn paths into or out of a component; direct ones apart. */
function paths(edges, id) {
  const found = { up: new Set(), down: new Set(), nodes: new Set([id]) };
  for (const [from, to, list] of [["receiver", "sender", found.up], ["sender", "receiver", found.down]]) {
    const queue = [id];
    const seen = new Set(queue);
    while (queue.length) {
      const node = queue.pop();
      for (const edge of edges) {
        if (edge[from] !== node) continue;
        list.add(edge);
        found.nodes.add(edge[to]);
        if (!seen.has(edge[to])) seen.add(edge[to]), queue.push(edge[to]);
      }
    }
  }
  return found;
}

const keyOf = (circuit) => (circuit ? `${circuit.label}@${circuit.threshold}` : "");

function layout(model, width) {
  const left = 34;
  const column = Math.max(10.5, Math.min(74, (width - left - 14) / (model.n_heads + 1.5)));
  const row = Math.max(22, Math.min(74, 640 / model.n_layers));
  const top = 46;
  const largest = Math.min(column * 0.46, row * 0.42, 21);
  return {
    left, column, row, top, largest, smallest: Math.max(2.6, Math.min(largest * 0.6, 8)),
    width: left + column * (model.n_heads + 1.5) + 14,
    bottom: top + row * model.n_layers + 4,
    at(id) {
      if (id < 0) return { x: left + (column * model.n_heads) / 2, y: id === -1 ? top - 26 : top + row * model.n_layers + 18 };
      const shift = isMlp(model, id) ? 0.5 : 0;
      return { x: left + column * (headOf(model, id) + 0.5 + shift), y: top + row * (layerOf(model, id) + 0.5) };
    },
  };
}

function curve(from, to, low, high) {
  if (Math.abs(from.y - to.y) < 1) { // from a head to the MLP of its layer
    const dip = from.y + low + 12;
    return `M${from.x},${from.y + low}C${from.x},${dip} ${to.x - 14},${dip} ${to.x - high},${to.y}`;
  }
  const [y1, y2] = [from.y + low, to.y - high];
  const bend = Math.max(10, (y2 - y1) * 0.45);
  return `M${from.x},${y1}C${from.x},${y1 + bend} ${to.x},${y2 - bend} ${to.x},${y2}`;
}

function describe(ctx, id) {
  const { model, task } = ctx;
  const own = ownEffects(model, task);
  const role = task.roleOf.get(id)?.label;
  return [
    spoken(model, id),
    role ? `role: ${role}` : null,
    own ? `ablated alone: ${estimate(effect(own[1], id), "%")} of full is left` : null,
    at(task.share, id) == null ? null : `kept by ${quantity(100 * at(task.share, id), "%")} of searches${task.class?.[id] ? ` (${task.class[id]})` : ""}`,
    model.holders.get(id).length ? `in the circuit of ${model.holders.get(id).map((t) => t.words).join(", ")}` : "in no main task's circuit",
    "click: what it does, and its paths",
  ];
}

function edgeText(ctx, edge) {
  const { model, task } = ctx;
  const to = nameOf(model, edge.receiver) + (edge.port ? ` (${edge.port})` : "");
  return [
    `${nameOf(model, edge.sender)} \u2192 ${to}`,
    `${estimate(edge, task.edges.unit ?? "logits")} by ${task.edges.method ?? "its method"}`,
    task.edges.about ?? "change of the logit difference without the edge; negative: the edge helps",
    edge.inside ? "in the reported edge circuit" : "not in the reported edge circuit",
  ];
}

export const graph = {
  title: "Graph",

  key: ({ model, task, circuit, state }) => [model.name, task.name, keyOf(circuit), state.inside, state.colour].join("|"),

  controls(ctx) {
    const { model, task, circuit, state, set } = ctx;
    const { trace, step, most, asked } = shown(ctx);
    const list = task.circuits.map((c) => [keyOf(c), circuitName(c)]);
    const made = [choice("circuit", "Circuit: order, threshold", [["", list]], keyOf(circuit), (value) => {
      const picked = task.circuits.find((c) => keyOf(c) === value);
      set(picked.reported ? { order: null, threshold: null, step: null } : { order: picked.label, threshold: picked.threshold, step: null });
    })];
    made.push(choice("colour", "Colour", [["", SCHEMES]], state.colour, (colour) => set({ colour })));
    if (edgesOf(task).length) {
      made.push(slider("edges", "Edges, strongest first", { min: 0, max: most, value: asked, text: (n) => `${n} of ${most}` }, (n) => set({ edges: n, step: null }, { step: true })));
      made.push(check("inside", "of the edge circuit only", state.inside === "1", (on) => set({ inside: on ? "1" : null })));
    }
    if (trace) {
      const last = trace.steps.length - 1;
      const text = (k) => (k >= last && step == null ? "finished circuit" : stepText(model, trace, k));
      made.push(slider("step", "Search, step by step", { min: 0, max: last, value: step ?? last, text }, (k) => set({ step: k }, { step: true })));
      made.push(button("Finished circuit", () => set({ step: null }), { id: "finished" }));
    }
    return list.length || made.length > 2 ? made : [h("p", { class: "note" }, "No circuit was searched for on this task.")];
  },

  /** Sliders follow the state when something else than they changed it. */
  sync(ctx) {
    const { trace, step, most, asked } = shown(ctx);
    const follow = (id, value, text) => {
      const input = byId(id);
      if (!input) return;
      if (Number(input.value) !== value) input.value = value;
      input.setAttribute("aria-valuetext", text);
      input.parentElement.querySelector("output").textContent = text;
    };
    if (trace) follow("step", step ?? trace.steps.length - 1, step == null ? "finished circuit" : stepText(ctx.model, trace, step));
    follow("edges", asked, `${asked} of ${most}`);
    const button = byId("finished");
    if (button) button.disabled = step == null;
  },

  draw(ctx, box) {
    const { model, task, state } = ctx;
    const view = shown(ctx);
    const own = ownEffects(model, task);
    const lost = (id) => Math.max(0, 100 - (at(own?.[1].value, id) ?? 100));
    const place = layout(model, Math.min(ctx.width, 1080));
    const largest = Math.max(1e-9, ...[...view.members].filter((id) => !isMlp(model, id)).map(lost));
    const radius = scaleSqrt([0, largest], [place.smallest, place.largest]).clamp(true);
    const size = (id) => (id < 0 ? 0 : view.members.has(id) ? radius(lost(id)) : place.smallest * 0.62);
    const classes = byClass(model, task, state.colour);
    const legend = [...classes.legend, { fill: "var(--paper)", stroke: "var(--faint)", text: "not in this circuit" }];
    if (view.edges.length) legend.push({ line: true, stroke: "var(--grey)", text: "edge that helps" }, { dash: "4 3", stroke: "var(--grey)", text: "edge that hinders" });
    const svg = drawing(Math.max(place.width, 340), place.bottom + 130, graph.alt(ctx));
    const scene = svg.append("g").attr("class", "scene");
    backdrop(scene, model, place);
    drawEdges(scene, view, place, size);
    drawNodes(scene, ctx, view, place, size, classes);
    const below = svg.append("g");
    const taken = drawLegend(below, legend, 6, place.bottom + 38, Math.max(place.width, 340) - 12);
    svg.attr("height", place.bottom + 44 + taken).attr("viewBox", `0 0 ${Math.max(place.width, 340)} ${place.bottom + 44 + taken}`);
    const node = svg.node();
    node.view = view;
    box.append(h("div", { class: "zoom" }, ...zoomButtons(svg, scene)), node);
    if (view.trace) box.append(trajectory(ctx, view, Math.min(ctx.width, 1080)));
    tips(node, (datum) => (typeof datum === "number" ? describe(ctx, datum) : datum?.receiver !== undefined ? edgeText(ctx, datum) : null));
    node.addEventListener("click", ({ target }) => {
      const datum = target.__data__;
      if (typeof datum === "number" && datum >= 0) ctx.open(datum);
      else if (!target.closest(".node")) ctx.open(null);
    });
    graph.highlight(ctx, box);
  },

  highlight(ctx, box) {
    const svg = select(box).select("svg.figure");
    if (svg.empty()) return;
    const id = ctx.selected;
    const found = id == null ? null : paths(svg.node().view.edges, id);
    svg.selectAll("path.edge")
      .classed("up", (edge) => Boolean(found?.up.has(edge)))
      .classed("down", (edge) => Boolean(found?.down.has(edge)))
      .classed("off", (edge) => Boolean(found && (found.up.size || found.down.size) && !found.up.has(edge) && !found.down.has(edge)));
    svg.selectAll("g.node").classed("here", (node) => node === id)
      .classed("off", (node) => Boolean(found && found.nodes.size > 1 && !found.nodes.has(node)));
  },

  alt(ctx) {
    const { model, task } = ctx;
    const view = shown(ctx);
    return `Circuit of ${task.words} in ${model.name}: ${sizes([...view.members], (id) => isMlp(model, id))} of ${model.size} components, layers from top to bottom, ${count(view.edges.length, "edge")} drawn. The table below says the same.`;
  },

  caption(ctx) {
    const { model, task, circuit } = ctx;
    const { step, at, members, edges, trace, most } = shown(ctx);
    const own = ownEffects(model, task);
    const what = step == null ? "" : `Step ${step} of ${trace.steps.length - 1}: ${stepText(model, trace, step)}. `;
    const kept = circuit ? `${sizes([...members], (id) => isMlp(model, id))} of ${model.size} components are left` : "No circuit was searched for on this task; components are those of other tasks' circuits";
    const size = own ? ` The area of a member grows with what is lost when it alone is ablated (${own[0].replaceAll("_", " ")}).` : "";
    const drawn = edges.length ? ` Lines: the ${edges.length} strongest of ${most} edges, by ${task.edges.method}; the width grows with the square root of the score.` : step == null && !most ? " Edges were not scored for this task." : "";
    const how = " Circles are heads, squares MLPs. Click one for what it does and for the paths through it; drag to move, Ctrl and wheel to zoom.";
    return `${what}${kept}${at ? ", measured on the search prompts" : ""}.${size}${drawn}${how}${model.threshold == null || !circuit ? "" : ` Threshold ${circuit.threshold}\u00a0%: a circuit keeps more than ${fixed(100 - circuit.threshold, 0)}\u00a0% of the full model's logit difference.`}`;
  },

  tables(ctx) {
    const { model, task } = ctx;
    const { members, edges } = shown(ctx);
    const own = ownEffects(model, task)?.[1];
    const components = [...members].sort((a, b) => a - b).map((id) => [nameOf(model, id), layerOf(model, id), task.roleOf.get(id)?.label ?? "",
      kinOf(model, id) ?? "", task.class?.[id] ?? "", at(task.share, id), at(own?.value, id), at(own?.low, id), at(own?.high, id)]);
    const tables = [{ title: "Components of the circuit", name: "circuit", rows: components,
      header: ["component", "layer", "role", "shared by main tasks", "stability", "share of searches", "% of full, ablated alone", "low", "high"] }];
    if (edges.length) {
      tables.push({ title: "Edges drawn", name: "edges", header: ["sender", "receiver", "port", "score", "low", "high", "in edge circuit"],
        rows: edges.map((e) => [nameOf(model, e.sender), nameOf(model, e.receiver), e.port, e.value, e.low, e.high, e.inside ? 1 : 0]) });
    }
    return tables;
  },
};

export function stepText(model, trace, k) {
  const [tried, percent, removed] = trace.steps[k] ?? [];
  if (!tried?.length) return `full model, ${quantity(percent, "%")}`;
  const names = tried.length > 4 ? count(tried.length, "component") : tried.map((id) => nameOf(model, id)).join(", ");
  return `without ${names} ${quantity(percent, "%")} is left: ${removed ? "removed" : "kept"}`;
}

function backdrop(scene, model, place) {
  const right = place.width - 8;
  const axis = scene.append("g").attr("class", "axis");
  for (const id of [-1, -2]) {
    const { y } = place.at(id);
    axis.append("rect").attr("class", "bar").attr("x", place.left).attr("width", right - place.left).attr("y", y - 8).attr("height", 16).attr("rx", 8);
    axis.append("text").attr("class", "bar-text").attr("x", (place.left + right) / 2).attr("y", y + 3.5).attr("text-anchor", "middle").text(id === -1 ? "embeddings" : "logits");
  }
  for (let layer = 0; layer < model.n_layers; layer++) {
    const y = place.top + place.row * (layer + 0.5);
    axis.append("line").attr("x1", place.left).attr("x2", right).attr("y1", y).attr("y2", y);
    axis.append("text").attr("x", place.left - 8).attr("y", y + 3.5).attr("text-anchor", "end").text(layer);
  }
  axis.append("text").attr("x", 2).attr("y", place.top - 4).text("layer");
}

function drawEdges(scene, view, place, size) {
  const largest = Math.max(1e-12, ...view.edges.map((edge) => Math.abs(edge.value ?? 0)));
  const width = scaleSqrt([0, largest], [0.5, 4]);
  const radius = (id) => (id < 0 ? 8 : size(id));
  const spread = (id, other) => { // the ends are wide bars: edges meet them above or below the other component
    const here = place.at(id);
    return id < 0 ? { x: other.x, y: here.y } : here;
  };
  scene.append("g").attr("class", "edges").selectAll("path").data([...view.edges].reverse()).join("path")
    .attr("class", (edge) => (edge.value > 0 ? "edge hinders" : "edge"))
    .attr("d", (edge) => curve(spread(edge.sender, place.at(edge.receiver)), spread(edge.receiver, place.at(edge.sender)), radius(edge.sender), radius(edge.receiver)))
    .style("stroke-width", (edge) => width(Math.abs(edge.value ?? 0)).toFixed(2))
    .style("stroke-opacity", (edge) => (0.25 + 0.5 * Math.sqrt(Math.abs(edge.value ?? 0) / largest)).toFixed(2));
}

function drawNodes(scene, ctx, view, place, size, classes) {
  const { model } = ctx;
  const touched = new Set(view.edges.flatMap((edge) => [edge.sender, edge.receiver]));
  const nodes = scene.append("g").attr("class", "nodes").selectAll("g").data(model.ids).join("g")
    .attr("class", (id) => `node ${view.members.has(id) ? "member" : touched.has(id) ? "touched" : "ghost"}${view.at?.tried.has(id) ? " tried" : ""}`)
    .attr("transform", (id) => `translate(${place.at(id).x.toFixed(1)},${place.at(id).y.toFixed(1)})`);
  nodes.each(function draw(id) {
    const node = select(this);
    const member = view.members.has(id);
    const r = touched.has(id) && !member ? place.smallest * 0.8 : size(id);
    const look = (member && classes.look(id)) || { fill: member ? "var(--ghost)" : "var(--paper)", stroke: member ? "var(--ink)" : touched.has(id) ? "var(--grey)" : "var(--faint)" };
    const shape = isMlp(model, id)
      ? node.append("rect").attr("x", -0.9 * r).attr("y", -0.9 * r).attr("width", 1.8 * r).attr("height", 1.8 * r).attr("rx", 1.5)
      : node.append("circle").attr("r", r);
    shape.attr("class", "shape").datum(id).style("fill", look.fill).style("stroke", look.stroke);
    // A larger target than the mark
    node.append("rect").datum(id).attr("class", "target").attr("x", -place.column / 2).attr("width", place.column).attr("y", -place.row / 2).attr("height", place.row);
    if (member) {
      const inside = r >= 12;
      node.append("text").datum(id).attr("class", inside ? "name halo" : "name halo small").attr("text-anchor", "middle").attr("y", inside ? 3.5 : r + 8.5)
        .text(place.column >= 24 || !inside ? nameOf(model, id) : "").attr("display", place.column >= 20 || isMlp(model, id) ? null : "none");
    }
  });
}

function zoomButtons(svg, scene) {
  const behaviour = zoom().scaleExtent([0.6, 8])
    .filter((event) => (event.type === "wheel" ? event.ctrlKey || event.metaKey : event.type.startsWith("touch") ? event.touches.length > 1 : !event.button))
    .on("zoom", ({ transform }) => scene.attr("transform", transform));
  svg.call(behaviour).on("dblclick.zoom", null);
  return [
    button("+", () => behaviour.scaleBy(svg, 1.4), { "aria-label": "Zoom in", title: "Zoom in" }),
    button("\u2212", () => behaviour.scaleBy(svg, 1 / 1.4), { "aria-label": "Zoom out", title: "Zoom out" }),
    button("1:1", () => behaviour.transform(svg, zoomIdentity), { "aria-label": "Whole graph", title: "Whole graph" }),
  ];
}

/** Percent of full after every step of the search; the floor is the threshold's. */
function trajectory(ctx, view, width) {
  const { model, circuit, set } = ctx;
  const steps = view.trace.steps;
  const floor = 100 - circuit.threshold;
  const values = steps.map((step) => step[1]).filter((v) => v != null);
  const [low, high] = [Math.min(floor - 4, ...values.map((v) => Math.max(v, floor - 40))), Math.max(102, ...values)];
  const [w, height, left] = [Math.max(320, width), 120, 40];
  const svg = drawing(w, height, `Percent of the full model left at each of ${steps.length} steps of the search; the floor is ${fixed(floor, 0)} percent.`);
  const x = scaleLinear([0, Math.max(1, steps.length - 1)], [left, w - 12]);
  const y = scaleLinear([low, high], [height - 22, 16]).clamp(true);
  svg.append("text").attr("class", "axis-title").attr("x", 2).attr("y", 10).text("percent of full left, search prompts; dots: tried and kept");
  for (const tick of [floor, 100]) {
    svg.append("line").attr("class", tick === floor ? "floor" : "rule").attr("x1", left).attr("x2", w - 12).attr("y1", y(tick)).attr("y2", y(tick));
    svg.append("text").attr("class", "tick").attr("x", left - 5).attr("y", y(tick) + 3.5).attr("text-anchor", "end").text(fixed(tick, 0));
  }
  let last = 100;
  const kept = steps.map((step) => (last = step[2] || !step[0]?.length ? step[1] ?? last : last));
  svg.append("path").attr("class", "curve").attr("d", line((_, i) => x(i), (v) => y(v))(kept));
  svg.append("g").selectAll("circle").data(steps.map((step, i) => ({ i, step })).filter(({ step }) => step[0]?.length && !step[2])).join("circle")
    .attr("class", "kept").attr("r", 2).attr("cx", ({ i }) => x(i)).attr("cy", ({ step }) => y(step[1] ?? low));
  if (view.step != null) svg.append("line").attr("class", "cursor").attr("x1", x(view.step)).attr("x2", x(view.step)).attr("y1", 14).attr("y2", height - 20);
  svg.append("text").attr("class", "tick").attr("x", left).attr("y", height - 7).text("step 0");
  svg.append("text").attr("class", "tick").attr("x", w - 12).attr("y", height - 7).attr("text-anchor", "end").text(steps.length - 1);
  const node = svg.node();
  const where = (event) => {
    const box = node.getBoundingClientRect();
    return Math.max(0, Math.min(steps.length - 1, Math.round(x.invert(((event.clientX - box.left) * w) / box.width))));
  };
  svg.append("rect").attr("class", "target").datum(null).attr("x", left).attr("width", w - left - 12).attr("y", 12).attr("height", height - 30);
  node.addEventListener("pointerleave", hideTip);
  node.addEventListener("pointermove", (event) => ctx.tip([`step ${where(event)}`, stepText(model, view.trace, where(event))], event));
  node.addEventListener("click", (event) => set({ step: where(event) }, { step: true }));
  return node;
}
