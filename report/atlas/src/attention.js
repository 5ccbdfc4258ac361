// A head's attention on a prompt: arcs beside the tokens, and the matrix of weights.
import { nameOf, pattern } from "./data.js";
import { h, tips } from "./dom.js";
import { fixed, token } from "./format.js";
import { sequential } from "./colours.js";
import { drawing } from "./look.js";

const FAINTEST = 0.05; // arcs below this weight are left out

/** A sentence that says why there is no attention, or null. */
export function missing(ctx, id) {
  const { model, task, prompt } = ctx;
  if (!prompt) return "The page holds no prompts of this task.";
  if (pattern(prompt, id)) return null;
  const kept = prompt.attention?.heads?.length ?? 0;
  if (!kept) {
    return task.several_tokens
      ? "Answers of this task have several tokens, so the page holds no attention for it."
      : "The page holds no attention for this task's prompts.";
  }
  return `Attention of ${nameOf(model, id)} is not in the page: it holds that of ${kept} heads, those of the circuits and the largest by effect.`;
}

/**
 * Tokens from top to bottom, each with arcs to where the head looks. All rows are drawn faintly and one strongly: the
 * last, from which the answer is read, or the one under the pointer or the focus.
 */
export function arcs(ctx, id, width) {
  const { model, prompt } = ctx;
  const weights = pattern(prompt, id);
  const row = 17;
  const left = Math.min(110, Math.max(60, width * 0.3));
  const letters = Math.floor((width - left - 62) / 7);
  const svg = drawing(
    width,
    prompt.tokens.length * row + 20,
    `Attention of head ${nameOf(model, id)} on prompt ${prompt.prompt}; from the last token: ${strongest(prompt, weights.at(-1))}.`,
  );
  const y = (i) => 12 + i * row;
  const group = svg.append("g").attr("class", "arcs");
  const lines = svg.append("g").attr("class", "tokens");
  const show = (query) => {
    group.selectAll("path").remove();
    weights.forEach((line, i) =>
      line.forEach((weight, j) => {
        if (weight < FAINTEST) return;
        const bend = Math.min(left - 8, 10 + Math.abs(i - j) * 5.5);
        const path =
          i === j
            ? `M${left},${y(i) - 3}C${left - 12},${y(i) - 6} ${left - 12},${y(i) + 6} ${left},${y(i) + 3}`
            : `M${left},${y(i)}C${left - bend},${y(i)} ${left - bend},${y(j)} ${left},${y(j)}`;
        group
          .append("path")
          .datum({ i, j, weight })
          .attr("d", path)
          .attr("class", i === query ? "arc on" : "arc")
          .style("stroke-width", (weight * 5).toFixed(2));
      }),
    );
    lines.selectAll("text.weight").text((j) => (weights[query]?.[j] == null ? "" : fixed(weights[query][j], 2)));
    lines.selectAll("text.token").classed("query", (i) => i === query);
  };
  prompt.tokens.forEach((text, i) => {
    const name = token(text);
    lines
      .append("rect")
      .datum(i)
      .attr("class", "target")
      .attr("x", 0)
      .attr("width", width)
      .attr("y", y(i) - row / 2)
      .attr("height", row);
    lines
      .append("text")
      .datum(i)
      .attr("class", "token")
      .attr("x", left + 6)
      .attr("y", y(i) + 4)
      .text(name.length > letters ? `${name.slice(0, letters - 1)}\u2026` : name);
    lines
      .append("text")
      .datum(i)
      .attr("class", "weight")
      .attr("x", width - 2)
      .attr("y", y(i) + 4)
      .attr("text-anchor", "end");
  });
  svg
    .append("text")
    .attr("class", "faint")
    .attr("x", width - 2)
    .attr("y", prompt.tokens.length * row + 17)
    .attr("text-anchor", "end")
    .text("weight from the bold token");
  show(weights.length - 1);
  const node = svg.node();
  node.addEventListener("pointermove", ({ target }) => typeof target.__data__ === "number" && show(target.__data__));
  node.addEventListener("pointerleave", () => show(weights.length - 1));
  tips(node, (d) =>
    typeof d === "number"
      ? [
          token(prompt.tokens[d]),
          prompt.roles?.[d] ? `role: ${prompt.roles[d].replaceAll("_", " ")}` : null,
          `looks at ${strongest(prompt, weights[d])}`,
        ]
      : d?.weight == null
        ? null
        : [`${token(prompt.tokens[d.i])} \u2192 ${token(prompt.tokens[d.j])}`, `weight ${fixed(d.weight, 2)}`],
  );
  return node;
}

function strongest(prompt, line) {
  return line
    .map((weight, j) => [weight, j])
    .sort((a, b) => b[0] - a[0])
    .slice(0, 3)
    .filter(([w]) => w >= FAINTEST)
    .map(([weight, j]) => `${token(prompt.tokens[j])} (${fixed(weight, 2)})`)
    .join(", ");
}

/** Rows are the tokens that look, columns those looked at. */
export function weightMatrix(ctx, id, width) {
  const { model, prompt } = ctx;
  const weights = pattern(prompt, id);
  const size = prompt.tokens.length;
  const label = 74;
  const cell = Math.max(6, Math.min(18, (width - label - 4) / size));
  const side = cell * size;
  const svg = drawing(
    label + side + 4,
    side + label,
    `Attention weights of head ${nameOf(model, id)} on prompt ${prompt.prompt}, ${size} by ${size} tokens.`,
  );
  const colour = sequential();
  const short = (i) =>
    token(prompt.tokens[i]).length > 9 ? `${token(prompt.tokens[i]).slice(0, 8)}\u2026` : token(prompt.tokens[i]);
  const cells = svg.append("g");
  weights.forEach((line, i) =>
    line.forEach((weight, j) =>
      cells
        .append("rect")
        .datum({ i, j, weight })
        .attr("x", label + j * cell)
        .attr("y", i * cell)
        .attr("width", cell - 0.5)
        .attr("height", cell - 0.5)
        .style("fill", colour(weight)),
    ),
  );
  const every = Math.ceil(10 / cell);
  for (let i = 0; i < size; i += every) {
    svg
      .append("text")
      .attr("class", "tick")
      .attr("x", label - 4)
      .attr("y", (i + 0.5) * cell + 3)
      .attr("text-anchor", "end")
      .text(short(i));
    svg
      .append("text")
      .attr("class", "tick")
      .attr("text-anchor", "end")
      .attr("transform", `translate(${label + (i + 0.5) * cell + 3},${side + 6}) rotate(-90)`)
      .text(short(i));
  }
  const node = svg.node();
  tips(node, (d) =>
    d?.weight == null
      ? null
      : [`${token(prompt.tokens[d.i])} looks at ${token(prompt.tokens[d.j])}`, `weight ${fixed(d.weight, 2)}`],
  );
  return node;
}

/** What stands under a picture of attention. */
export function attentionNote() {
  return h(
    "p",
    { class: "note" },
    `Weights are kept in steps of 1/255; arcs under ${fixed(FAINTEST, 2)} are left out. Point at a token to see where it looks.`,
  );
}

export function attentionRows(prompt, id) {
  const weights = pattern(prompt, id) ?? [];
  return weights.flatMap((line, i) =>
    line.map((weight, j) => [i, token(prompt.tokens[i]), j, token(prompt.tokens[j]), Number(weight.toFixed(4))]),
  );
}
