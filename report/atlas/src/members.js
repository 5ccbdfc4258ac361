// How the members of a class lie at a point of the model: their first principal components, and shapes by layer.
import { area, line } from "d3-shape";
import { scaleLinear } from "d3-scale";
import { select } from "d3-selection";
import { tips } from "./dom.js";
import { sequential } from "./colours.js";
import { fixed, p, quantity } from "./format.js";
import { drawing } from "./look.js";

/** "embedding" for point 0, "after block 4" for point 5. */
export const pointName = (point) => (point === 0 ? "embedding" : `after block ${point - 1}`);

const share = (value) => (value == null ? "" : ` (${quantity(100 * value, "%")})`);

/** Members at the i-th point of a layout, by two principal components (from 0), joined in their order. */
export function scatter(layout, i, [a, b], width, alt) {
  const [w, height] = [Math.max(300, width), Math.max(300, Math.min(width * 0.86, 400))];
  const svg = drawing(w, height, alt).attr("class", "figure members");
  const [left, right, top, bottom] = [44, w - 14, 12, height - 38];
  const spots = layout.coordinates[i].map((own, k) => ({ k, word: layout.members[k], x: own[a], y: own[b], own }));
  const range = (key) => [Math.min(...spots.map((s) => s[key])), Math.max(...spots.map((s) => s[key]))];
  const [[x0, x1], [y0, y1]] = [range("x"), range("y")];
  // One scale for both: distances are seen as they are
  const unit = Math.max((x1 - x0) / (right - left - 48), (y1 - y0) / (bottom - top - 34)) || 1;
  const x = (v) => (left + right) / 2 + (v - (x0 + x1) / 2) / unit;
  const y = (v) => (top + bottom) / 2 - (v - (y0 + y1) / 2) / unit;
  axes(svg, { x, y, left, right, top, bottom, unit, mid: [(x0 + x1) / 2, (y0 + y1) / 2] }, layout.explained[i], [a, b]);
  const joined = svg.append("g").attr("class", "joined");
  for (const [from, to, neighbours] of layout.joined)
    joined
      .append("line")
      .attr("class", neighbours ? "chain" : "chain apart")
      .attr("x1", x(spots[from].x))
      .attr("y1", y(spots[from].y))
      .attr("x2", x(spots[to].x))
      .attr("y2", y(spots[to].y));
  const shade = sequential();
  const places = spots.map((spot) => ({ ...spot, cx: x(spot.x), cy: y(spot.y) }));
  for (const spot of places) {
    svg
      .append("circle")
      .datum(spot)
      .attr("class", "member-dot")
      .attr("r", places.length > 40 ? 3.4 : 4.6)
      .attr("cx", spot.cx)
      .attr("cy", spot.cy)
      .style("fill", shade(0.35 + (0.65 * spot.k) / Math.max(1, places.length - 1)));
  }
  labels(svg, places, { left: left + 1, right: right + 12, top: top - 8, bottom: bottom + 2 });
  tips(svg.node(), (d) =>
    d?.word == null
      ? null
      : [d.word, `${d.k + 1} of ${places.length}`, ...d.own.map((v, j) => `PC ${j + 1}: ${quantity(v)}`)],
  );
  return svg.node();
}

function axes(svg, { x, y, left, right, top, bottom, unit, mid }, explained, [a, b]) {
  const half = [((right - left) / 2) * unit, ((bottom - top) / 2) * unit];
  const ticks = [0, 1].map((k) => scaleLinear([mid[k] - half[k], mid[k] + half[k]], [0, 1]).ticks(4));
  const digits = Math.max(0, -Math.floor(Math.log10((ticks[0][1] ?? 1) - (ticks[0][0] ?? 0)) + 1e-9));
  for (const v of ticks[0]) {
    svg.append("line").attr("class", "rule").attr("x1", x(v)).attr("x2", x(v)).attr("y1", top).attr("y2", bottom);
    svg
      .append("text")
      .attr("class", "tick")
      .attr("x", x(v))
      .attr("y", bottom + 14)
      .attr("text-anchor", "middle")
      .text(fixed(v, Math.min(3, digits)));
  }
  for (const v of ticks[1]) {
    svg.append("line").attr("class", "rule").attr("x1", left).attr("x2", right).attr("y1", y(v)).attr("y2", y(v));
    svg
      .append("text")
      .attr("class", "tick")
      .attr("x", left - 5)
      .attr("y", y(v) + 3.5)
      .attr("text-anchor", "end")
      .text(fixed(v, Math.min(3, digits)));
  }
  svg
    .append("text")
    .attr("class", "axis-title")
    .attr("x", (left + right) / 2)
    .attr("y", bottom + 31)
    .attr("text-anchor", "middle")
    .text(`PC ${a + 1}${share(explained?.[a])}`);
  svg
    .append("text")
    .attr("class", "axis-title")
    .attr("text-anchor", "middle")
    .attr("transform", `translate(10,${(top + bottom) / 2}) rotate(-90)`)
    .text(`PC ${b + 1}${share(explained?.[b])}`);
}

/** A word beside each dot, away from the middle, where there is room for it; the first and the last before others. */
function labels(svg, places, room) {
  const [mx, my] = ["cx", "cy"].map((key) => places.reduce((sum, spot) => sum + spot[key], 0) / places.length);
  const taken = places.map(({ cx, cy }) => [cx - 4, cy - 4, cx + 4, cy + 4]);
  const free = (box) =>
    box[0] >= room.left &&
    box[2] <= room.right &&
    box[1] >= room.top &&
    box[3] <= room.bottom &&
    taken.every((other) => box[2] < other[0] || box[0] > other[2] || box[3] < other[1] || box[1] > other[3]);
  const last = places.length - 1;
  const every = places.length > 40 ? 10 : 1; // round numbers first
  const order = [...places].sort((p, q) => rank(p.k) - rank(q.k) || p.k - q.k);
  function rank(k) {
    return k === 0 || k === last ? 0 : k % every ? 2 : 1;
  }
  for (const { k, word, cx, cy } of order) {
    const w = word.length * 6.1 + 2;
    const [dx, dy] = [cx >= mx ? 1 : -1, cy >= my ? 1 : -1];
    const side = (way) => ({
      box: way > 0 ? [cx + 6, cy - 6, cx + 6 + w, cy + 6] : [cx - 6 - w, cy - 6, cx - 6, cy + 6],
    });
    const end = (way) => ({
      box: way > 0 ? [cx - w / 2, cy + 5, cx + w / 2, cy + 16] : [cx - w / 2, cy - 16, cx + w / 2, cy - 5],
    });
    const found = [side(dx), end(dy), end(-dy), side(-dx)].find(({ box }) => free(box));
    if (!found) continue;
    const { box } = found;
    taken.push(box);
    svg
      .append("text")
      .datum(places[k])
      .attr("class", "member-name")
      .attr("x", (box[0] + box[2]) / 2)
      .attr("y", (box[1] + box[3]) / 2 + 3.6)
      .attr("text-anchor", "middle")
      .text(word);
  }
}

/** A statistic at every point, over the band of its permutations; `point` is where the slider stands. */
export function curve(shape, point, width, alt, go) {
  const [w, height, left, bottom] = [Math.max(300, width), 132, 40, 102];
  const svg = drawing(w, height, alt).attr("class", "figure shape-curve");
  const values = [...shape.value, ...(shape.null_low ?? []), ...(shape.null_high ?? [])].filter((v) => v != null);
  const y = scaleLinear([Math.min(0, ...values), Math.max(1e-9, ...values)], [bottom, 22]).nice(3);
  const x = scaleLinear([0, Math.max(1, shape.points.at(-1))], [left + 6, w - 14]);
  svg.append("text").attr("class", "axis-title").attr("x", 2).attr("y", 10).text(shape.title);
  for (const v of y.ticks(3)) {
    svg
      .append("line")
      .attr("class", "rule")
      .attr("x1", left)
      .attr("x2", w - 8)
      .attr("y1", y(v))
      .attr("y2", y(v));
    svg
      .append("text")
      .attr("class", "tick")
      .attr("x", left - 5)
      .attr("y", y(v) + 3.5)
      .attr("text-anchor", "end")
      .text(String(v).replace("-", "\u2212"));
  }
  const every = Math.ceil((shape.points.length * 22) / (w - left));
  const rows = shape.points.map((at, i) => ({
    at,
    value: shape.value[i],
    low: shape.null_low?.[i],
    high: shape.null_high?.[i],
    p: shape.p?.[i],
  }));
  rows.forEach((row, i) => {
    if (i % every && i < rows.length - 1) return;
    if (i % every === 0 && i !== rows.length - 1 && rows.length - 1 - i < every) return; // the last has its number
    svg
      .append("text")
      .attr("class", "tick")
      .attr("x", x(row.at))
      .attr("y", bottom + 14)
      .attr("text-anchor", "middle")
      .text(row.at === 0 ? "emb." : row.at - 1);
  });
  svg
    .append("text")
    .attr("class", "axis-title")
    .attr("x", (left + w) / 2)
    .attr("y", height - 2)
    .attr("text-anchor", "middle")
    .text("after block");
  const known = rows.filter((row) => row.low != null && row.high != null);
  const band = area(
    (row) => x(row.at),
    (row) => y(row.low),
    (row) => y(row.high),
  );
  svg.append("path").attr("class", "null-band").attr("d", band(known));
  const path = line(
    (row) => x(row.at),
    (row) => y(row.value),
  ).defined((row) => row.value != null);
  svg.append("path").attr("class", "curve").attr("d", path(rows));
  svg
    .append("line")
    .attr("class", "cursor")
    .attr("y1", 18)
    .attr("y2", bottom + 3);
  for (const row of rows) {
    if (row.value != null)
      svg
        .append("circle")
        .datum(row)
        .attr("class", row.p != null && row.p < 0.05 ? "dot solid" : "dot")
        .attr("r", 3.6)
        .attr("cx", x(row.at))
        .attr("cy", y(row.value));
    svg
      .append("rect")
      .datum(row)
      .attr("class", "target at-point")
      .attr("x", x(row.at) - (w - left) / rows.length / 2)
      .attr("width", (w - left) / rows.length)
      .attr("y", 14)
      .attr("height", bottom - 8);
  }
  tips(svg.node(), (row) =>
    row?.at == null
      ? null
      : [
          pointName(row.at),
          `${shape.title}: ${fixed(row.value, 2)}`,
          row.high == null ? null : `its null: ${fixed(row.low, 2)} to ${fixed(row.high, 2)}`,
          row.p == null ? null : `corrected p ${p(row.p)}`,
        ],
  );
  const node = svg.node();
  node.placeOf = x;
  node.addEventListener("click", ({ target }) => target.__data__?.at != null && go(target.__data__.at));
  moveTo(node, point);
  return node;
}

/** The line of a curve to where the slider stands. */
export function moveTo(node, point) {
  const at = point == null ? -99 : node.placeOf(point);
  select(node).select(".cursor").attr("x1", at).attr("x2", at);
}
