// The graph of a task's circuit: layers from the embeddings (top) to the logits (bottom), heads in columns, MLPs at the
// right; edges between them where the study scored edges; the circuit at every step of a search.
import { select } from "d3-selection";
import { scaleSqrt } from "d3-scale";
import {
  at,
  circuitName,
  edgesOf,
  hasInside,
  effect,
  isMlp,
  kinOf,
  layerOf,
  membersAt,
  nameOf,
  ownEffects,
  spoken,
  traceOf,
} from "./data.js";
import { button, byId, check, choice, follow, h, slider, tips } from "./dom.js";
import { count, estimate, fixed, quantity, sizes } from "./format.js";
import { byClass, drawing, drawLegend, UNCLASSED } from "./look.js";
import { backdrop, drawEdges, drawNodes, layout, zoomButtons } from "./scene.js";
import { moveCursor, stepText, trajectory } from "./steps.js";

const MOST_EDGES = 3000;
const SCHEMES = [
  ["sharing", "which tasks share it"],
  ["stability", "stability of the search"],
  ["role", "role"],
];

/** Only edges of the reported edge circuit? Where there is one, unless the state says no. */
const within = ({ task, state }) => hasInside(task) && state.inside !== "0";

/** What is drawn: members of the circuit (at a step of its search, if one is asked for) and, of the finished one, edges. */
function shown(ctx) {
  const { model, task, circuit, state } = ctx;
  const trace = traceOf(task, circuit);
  const step =
    trace && state.step != null ? Math.max(0, Math.min(trace.steps.length - 1, Number(state.step) || 0)) : null;
  const at = step == null ? null : membersAt(model, trace, step);
  const members = at ? at.left : new Set(circuit?.members ?? []);
  const all = edgesOf(task, within(ctx));
  const most = Math.min(all.length, MOST_EDGES);
  const asked = state.edges == null ? Math.min(most, 60) : Math.max(0, Math.min(most, Number(state.edges) || 0));
  return { trace, step, at, members, edges: step == null ? all.slice(0, asked) : [], most, asked };
}

/** Ids and edges that lie on drawn paths into or out of a component; direct ones apart. */
function paths(edges, id) {
  const found = { up: new Set(), down: new Set(), nodes: new Set([id]) };
  for (const [from, to, list] of [
    ["receiver", "sender", found.up],
    ["sender", "receiver", found.down],
  ]) {
    const queue = [id];
    const seen = new Set(queue);
    while (queue.length) {
      const node = queue.pop();
      for (const edge of edges) {
        if (edge[from] !== node) continue;
        list.add(edge);
        found.nodes.add(edge[to]);
        if (!seen.has(edge[to])) (seen.add(edge[to]), queue.push(edge[to]));
      }
    }
  }
  return found;
}

const keyOf = (circuit) => (circuit ? `${circuit.label}@${circuit.threshold}` : "");

function describe(ctx, id) {
  const { model, task } = ctx;
  const own = ownEffects(model, task);
  const role = task.roleOf.get(id)?.label;
  return [
    spoken(model, id),
    role ? `role: ${role}` : null,
    own ? `ablated alone: ${estimate(effect(own[1], id), "%")} of full is left` : null,
    at(task.share, id) == null
      ? null
      : `kept by ${quantity(100 * at(task.share, id), "%")} of searches${task.class?.[id] ? ` (${task.class[id]})` : ""}`,
    model.holders.get(id).length
      ? `in the circuit of ${model.holders
          .get(id)
          .map((t) => t.words)
          .join(", ")}`
      : "in no main task's circuit",
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

  key: ({ model, task, circuit, state }) =>
    [model.name, task.name, keyOf(circuit), state.inside, state.colour].join("|"),

  controls(ctx) {
    const { model, task, circuit, state, set } = ctx;
    const { trace, step, most, asked } = shown(ctx);
    const list = task.circuits.map((c) => [keyOf(c), circuitName(c)]);
    const made = [
      choice("circuit", "Circuit: order, threshold", [["", list]], keyOf(circuit), (value) => {
        const picked = task.circuits.find((c) => keyOf(c) === value);
        set(
          picked.reported
            ? { order: null, threshold: null, step: null }
            : { order: picked.label, threshold: picked.threshold, step: null },
        );
      }),
    ];
    made.push(choice("colour", "Colour", [["", SCHEMES]], state.colour, (colour) => set({ colour })));
    if (edgesOf(task).length) {
      made.push(
        slider(
          "edges",
          "Edges, strongest first",
          { min: 0, max: most, value: asked, text: (n) => `${n} of ${most}` },
          (n) => set({ edges: n, step: null }, { step: true }),
        ),
      );
      if (hasInside(task)) {
        made.push(
          check("inside", "of the edge circuit only", within(ctx), (on) =>
            set({ inside: on ? null : "0", edges: null }),
          ),
        );
      }
    }
    if (trace) {
      const last = trace.steps.length - 1;
      const text = (k) => (k >= last && step == null ? "finished circuit" : stepText(model, trace, k));
      made.push(
        slider("step", "Search, step by step", { min: 0, max: last, value: step ?? last, text }, (k) =>
          set({ step: k }, { step: true }),
        ),
      );
      made.push(button("Finished circuit", () => set({ step: null }), { id: "finished" }));
    }
    return list.length || made.length > 2
      ? made
      : [h("p", { class: "note" }, "No circuit was searched for on this task.")];
  },

  /** Sliders follow the state when something else than they changed it. */
  sync(ctx) {
    const { trace, step, most, asked } = shown(ctx);
    if (trace)
      follow(
        "step",
        step ?? trace.steps.length - 1,
        step == null ? "finished circuit" : stepText(ctx.model, trace, step),
      );
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
    const largest = Math.max(1e-9, ...model.ids.filter((id) => !isMlp(model, id)).map(lost));
    const radius = scaleSqrt([0, largest], [place.smallest, place.largest]).clamp(true);
    const size = (id, { members }) => (members.has(id) ? radius(lost(id)) : place.smallest * 0.62);
    const classes = byClass(model, task, state.colour);
    const legend = [
      ...classes.legend,
      ...([...view.members].some((id) => !classes.look(id))
        ? [{ ...UNCLASSED, text: "in this circuit, of none of these" }]
        : []),
      { fill: "var(--paper)", stroke: "var(--faint)", text: "not in this circuit" },
    ];
    if (!classes.legend.length) legend.push({ note: true, text: classes.empty });
    if (view.edges.length)
      legend.push(
        { line: true, stroke: "var(--grey)", text: "edge that helps" },
        { dash: "4 3", stroke: "var(--grey)", text: "edge that hinders" },
      );
    const svg = drawing(Math.max(place.width, 340), place.bottom + 130, graph.alt(ctx));
    const scene = svg.append("g").attr("class", "scene");
    backdrop(scene, model, place);
    drawEdges(scene, view, place, size);
    drawNodes(scene, ctx, view, place, size, classes);
    const below = svg.append("g");
    const taken = drawLegend(below, legend, 6, place.bottom + 38, Math.max(place.width, 340) - 12);
    svg
      .attr("height", place.bottom + 44 + taken)
      .attr("viewBox", `0 0 ${Math.max(place.width, 340)} ${place.bottom + 44 + taken}`);
    const node = svg.node();
    node.view = view;
    node.again = (now) => drawNodes(scene, ctx, now, place, size, classes);
    box.append(h("div", { class: "zoom" }, ...zoomButtons(svg, scene)), node);
    if (view.trace) box.append(trajectory(ctx, view, Math.min(ctx.width, 1080)));
    moveCursor(box, view.step);
    tips(node, (datum) =>
      typeof datum === "number" ? describe(ctx, datum) : datum?.receiver !== undefined ? edgeText(ctx, datum) : null,
    );
    node.addEventListener("click", ({ target }) => {
      const datum = target.__data__;
      if (typeof datum === "number" && datum >= 0) ctx.open(datum);
      else if (!target.closest(".node")) ctx.open(null);
    });
    graph.highlight(ctx, box);
  },

  /** Another step of the same search: components come and go, the rest stays. */
  step(ctx, box) {
    const node = box.querySelector("svg.figure");
    node.view = shown(ctx);
    node.again(node.view);
    node.setAttribute("aria-label", graph.alt(ctx));
    moveCursor(box, node.view.step);
  },

  highlight(ctx, box) {
    const svg = select(box).select("svg.figure");
    if (svg.empty()) return;
    const id = ctx.selected;
    const found = id == null ? null : paths(svg.node().view.edges, id);
    svg
      .selectAll("path.edge")
      .classed("up", (edge) => Boolean(found?.up.has(edge)))
      .classed("down", (edge) => Boolean(found?.down.has(edge)))
      .classed("off", (edge) =>
        Boolean(found && (found.up.size || found.down.size) && !found.up.has(edge) && !found.down.has(edge)),
      );
    svg
      .selectAll("g.node")
      .classed("here", (node) => node === id)
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
    const kept = circuit
      ? `${sizes([...members], (id) => isMlp(model, id))} of ${model.size} components are left`
      : "No circuit was searched for on this task; components are those of other tasks' circuits";
    const size = own
      ? ` The area of a member grows with what is lost when it alone is ablated (${own[0].replaceAll("_", " ")}).`
      : "";
    const pool = within(ctx) ? "edges of the reported edge circuit" : "edges in the page";
    const drawn = edges.length
      ? ` Lines: the ${edges.length} strongest of the ${most} ${pool}, by ${task.edges.method || "no score"}; the width grows with the square root of the score.`
      : step == null && !most
        ? " Edges were not scored for this task."
        : "";
    const how =
      " Circles are heads, squares MLPs. Click one for what it does and for the paths through it; drag to move, Ctrl and wheel to zoom.";
    const dropped = circuit?.dropped?.length
      ? ` Of what the search found, ${circuit.dropped.map((id) => nameOf(model, id)).join(", ")} ${circuit.dropped.length > 1 ? "were" : "was"} dropped afterwards.`
      : "";
    const floor = circuit
      ? ` Threshold ${circuit.threshold}\u00a0%: on the search prompts the circuit keeps more than ${fixed(100 - circuit.threshold, 0)}\u00a0% of the full model's logit difference.`
      : "";
    return `${what}${kept}${at ? ", measured on the search prompts" : ""}.${dropped}${size}${drawn}${how}${floor}`;
  },

  tables(ctx) {
    const { model, task } = ctx;
    const { members, edges } = shown(ctx);
    const own = ownEffects(model, task)?.[1];
    const components = [...members]
      .sort((a, b) => a - b)
      .map((id) => [
        nameOf(model, id),
        layerOf(model, id),
        task.roleOf.get(id)?.label ?? "",
        kinOf(model, id) ?? "",
        task.class?.[id] ?? "",
        at(task.share, id),
        at(own?.value, id),
        at(own?.low, id),
        at(own?.high, id),
      ]);
    const tables = [
      {
        title: "Components of the circuit",
        name: "circuit",
        rows: components,
        header: [
          "component",
          "layer",
          "role",
          "shared by main tasks",
          "stability",
          "share of searches",
          "% of full, ablated alone",
          "low",
          "high",
        ],
      },
    ];
    if (edges.length) {
      tables.push({
        title: "Edges drawn",
        name: "edges",
        header: ["sender", "receiver", "port", "score", "low", "high", "in edge circuit"],
        rows: edges.map((e) => [
          nameOf(model, e.sender),
          nameOf(model, e.receiver),
          e.port,
          e.value,
          e.low,
          e.high,
          e.inside ? 1 : 0,
        ]),
      });
    }
    return tables;
  },
};
