"""A page to look at the data of every task before a search: counts, scores, answers, tokens, and what looks wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from atlas.prompts.clean_scores import SIDES
from atlas.report.data_check import Look, remedy_of, row_of
from atlas.report.pages import HTML
from atlas.report.wording import count, interval, number, percent, words

MOST_ANSWERS = 24  # shown; the table has them all
EXAMPLES = 6  # prompts shown token by token
REJECTED_EXAMPLES = 2  # of each reason
ROLES = {"bos": "BOS", "members": "member", "separators": "other text", "last": "last token, answers here"}
ROLES |= {"answer": "answer", "incorrect": "incorrect answer"}
HELD_OUT = {
    "prompts": "prompts at random",
    "sequences": "whole member sequences, which the search never sees",
    "templates": "whole wordings, which the search never sees",
}


def visible(string: str) -> str:
    """The characters of a token, with spaces and line breaks to be seen; a middle dot where it adds none."""
    for character, shown in ((" ", "\u2423"), ("\n", "\u23ce"), ("\t", "\u21e5"), ("\r", "\u240d")):
        string = string.replace(character, shown)
    return string or "\u00b7"


# ---- tokens --------------------------------------------------------------------------------------------------
def examples(tokens: pd.DataFrame) -> list[dict[str, Any]]:
    """Of each prompt of tokens.parquet: ``prompt``, ``template`` and ``lines``, each a name and its tokens."""
    found = []
    for prompt, rows in list(tokens.groupby("prompt", sort=False))[:EXAMPLES]:
        clean = rows[(rows["run"] == "clean") & (rows["role"] != "incorrect")]
        incorrect = rows[rows["role"] == "incorrect"]
        corrupted = rows[rows["run"] == "corrupted"]
        lines = [("clean", clean), ("incorrect answer", incorrect), ("corrupted", corrupted)]
        shown = [(name, [_box(token) for token in table.to_dict("records")]) for name, table in lines if len(table)]
        found.append({"prompt": prompt, "template": rows["template"].iloc[0], "lines": shown})
    return found


def _box(token: Mapping[str, Any]) -> dict[str, str]:
    """A token as it is drawn: text, class, and what stands beside the pointer."""
    role = str(token["role"])
    about = f"{ROLES.get(role, role)}; position {token['position']}, id {token['id']}, {token['piece']}"
    return {"text": "BOS" if role == "bos" else visible(token["string"]), "role": role, "about": about}


def rejected_examples(rejected: pd.DataFrame) -> list[dict[str, Any]]:
    """The first prompts of each reason, the commonest reason first: ``reason``, ``n``, ``remedy``, ``prompts``."""
    found = []
    for reason, n in rejected["reason"].value_counts().items():
        rows = rejected[rejected["reason"] == reason].head(REJECTED_EXAMPLES)
        shown = [
            {
                "prompt": row["prompt"],
                "lines": [
                    ("with answer", list(map(visible, row["clean_strings"]))),
                    ("with incorrect one", list(map(visible, row["incorrect_strings"]))),
                    ("corrupted", list(map(visible, row["corrupted_strings"]))),
                ],
            }
            for row in rows.to_dict("records")
        ]
        found.append({"reason": reason, "n": n, "remedy": remedy_of(str(reason)), "prompts": shown})
    return found


# ---- tables --------------------------------------------------------------------------------------------------
def overview(looks: Sequence[Look]) -> list[dict[str, Any]]:
    """A line for each task."""
    return [
        {
            "task": words(found.data.task),
            "anchor": found.data.task,
            "cells": [str(found.counts[name]) for name in ("read", "kept", "search", "held_out")]
            + [interval(row_of(found.scores, "top1"), 1, 100), interval(row_of(found.scores, "logit_diff"), 2)],
            "stops": any(warned.stops for warned in found.warnings),
            "warnings": sum(not warned.stops for warned in found.warnings),
        }
        for found in looks
    ]


def score_rows(scores: pd.DataFrame) -> list[dict[str, Any]]:
    """A line for all prompts, for each side and for each wording: its name, and cells."""
    rows = []
    for (split, template), part in scores.groupby(["split", "template"], sort=False):
        cells = part.set_index("metric").to_dict("index")
        rows.append(
            {
                "name": template or {"all": "all prompts"}.get(split, SIDES.get(split, split)),
                "wording": bool(template),
                "cells": [
                    number(part["prompts"].iloc[0]),
                    interval(cells["top1"], 1, 100),
                    interval(cells["logit_diff"], 2),
                    interval(cells["probability"], 3),
                    interval(cells["corrupted_top1"], 1, 100),
                    interval(cells["corrupted_logit_diff"], 2),
                ],
            }
        )
    return rows


def answer_bars(answers: pd.DataFrame) -> dict[str, Any]:
    """The commonest answers: ``bars``, each with its numbers of prompts and widths in percent, and a ``rest``."""
    shown, most = answers.head(MOST_ANSWERS), int(answers[list(SIDES)].sum(axis=1).max())
    bars = [
        {
            "answer": visible(row["answer"]),
            "counts": [row[s] for s in SIDES],
            "widths": [100 * row[s] / most for s in SIDES],
        }
        for row in shown.to_dict("records")
    ]
    left = answers.iloc[MOST_ANSWERS:]
    rest = f"{count(len(left), 'more answer')} of {count(left[list(SIDES)].to_numpy().sum(), 'prompt')}"
    return {"bars": bars, "rest": f"and {rest}" if len(left) else "", "different": len(answers)}


def sentence(found: Look) -> str:
    """What a task's data come to."""
    n, right = found.counts, row_of(found.scores, "top1")
    passed = f" {n['pass the filter']} pass the filter." if "pass the filter" in n else ""
    return (
        f"{n['kept']} of {count(n['read'], 'prompt')} can be used: {n['search']} to search on, {n['held_out']} held "
        f"out.{passed} Unharmed, the model's first choice is the answer on {percent(right, 100)} of them; the logit "
        f"difference is {interval(row_of(found.scores, 'logit_diff'), 2)}."
    )


def notes(found: Look) -> list[str]:
    """What else is known of the prompts: what is held out, their layouts, fillers that were left out."""
    info, said = found.data.info, []
    if info.get("hold_out"):
        said.append(f"Held out: {HELD_OUT.get(info['hold_out'], info['hold_out'])}.")
    layouts = info.get("layouts") or [info["layout"] | {"prompts": found.counts["kept"]}]
    sizes = ", ".join(f"{layout['prompts']} of {layout['tokens']} tokens" for layout in layouts[:8])
    rest = f" and {count(len(layouts) - 8, 'more layout')}" if len(layouts) > 8 else ""
    said.append(f"Prompts by layout: {sizes}{rest}.")
    for kind, left_out in info["dropped_fillers"].items():
        if left_out:
            said.append(f"Not used as {kind}, since more than one token: {', '.join(left_out)}.")
    return said


def page(
    looks: Sequence[Look], tokens: Mapping[str, pd.DataFrame], title: str, warning: str, main: Sequence[str]
) -> str:
    """The data of one model's tasks. ``tokens``: tokens.parquet by task; ``main``: the tasks that are searched."""
    sections = [
        {
            "anchor": found.data.task,
            "title": words(found.data.task),
            "kind": "searched" if found.data.task in main else "evaluated only",
            "sentence": sentence(found),
            "warnings": found.warnings,
            "reasons": [(reason, n, remedy_of(reason)) for reason, n in found.reasons.items()],
            "counts": found.counts,
            "notes": notes(found),
            "scores": score_rows(found.scores),
            "answers": answer_bars(found.answers),
            "examples": examples(tokens[found.data.task]),
            "roles": [role for role in ROLES if (tokens[found.data.task]["role"] == role).any()],
            "rejected": rejected_examples(found.data.rejected),
        }
        for found in looks
    ]
    wrong = sum(len(found.warnings) for found in looks)
    lead = (
        "What the model reads, before anything is searched. "
        + (f"{count(wrong, 'warning')}, each with what to change." if wrong else "Nothing looks wrong.")
        + " Brackets hold 95 % bootstrap intervals over prompts."
    )
    return TEMPLATE.render(
        title=title, warning=warning, lead=lead, overview=overview(looks), sections=sections, names=ROLES
    )


TEMPLATE = HTML.from_string("""\
{% extends base %}
{% block css %}
body { max-width: 70rem; }
h3 { font-size: .95rem; margin: 1.4rem 0 .3rem; }
h2 small { font-weight: 400; color: #666; font-size: .82rem; }
.wrong { list-style: none; padding: 0; margin: .8rem 0; }
.wrong li { background: #fff6e0; border-left: 4px solid #b58900; padding: .4rem .8rem; margin: .35rem 0; }
.wrong li.stops { background: #fbe3e6; border-left-color: #c0334d; }
.wrong b::after { content: ": "; }
.wrong span { display: block; color: #444; }
.fine { color: #1d6b34; }
td.wording { padding-left: 1.4rem; min-width: 14rem; overflow-wrap: anywhere; }
.stop { color: #a3203a; font-weight: 600; }
.bars { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .15rem 1.6rem;
  font-size: .82rem; margin: .4rem 0; }
.bars div { display: grid; grid-template-columns: 6.5rem 1fr 4.4rem; gap: .5rem; align-items: center; }
.bars code { text-align: right; overflow: hidden; text-overflow: ellipsis; white-space: pre; }
.bars .bar { display: flex; height: .7rem; }
.bars i { background: #4477aa; } .bars i + i { background: #a9c3de; }
.key i { display: inline-block; width: .8rem; height: .7rem; background: #4477aa; margin: 0 .3rem 0 .8rem; }
.key i.held { background: #a9c3de; }
.example { margin: .6rem 0 1.1rem; }
.example p { margin: 0 0 .2rem; font-size: .82rem; color: #555; overflow-wrap: anywhere; }
.line { display: grid; grid-template-columns: 8.5rem 1fr; gap: .5rem; margin: .15rem 0; align-items: baseline; }
.line > span { font-size: .8rem; color: #555; overflow-wrap: anywhere; }
.tokens { font: .8rem/1.9 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.tokens b { display: inline-block; max-width: 100%; box-sizing: border-box; line-height: 1.45; font-weight: 400;
  white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid #ccc; border-radius: 2px; padding: .05rem .2rem;
  margin-right: 2px; color: #222; background: #fff; }
.tokens small { color: #555; margin-left: .4rem; }
.tokens .members { background: #cfe0f1; border-color: #7fa5cc; }
.tokens .last { background: #e2e2e2; border-color: #888; }
.tokens .answer { background: #2f5f93; border-color: #2f5f93; color: #fff; }
.tokens .incorrect { border: 1.5px solid #555; }
.tokens .bos { background: #f0f0f0; color: #555; font-style: italic; }
@media (max-width: 40rem) { .line { grid-template-columns: 1fr; gap: 0; } }
{% endblock %}
{% macro line(name, boxes) %}
<div class="line"><span>{{ name }}</span><div class="tokens">
{% for box in boxes %}
<b class="{{ box.role }}" title="{{ box.about }}">{{ box.text }}</b>
{%- endfor %}
</div></div>
{% endmacro %}
{% block body %}
<h1>{{ title }}</h1>
{% if warning %}
<p class="warning">{{ warning }}</p>
{% endif %}
<p class="lead">{{ lead }}</p>
<div class="wide"><table>
<thead><tr><th class="text">task</th><th>read</th><th>kept</th><th>search</th><th>held out</th>
<th>first choice right (%)</th><th>logit difference</th><th>warnings</th></tr></thead>
<tbody>
{% for row in overview %}
<tr><td class="text"><a href="#{{ row.anchor }}">{{ row.task }}</a></td>
{% for cell in row.cells %}<td>{{ cell }}</td>{% endfor %}
<td>{% if row.stops %}<span class="stop">stops the study</span>, {% endif %}{{ row.warnings }}</td></tr>
{% endfor %}
</tbody></table></div>
{% for section in sections %}
<section id="{{ section.anchor }}">
<h2>{{ section.title }} <small>{{ section.kind }}</small></h2>
<p>{{ section.sentence | tied }}</p>
{% if section.warnings %}
<ul class="wrong">
{% for warned in section.warnings %}
<li{% if warned.stops %} class="stops"{% endif %}>
<b>{{ "Stops the study" if warned.stops else warned.name | capitalize }}</b>{{ warned.text | tied }}
<span>To change: {{ warned.remedy }}</span></li>
{% endfor %}
</ul>
{% else %}
<p class="fine">Nothing looks wrong.</p>
{% endif %}
<h3>Prompts</h3>
<div class="wide"><table>
<thead><tr><th class="text">prompts</th><th>number</th>
{% if section.reasons %}<th class="text">what to do</th>{% endif %}</tr></thead>
<tbody>
<tr><td class="text">read</td><td>{{ section.counts.read }}</td></tr>
{% for reason, n, remedy in section.reasons %}
<tr><td class="text wording">rejected: {{ reason }}</td><td>{{ n }}</td><td class="text">{{ remedy }}</td></tr>
{% endfor %}
<tr><td class="text">kept</td><td>{{ section.counts.kept }}</td></tr>
<tr><td class="text wording">to search on</td><td>{{ section.counts.search }}</td></tr>
<tr><td class="text wording">held out</td><td>{{ section.counts.held_out }}</td></tr>
{% if "pass the filter" in section.counts %}
<tr><td class="text">pass the filter</td><td>{{ section.counts["pass the filter"] }}</td></tr>
{% endif %}
</tbody></table></div>
{% for note in section.notes %}
<p class="note">{{ note }}</p>
{% endfor %}
<h3>The model, unharmed</h3>
<div class="wide"><table>
<thead><tr><th class="text">on</th><th>prompts</th><th>first choice right (%)</th><th>logit difference</th>
<th>p(answer)</th><th>corrupted: right (%)</th><th>corrupted: logit difference</th></tr></thead>
<tbody>
{% for row in section.scores %}
<tr><td class="text{{ " wording" if row.wording }}">{{ row.name }}</td>
{% for cell in row.cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
<h3>Answers <small class="key"><i></i>to search on<i class="held"></i>held out</small></h3>
<div class="bars">
{% for bar in section.answers.bars %}
<div><code>{{ bar.answer }}</code><span class="bar">
{%- for width in bar.widths %}<i style="width: {{ "%.1f" | format(width) }}%"></i>{% endfor -%}
</span><span>{{ bar.counts | join(" + ") }}</span></div>
{% endfor %}
</div>
{% if section.answers.rest %}
<p class="note">{{ section.answers.rest }}</p>
{% endif %}
<h3>Token by token <small class="tokens">
{% for role in section.roles %}<b class="{{ role }}">{{ names[role] }}</b>{% endfor %}</small></h3>
{% for example in section.examples %}
<div class="example"><p>prompt {{ example.prompt }}, {{ example.template }}</p>
{% for name, boxes in example.lines %}{{ line(name, boxes) }}{% endfor %}
</div>
{% endfor %}
{% if section.rejected %}
<h3>Rejected</h3>
{% for group in section.rejected %}
{% for example in group.prompts %}
<div class="example"><p>prompt {{ example.prompt }}: {{ group.reason }}</p>
{% for name, strings in example.lines %}
<div class="line"><span>{{ name }}</span><div class="tokens">
{% for string in strings %}<b>{{ string }}</b>{% endfor %}<small>{{ strings | length }} tokens</small>
</div></div>
{% endfor %}
</div>
{% endfor %}
{% endfor %}
{% endif %}
</section>
{% endfor %}
{% endblock %}
""")
