// The steps of a search: what each tried, and the curve of what was left.
import { line } from "d3-shape";
import { scaleLinear } from "d3-scale";
import { nameOf } from "./data.js";
import { hideTip } from "./dom.js";
import { count, fixed, quantity } from "./format.js";
import { drawing } from "./look.js";

/** What a step tried and what came of it. */
export function stepText(model, trace, k) {
  const [tried, percent, removed] = trace.steps[k] ?? [];
  if (!tried?.length) return `full model, ${quantity(percent, "%")}`;
  const names = tried.length > 4 ? count(tried.length, "component") : tried.map((id) => nameOf(model, id)).join(", ");
  return `${names}: ${quantity(percent, "%")} left without, ${removed ? "removed" : "kept"}`;
}

/** Where the slider stands; nothing for the finished circuit. */
export function moveCursor(box, step) {
  const node = box.querySelector("svg.trajectory");
  node?.querySelector(".cursor").setAttribute("transform", `translate(${step == null ? -99 : node.placeOf(step)},0)`);
}

/** Percent of full after every step of the search; the floor is the threshold's. */
export function trajectory(ctx, view, width) {
  const { model, set } = ctx;
  const steps = view.trace.steps;
  const floor = 100 - view.trace.threshold;
  const values = steps.map((step) => step[1]).filter((v) => v != null);
  const [low, high] = [Math.min(floor - 4, ...values.map((v) => Math.max(v, floor - 40))), Math.max(102, ...values)];
  const [w, height, left] = [Math.max(320, width), 120, 40];
  const svg = drawing(
    w,
    height,
    `Percent of the full model left at each of ${steps.length} steps of the search; the floor is ${fixed(floor, 0)} percent.`,
  );
  const x = scaleLinear([0, Math.max(1, steps.length - 1)], [left, w - 12]);
  const y = scaleLinear([low, high], [height - 22, 16]).clamp(true);
  svg
    .append("text")
    .attr("class", "axis-title")
    .attr("x", 2)
    .attr("y", 10)
    .text("percent of full left, search prompts; dots: tried and kept");
  for (const tick of [floor, 100]) {
    svg
      .append("line")
      .attr("class", tick === floor ? "floor" : "rule")
      .attr("x1", left)
      .attr("x2", w - 12)
      .attr("y1", y(tick))
      .attr("y2", y(tick));
    svg
      .append("text")
      .attr("class", "tick")
      .attr("x", left - 5)
      .attr("y", y(tick) + 3.5)
      .attr("text-anchor", "end")
      .text(fixed(tick, 0));
  }
  let last = 100;
  const kept = steps.map((step) => (last = step[2] || !step[0]?.length ? (step[1] ?? last) : last));
  svg
    .append("path")
    .attr("class", "curve")
    .attr(
      "d",
      line(
        (_, i) => x(i),
        (v) => y(v),
      )(kept),
    );
  svg
    .append("g")
    .selectAll("circle")
    .data(steps.map((step, i) => ({ i, step })).filter(({ step }) => step[0]?.length && !step[2]))
    .join("circle")
    .attr("class", "kept")
    .attr("r", 2)
    .attr("cx", ({ i }) => x(i))
    .attr("cy", ({ step }) => y(step[1] ?? low));
  svg
    .append("text")
    .attr("class", "tick")
    .attr("x", left)
    .attr("y", height - 7)
    .text("step 0");
  svg
    .append("text")
    .attr("class", "tick")
    .attr("x", w - 12)
    .attr("y", height - 7)
    .attr("text-anchor", "end")
    .text(steps.length - 1);
  svg
    .append("line")
    .attr("class", "cursor")
    .attr("y1", 14)
    .attr("y2", height - 20)
    .attr("transform", "translate(-99,0)");
  const node = svg.classed("trajectory", true).node();
  node.placeOf = x;
  const where = (event) => {
    const box = node.getBoundingClientRect();
    return Math.max(0, Math.min(steps.length - 1, Math.round(x.invert(((event.clientX - box.left) * w) / box.width))));
  };
  svg
    .append("rect")
    .attr("class", "target")
    .datum(null)
    .attr("x", left)
    .attr("width", w - left - 12)
    .attr("y", 12)
    .attr("height", height - 30);
  node.addEventListener("pointerleave", hideTip);
  node.addEventListener("pointermove", (event) =>
    ctx.tip([`step ${where(event)}`, stepText(model, view.trace, where(event))], event),
  );
  node.addEventListener("click", (event) => set({ step: where(event) }, { step: true }));
  return node;
}
