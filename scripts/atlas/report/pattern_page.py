"""A page to look through attention patterns of the circuits' heads on real prompts, offline and by itself."""

import json
from typing import Any

from markupsafe import Markup

from atlas.report.pages import HTML
from atlas.report.wording import count, words


def compact(page: dict[str, Any], circuit: list[str], labels: dict[str, str]) -> dict[str, Any]:
    """One task's patterns.json as the page holds it: weights in thousandths, row by row up to the query itself."""
    return {
        "title": words(page["task"]),
        "heads": [[name, name in circuit, labels.get(name, "")] for name in page["heads"]],
        "prompts": [
            {
                "tokens": example["tokens"],
                "patterns": {
                    head: [[round(1000 * weight) for weight in row] for row in rows]
                    for head, rows in example["patterns"].items()
                },
            }
            for example in page["examples"]
        ],
    }


def page(
    patterns: dict[str, dict[str, Any]], circuits: dict[str, list[str]], labels: dict[str, Any], title: str, colour: str
) -> str:
    """`patterns`: patterns.json by task; `circuits`: names of each circuit's heads; `labels`: task -> head -> label."""
    data = [compact(found, circuits[task], labels.get(task, {})) for task, found in patterns.items()]
    shown = sum(len(task["prompts"]) for task in data)
    lead = (
        f"{count(len({h[0] for t in data for h in t['heads']}), 'head')} of the circuits on {count(shown, 'prompt')}."
    )
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return TEMPLATE.render(title=title, lead=lead, colour=colour, data=Markup(text))


TEMPLATE = HTML.from_string("""\
{% extends base %}
{% block css %}
body { max-width: 70rem; --ink: {{ colour }}; }
.bar { display: flex; flex-wrap: wrap; gap: .5rem 1.2rem; align-items: center; margin: 1rem 0; }
select { font: inherit; padding: .1rem .3rem; }
#tokens { line-height: 2.1; margin: .8rem 0; }
#tokens button { font: 15px/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; color: #222;
  border: 1px solid #ddd; background: #fff; padding: 0 .25rem; margin: 0 1px; white-space: pre;
  cursor: pointer; }
#tokens button.self { outline: 2px solid #222; }
#tokens button.pinned { outline-style: double; outline-width: 4px; }
#grid { border-collapse: collapse; margin: .6rem 0; }
#grid td, #grid th { padding: 0; border: 0; font-size: .68rem; font-weight: 400; }
#grid td { width: 17px; height: 17px; min-width: 17px; border: 1px solid #eee; }
#grid tbody th { padding-right: .4rem; text-align: right; white-space: pre; }
#grid thead th { height: 5.5rem; vertical-align: bottom; white-space: pre; }
#grid thead span { writing-mode: vertical-rl; transform: rotate(180deg); }
#grid .at { outline: 2px solid #222; }
#value { min-height: 1.6em; }
{% endblock %}
{% block body %}
<h1>{{ title }}</h1>
<p class="lead">{{ lead }} Point at a token to see where the head looks from there; click to hold it.</p>
<noscript><p>This page needs JavaScript; the tables hold the same numbers.</p></noscript>
<div class="bar">
<label>task <select id="task"></select></label>
<label>prompt <select id="prompt"></select></label>
<label>head <select id="head"></select></label>
<label><input type="radio" name="way" value="from" checked> where the token looks</label>
<label><input type="radio" name="way" value="to"> which tokens look at it</label>
</div>
<div id="tokens"></div>
<p id="value" aria-live="polite"></p>
<div class="wide"><table id="grid"></table></div>
<p class="note">Rows look, columns are looked at. A filled dot stands by the heads of this task's circuit.</p>
<script type="application/json" id="data">{{ data }}</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = name => document.getElementById(name);
const state = {task: 0, prompt: 0, head: 0, token: null, pinned: false, way: "from"};
const ink = getComputedStyle(document.body).getPropertyValue("--ink").trim();

function shade(weight) {  // of thousandths
  return `color-mix(in srgb, ${ink} ${Math.round(weight / 10)}%, white)`;
}
function prompt_() { return data[state.task].prompts[state.prompt]; }
function pattern() { return prompt_().patterns[data[state.task].heads[state.head][0]]; }
function shown(token) { return token.replace(/\\n/g, "\\u21b5").replace(/^ /, "\\u00b7"); }

function fill(select, names, chosen) {
  select.replaceChildren(...names.map((name, i) => new Option(name, i, i === chosen, i === chosen)));
}
function choose() {
  const task = data[state.task];
  fill(at("task"), data.map(t => t.title), state.task);
  fill(at("prompt"), task.prompts.map((p, i) => `${i + 1}: ${p.tokens.join("").slice(0, 60)}\\u2026`), state.prompt);
  fill(at("head"), task.heads.map(([name, inside, label]) =>
    name + (inside ? " \\u25cf" : "") + (label ? ` (${label})` : "")), state.head);
  build();
}
function build() {
  const tokens = prompt_().tokens, rows = pattern();
  if (state.token === null || state.token >= tokens.length) state.token = tokens.length - 1;
  at("tokens").replaceChildren(...tokens.map((token, i) => {
    const button = document.createElement("button");
    button.textContent = shown(token);
    button.addEventListener("mouseenter", () => point(i));
    button.addEventListener("focus", () => point(i));
    button.addEventListener("click", () => { state.pinned = !(state.pinned && state.token === i); point(i, true); });
    return button;
  }));
  const head = document.createElement("thead"), body = document.createElement("tbody");
  const top = head.insertRow();
  top.append(document.createElement("th"), ...tokens.map(token => {
    const cell = document.createElement("th"), text = document.createElement("span");
    text.textContent = shown(token);
    cell.append(text);
    return cell;
  }));
  tokens.forEach((token, q) => {
    const row = body.insertRow(), name = document.createElement("th");
    name.textContent = shown(token);
    row.append(name);
    rows[q].forEach((weight, k) => {
      const cell = row.insertCell();
      cell.style.background = shade(weight);
      cell.title = `${shown(token)} \\u2192 ${shown(tokens[k])}: ${(weight / 1000).toFixed(3)}`;
      cell.addEventListener("mouseenter", () => point(state.way === "from" ? q : k));
    });
  });
  at("grid").replaceChildren(head, body);
  paint();
}
function point(i, force) {
  if (state.pinned && !force) return;
  state.token = i;
  paint();
}
function paint() {
  const rows = pattern(), tokens = prompt_().tokens, i = state.token;
  const weight = k => state.way === "from" ? (rows[i][k] || 0) : (rows[k][i] || 0);
  [...at("tokens").children].forEach((button, k) => {
    button.style.background = shade(weight(k));
    button.style.color = weight(k) > 550 ? "white" : "";
    button.title = (weight(k) / 1000).toFixed(3);
    button.className = k === i ? (state.pinned ? "self pinned" : "self") : "";
  });
  const order = tokens.map((_, k) => k).sort((a, b) => weight(b) - weight(a)).slice(0, 4);
  const words = order.filter(k => weight(k) > 0).map(k =>
    `${shown(tokens[k])} (${k + 1}) ${(weight(k) / 1000).toFixed(3)}`);
  at("value").textContent = `${shown(tokens[i])} (${i + 1}) ${state.way === "from" ? "looks at" : "is looked at by"}: `
    + (words.join(", ") || "nothing");
  at("grid").querySelectorAll("tbody tr").forEach((row, q) =>
    row.classList.toggle("at", state.way === "from" && q === i));
}
for (const name of ["task", "prompt", "head"]) {
  at(name).addEventListener("change", event => {
    const before = data[state.task].heads[state.head][0];
    state[name] = Number(event.target.value);
    if (name === "task") {
      state.prompt = 0;
      state.head = Math.max(0, data[state.task].heads.findIndex(h => h[0] === before));
    }
    state.pinned = false;
    choose();
  });
}
document.querySelectorAll("[name=way]").forEach(button => button.addEventListener("change", event => {
  state.way = event.target.value;
  paint();
}));
if (data.length && data[0].heads.length) {  // first a head that has something to show
  state.head = Math.max(0, data[0].heads.findIndex(([, inside, label]) => inside && label && label !== "unlabelled"));
  choose();
}
else at("value").textContent = "No circuit holds a head.";
</script>
{% endblock %}
""")
