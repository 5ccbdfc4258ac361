// Rows of named values as dots with their intervals, the number beside each.
import { scaleLinear } from "d3-scale";
import { tips } from "./dom.js";
import { estimate } from "./format.js";
import { drawing } from "./look.js";

/** Rows of dots with intervals around a centre. */
export function dots(rows, centre, unit, width) {
  const [step, left] = [18, Math.min(130, 12 + 6.2 * Math.max(...rows.map((r) => r.name.length)))];
  const room = 128;
  const ends = rows
    .flatMap((r) => [r.value, r.low, r.high])
    .filter((v) => v != null)
    .concat(centre);
  const svg = drawing(width, rows.length * step + 8, rows.map((r) => `${r.name}: ${estimate(r, unit)}`).join("; "));
  const x = scaleLinear([Math.min(...ends), Math.max(...ends) + 1e-9], [left + 8, width - room - 6]);
  svg
    .append("line")
    .attr("class", "zero")
    .attr("x1", x(centre))
    .attr("x2", x(centre))
    .attr("y1", 2)
    .attr("y2", rows.length * step + 4);
  rows.forEach((row, i) => {
    const y = 12 + i * step;
    const group = svg
      .append("g")
      .datum(row)
      .attr("class", row.strong ? "ranked member" : "ranked");
    const name = row.name.length > 20 ? `${row.name.slice(0, 19)}\u2026` : row.name;
    group
      .append("text")
      .attr("class", row.strong ? "tick strong" : "tick")
      .attr("x", left)
      .attr("y", y + 4)
      .attr("text-anchor", "end")
      .text(name);
    if (row.low != null)
      group
        .append("line")
        .attr("class", "interval")
        .attr("x1", x(row.low))
        .attr("x2", x(row.high))
        .attr("y1", y)
        .attr("y2", y);
    group.append("circle").attr("class", "dot").attr("r", 4).attr("cx", x(row.value)).attr("cy", y);
    group
      .append("text")
      .attr("class", "tick value")
      .attr("x", width - 2)
      .attr("y", y + 4)
      .attr("text-anchor", "end")
      .text(estimate(row, unit));
  });
  tips(svg.node(), (d) => (d?.name ? [d.name, estimate(d, unit)] : null));
  return svg.node();
}
