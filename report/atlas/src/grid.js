// A map of all components: a row for each layer (the first at the top), a column for each head, the MLP apart at the right.
import { inkOn } from "./colours.js";
import { headOf, isMlp, layerOf } from "./data.js";
import { drawing } from "./look.js";

/** Cell sizes for a width; never under 8 px, so that a finger or a mouse still finds them. */
export function measure(model, width, { tallest = 34, widest = 92, whole = 760, mlps = true } = {}) {
  const left = 26;
  const cell = Math.max(9, Math.min(widest, (width - left - 6) / (model.n_heads + (mlps ? 1.35 : 0))));
  const height = Math.max(9, Math.min(tallest, cell, whole / model.n_layers));
  const gap = mlps ? 0.35 * cell : 0;
  return {
    left,
    top: 18,
    cell,
    row: height,
    gap,
    width: left + cell * (model.n_heads + (mlps ? 1 : 0)) + gap + 6,
    height: 18 + height * model.n_layers,
  };
}

export function place(model, m, id, column = headOf(model, id)) {
  return { x: m.left + column * m.cell + (isMlp(model, id) ? m.gap : 0), y: m.top + layerOf(model, id) * m.row };
}

/**
 * The map as a drawing. look(id): {fill, stroke, value, missing}; outlined: set of ids; column(id): where a head stands
 * in its row, if not at its number; extra: height left free below; text(id): what stands in a cell that has room;
 * dotted: set of ids with a dot in their corner; options: those of `measure` (mlps: whether these have a column).
 */
export function grid(
  model,
  width,
  alt,
  { look, outlined = new Set(), dotted = new Set(), selected = null, column, extra = 0, text, options } = {},
) {
  const m = measure(model, width, options);
  const svg = drawing(Math.max(m.width, Math.min(width, 340)), m.height + extra, alt);
  const axis = svg.append("g").attr("class", "axis");
  const every = Math.ceil(14 / m.row);
  for (let layer = 0; layer < model.n_layers; layer += every) {
    axis
      .append("text")
      .attr("x", m.left - 5)
      .attr("y", m.top + (layer + 0.5) * m.row + 3.5)
      .attr("text-anchor", "end")
      .text(layer);
  }
  const skip = Math.ceil(16 / m.cell);
  if (!column) {
    for (let head = 0; head < model.n_heads; head += skip) {
      axis
        .append("text")
        .attr("x", m.left + (head + 0.5) * m.cell)
        .attr("y", m.top - 6)
        .attr("text-anchor", "middle")
        .text(head);
    }
  }
  const mlps = options?.mlps ?? true;
  if (mlps)
    axis
      .append("text")
      .attr("x", m.left + (model.n_heads + 0.5) * m.cell + m.gap)
      .attr("y", m.top - 6)
      .attr("text-anchor", "middle")
      .text("MLP");
  const cells = svg.append("g").attr("class", "cells");
  const pad = m.cell > 14 ? 0.75 : 0.4;
  for (const id of mlps ? model.ids : model.ids.filter((one) => !isMlp(model, one))) {
    const { x, y } = place(model, m, id, column?.(id));
    const { fill, stroke, missing, ink } = look(id);
    const mark = cells
      .append("rect")
      .datum(id)
      .attr("x", x + pad)
      .attr("y", y + pad)
      .attr("width", m.cell - 2 * pad)
      .attr("height", m.row - 2 * pad)
      .attr("rx", Math.min(3, m.row / 6))
      .attr("class", missing ? "cell missing" : "cell")
      .style("fill", fill);
    if (stroke && stroke !== "none") mark.style("stroke", stroke).style("stroke-width", 0.7);
    if (outlined.has(id)) mark.classed("member", true);
    const onFill = ink ?? (/^(#|rgb)/.test(fill) ? inkOn(fill) : "var(--ink)");
    if (dotted.has(id)) {
      const r = Math.max(1.4, Math.min(2.8, m.row / 6));
      cells
        .append("circle")
        .datum(id)
        .attr("class", "sure")
        .attr("r", r)
        .attr("cx", x + m.cell - pad - r - 1.4)
        .attr("cy", y + pad + r + 1.4)
        .style("fill", onFill);
    }
    if (text && m.cell >= 34 && m.row >= 15) {
      const shown = text(id);
      if (shown) {
        cells
          .append("text")
          .datum(id)
          .attr("class", "in-cell")
          .attr("x", x + m.cell / 2)
          .attr("y", y + m.row / 2 + 3.5)
          .attr("text-anchor", "middle")
          .style("fill", onFill)
          .text(shown);
      }
    }
  }
  const node = svg.node();
  node.layout = { m, column, mlps };
  mark(node, model, selected);
  return svg;
}

/** Moves the frame of the selected component, without drawing anything else again. */
export function mark(node, model, id) {
  node.querySelector(".here")?.remove();
  if (id == null || !node.layout || (isMlp(model, id) && !node.layout.mlps)) return;
  const { m, column } = node.layout;
  const { x, y } = place(model, m, id, column?.(id));
  const frame = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [key, value] of Object.entries({
    class: "here",
    x: x - 1,
    y: y - 1,
    width: m.cell + 2,
    height: m.row + 2,
    rx: 3,
  }))
    frame.setAttribute(key, value);
  node.append(frame);
}
