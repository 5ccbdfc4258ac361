// What a graph is drawn of: where components stand, the rows of layers, edges, nodes, and the buttons that zoom.
import { select } from "d3-selection";
import { scaleSqrt } from "d3-scale";
import { zoom, zoomIdentity } from "d3-zoom";
import { headOf, isMlp, layerOf, nameOf } from "./data.js";
import { button } from "./dom.js";
import { UNCLASSED } from "./look.js";

/** Sizes for a width, and where a component (or an end, -1 and -2) stands. */
export function layout(model, width) {
  const left = 34;
  const column = Math.max(10.5, Math.min(96, (width - left - 14) / (model.n_heads + 1.5)));
  const row = Math.max(22, Math.min(74, 640 / model.n_layers));
  const top = 62;
  const largest = Math.min(column * 0.46, row * 0.42, 21);
  return {
    left,
    column,
    row,
    top,
    largest,
    smallest: Math.max(2.6, Math.min(largest * 0.6, 8)),
    width: left + column * (model.n_heads + 1.5) + 14,
    bottom: top + row * model.n_layers + 4,
    at(id) {
      if (id < 0)
        return { x: left + (column * model.n_heads) / 2, y: id === -1 ? top - 26 : top + row * model.n_layers + 18 };
      const shift = isMlp(model, id) ? 0.5 : 0;
      return { x: left + column * (headOf(model, id) + 0.5 + shift), y: top + row * (layerOf(model, id) + 0.5) };
    },
  };
}

/** From the foot of one component to the top of another; around those between them in the same column. */
function curve(from, to, low, high, place) {
  if (Math.abs(from.y - to.y) < 1) {
    const dip = from.y + low + 12; // to the MLP of the same layer
    return `M${from.x},${from.y + low}C${from.x},${dip} ${to.x - 14},${dip} ${to.x - high},${to.y}`;
  }
  const [y1, y2] = [from.y + low, to.y - high];
  const bend = Math.max(10, (y2 - y1) * 0.45);
  const aside = Math.abs(from.x - to.x) < place.column / 4 && y2 - y1 > place.row ? place.column * 0.55 : 0;
  return `M${from.x},${y1}C${from.x + aside},${y1 + bend} ${to.x + aside},${y2 - bend} ${to.x},${y2}`;
}

export function backdrop(scene, model, place) {
  const right = place.width - 8;
  const axis = scene.append("g").attr("class", "axis");
  for (const id of [-1, -2]) {
    const { y } = place.at(id);
    axis
      .append("rect")
      .attr("class", "bar")
      .attr("x", place.left)
      .attr("width", right - place.left)
      .attr("y", y - 8)
      .attr("height", 16)
      .attr("rx", 8);
    axis
      .append("text")
      .attr("class", "bar-text")
      .attr("x", (place.left + right) / 2)
      .attr("y", y + 3.5)
      .attr("text-anchor", "middle")
      .text(id === -1 ? "embeddings" : "logits");
  }
  for (let layer = 0; layer < model.n_layers; layer++) {
    const y = place.top + place.row * (layer + 0.5);
    axis.append("line").attr("x1", place.left).attr("x2", right).attr("y1", y).attr("y2", y);
    axis
      .append("text")
      .attr("x", place.left - 8)
      .attr("y", y + 3.5)
      .attr("text-anchor", "end")
      .text(layer);
  }
  axis
    .append("text")
    .attr("x", 2)
    .attr("y", place.top - 4)
    .text("layer");
}

export function drawEdges(scene, view, place, size) {
  const largest = Math.max(1e-12, ...view.edges.map((edge) => Math.abs(edge.value ?? 0)));
  const width = scaleSqrt([0, largest], [0.5, 4]);
  const radius = (id) => (id < 0 ? 8 : size(id, view));
  const spread = (id, other) => {
    // the ends are wide bars: edges meet them above or below the other component
    const here = place.at(id);
    return id < 0 ? { x: other.x, y: here.y } : here;
  };
  scene
    .append("g")
    .attr("class", "edges")
    .selectAll("path")
    .data([...view.edges].reverse())
    .join("path")
    .attr("class", (edge) => (edge.value > 0 ? "edge hinders" : "edge"))
    .attr("d", (edge) =>
      curve(
        spread(edge.sender, place.at(edge.receiver)),
        spread(edge.receiver, place.at(edge.sender)),
        radius(edge.sender),
        radius(edge.receiver),
        place,
      ),
    )
    .style("stroke-width", (edge) => width(Math.abs(edge.value ?? 0)).toFixed(2))
    .style("stroke-opacity", (edge) => (0.25 + 0.5 * Math.sqrt(Math.abs(edge.value ?? 0) / largest)).toFixed(2));
}

/** All components; called again for another step, it draws only those anew that came or went. */
export function drawNodes(scene, ctx, view, place, size, classes) {
  const { model } = ctx;
  const touched = new Set(view.edges.flatMap((edge) => [edge.sender, edge.receiver]));
  const status = (id) => (view.members.has(id) ? "member" : touched.has(id) ? "touched" : "ghost");
  const nodes = scene
    .selectAll("g.nodes")
    .data([null])
    .join("g")
    .attr("class", "nodes")
    .selectAll("g.node")
    .data(model.ids)
    .join((entering) =>
      entering
        .append("g")
        .attr("transform", (id) => `translate(${place.at(id).x.toFixed(1)},${place.at(id).y.toFixed(1)})`),
    );
  nodes.each(function draw(id) {
    const look = `node ${status(id)}${view.at?.tried.has(id) ? " tried" : ""}`;
    if (this.look === look) return;
    this.look = look;
    this.replaceChildren();
    const node = select(this).attr("class", look);
    const member = view.members.has(id);
    const r = touched.has(id) && !member ? place.smallest * 0.8 : size(id, view);
    const outside = { fill: "var(--paper)", stroke: touched.has(id) ? "var(--grey)" : "var(--faint)" };
    const paint = member ? (classes.look(id) ?? UNCLASSED) : outside;
    const shape = isMlp(model, id)
      ? node
          .append("rect")
          .attr("x", -0.9 * r)
          .attr("y", -0.9 * r)
          .attr("width", 1.8 * r)
          .attr("height", 1.8 * r)
          .attr("rx", 1.5)
      : node.append("circle").attr("r", r);
    shape.attr("class", "shape").datum(id).style("fill", paint.fill).style("stroke", paint.stroke);
    // A larger target than the mark
    node
      .append("rect")
      .datum(id)
      .attr("class", "target")
      .attr("x", -place.column / 2)
      .attr("width", place.column)
      .attr("y", -place.row / 2)
      .attr("height", place.row);
    if (member || touched.has(id)) {
      const inside = r >= 12;
      node
        .append("text")
        .datum(id)
        .attr("class", inside ? "name halo" : "name halo small")
        .classed("pale", !member)
        .attr("text-anchor", "middle")
        .attr("y", inside ? 3.5 : r + 8.5)
        .text(place.column >= 24 || !inside ? nameOf(model, id) : "")
        .attr("display", place.column >= 20 || isMlp(model, id) ? null : "none");
    }
  });
}

export function zoomButtons(svg, scene) {
  const behaviour = zoom()
    .scaleExtent([0.6, 8])
    .filter((event) =>
      event.type === "wheel"
        ? event.ctrlKey || event.metaKey
        : event.type.startsWith("touch")
          ? event.touches.length > 1
          : !event.button,
    )
    .on("zoom", ({ transform }) => scene.attr("transform", transform));
  svg.call(behaviour).on("dblclick.zoom", null);
  return [
    button("+", () => behaviour.scaleBy(svg, 1.4), { "aria-label": "Zoom in", title: "Zoom in" }),
    button("\u2212", () => behaviour.scaleBy(svg, 1 / 1.4), { "aria-label": "Zoom out", title: "Zoom out" }),
    button("Whole", () => behaviour.transform(svg, zoomIdentity), { title: "The whole graph" }),
  ];
}
