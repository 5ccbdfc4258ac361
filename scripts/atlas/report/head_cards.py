"""A page of cards: for every head of a circuit its label, a picture, and the evidence of every task side by side."""

from collections.abc import Callable
from typing import Any

import matplotlib
import pandas as pd
from markupsafe import Markup
from matplotlib.colors import to_hex
from matplotlib.typing import ColorType

from atlas.heads.labels import LABELS
from atlas.report import maps
from atlas.report.figures import attention
from atlas.report.figures.ov import LEAST, title_of
from atlas.report.pages import HTML
from atlas.report.wording import count, interval, listing, number, place, words

MEANING = {
    "previous token": "repeated random tokens: mean weight on the token before",
    "induction": "repeated random tokens: mean weight on the token after the earlier copy",
    "duplicate": "repeated random tokens: mean weight on the earlier copy",
    "successor": "share of instances whose next member it writes into the top k, and more than the member itself",
    "copy": "the same of the member itself, written more than the next one",
    "inhibitor": "what its direct attribution takes from the logit difference, as a share of it",
    "same-type detector": "attention to members, in order or shuffled, less that to other words in their places",
}
SHADES = {  # of label chips; the label itself is always written out
    "previous token": "#cfe3f5",
    "induction": "#d9d2ee",
    "duplicate": "#f3d3e6",
    "successor": "#c9e8cd",
    "copy": "#f7e3b5",
    "inhibitor": "#f8cdc8",
    "same-type detector": "#cdeae8",
}
MEMBERS = [  # statistic, variant, name
    ("last to last member", "in order", "last to last member"),
    *[("last to members", variant, f"last to members, {variant}") for variant in ("in order", "shuffled", "words")],
    *[("member to members", v, f"members to earlier members, {v}") for v in ("in order", "shuffled", "words")],
    ("previous member is the maximum", "in order", "previous member is the maximum"),
    ("member to own type", "interleaved", "members to their own type, interleaved"),
    ("member to other type", "interleaved", "members to the other type, interleaved"),
]
# Columns of the tables that cards read (their modules import torch), for those that a study leaves out
MEAN = ["value", "ci_low", "ci_high"]
OF_TASKS = {
    "attention": ["variant", "layer", "head", "query_role", "key_role", *MEAN],
    "attention_members": ["variant", "layer", "head", "statistic", *MEAN],
    "patching": ["direction", "site", "layer", "head", "position", "role", *MEAN],
    "attribution": ["part", "name", "layer", "head", *MEAN],
    "ov": ["norm", "layer", "head", "score", "k", *MEAN, "baseline", "instances"],
}
DETECTORS = ["detector", "layer", "head", *MEAN]
SOURCES = {"own": "through its norm", "in place": "in place"}  # the norm of block 1 stays in the tables
DASH, RANDOM = "\u2013", "; random "
Place = tuple[str, int, int]  # task, layer, head
Cell = Callable[[Place], str]


# ---- evidence ------------------------------------------------------------------------------------------------
def index(table: pd.DataFrame | None, *keys: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """(task, layer, head, *keys) -> row; nothing for a table without rows."""
    if table is None or not len(table):
        return {}
    columns = [table[name] for name in ("task", "layer", "head", *keys)]
    return dict(zip(zip(*columns, strict=True), table.to_dict("records"), strict=True))


def lines(tables: dict[str, pd.DataFrame], k: int) -> list[tuple[str, str, Cell]]:
    """(group, name, function of (task, layer, head) -> cell) of the evidence on a card, in its order."""
    effects = index(tables["effects"])
    patching = index(tables["patching"], "direction")
    attribution = index(tables["attribution"])
    members = index(tables["members"], "variant", "statistic")
    ov = index(tables["ov"], "norm", "score", "k")

    def plain(found: dict[tuple[Any, ...], dict[str, Any]], *keys: str, digits: int = 2) -> Cell:
        def cell(at: Place) -> str:
            row = found.get((*at, *keys))
            return interval(row, digits) if row else DASH

        return cell

    def lost(at: Place) -> str:
        row = effects.get(at)
        ends = row and {"value": 100 - row["value"], "ci_low": 100 - row["ci_high"], "ci_high": 100 - row["ci_low"]}
        return interval(ends, 1) if ends else DASH

    def written(norm: str, score: str, k: int) -> Cell:
        def cell(at: Place) -> str:
            row = ov.get((*at, norm, score, k))
            return f"{interval(row, 2)}{RANDOM}{number(row['baseline'], 2)}" if row else DASH

        return cell

    out: list[tuple[str, str, Cell]] = [("Ablated alone", "points of % of full lost", lost)]
    out += [("Patching its output", d, plain(patching, d)) for d in ("denoising", "noising")]
    out.append(("Direct attribution", "logits", plain(attribution)))
    out += [("Attention", name, plain(members, variant, statistic)) for statistic, variant, name in MEMBERS]
    found = tables["ov"]
    strong = found[found["norm"].eq("own") & found["k"].eq(k) & found["value"].ge(LEAST)]
    cross = [score for score in dict.fromkeys(strong["score"]) if score.startswith("cross:")]
    for norm, source in SOURCES.items():
        scores = ("next", "copy", "previous", "next_next", *cross) if norm == "own" else ("next", "copy")
        for score, top in (*((score, k) for score in scores), ("next over copy", 0)):
            name = f"{title_of('own', score)}, {source}"
            out.append((f"Written into the top {k}", name, written(norm, score, top)))
    return out


# ---- pictures ------------------------------------------------------------------------------------------------
def score_picture(rows: pd.DataFrame, thresholds: dict[str, Any], tasks: list[str], colours: list[str]) -> str:
    """SVG: the score of every label in every main task, and its threshold."""
    left, wide, step = 132, 190, 17
    down = step * len(LABELS) + 22
    parts = [f'<svg width="{left + wide + 18}" height="{down}" role="img" aria-label="scores of labels">']

    def x(value: float) -> float:
        return left + wide * min(max(value, -0.1), 1.05)

    for share in (0, 0.5, 1):
        at = x(share)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="2" y2="{down - 18}" stroke="#ddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{down - 5}" text-anchor="middle">{share:g}</text>')
    for i, label in enumerate(LABELS):
        y = step * (i + 0.5) + 3
        parts.append(f'<text x="{left - 12}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        if label in thresholds:
            at = x(thresholds[label])
            parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y - 7:.1f}" y2="{y + 7:.1f}" stroke="#222"/>')
        for t, task in enumerate(tasks):
            value = rows.loc[rows["task"] == task, f"score: {label}"]
            if len(value) and value.iloc[0] == value.iloc[0]:
                at, shift = x(value.iloc[0]), 3.2 * (t - (len(tasks) - 1) / 2)
                title = f"<title>{words(task)}: {value.iloc[0]:.2f}</title>"
                dot = f'<circle cx="{at:.1f}" cy="{y + shift:.1f}" r="3" fill="{colours[t]}">{title}</circle>'
                parts.append(dot)
    return "".join([*parts, "</svg>"])


def attention_picture(
    rows: pd.DataFrame, queries: list[str], keys: list[str], task: str, shade: Callable[[float], str]
) -> str:
    """SVG: mean weights of one head between roles, queries downwards; ``shade``: weight -> colour."""
    cell, left, top = 14, 30, 4
    across, down = left + cell * len(keys) + 4, top + cell * len(queries) + 36
    parts = [f'<svg width="{max(across, 110)}" height="{down}" role="img" aria-label="attention, {words(task)}">']
    grid = attention.role_grid(rows, queries, keys)
    for q, query in enumerate(queries):
        y = top + cell * q
        parts.append(f'<text x="{left - 4}" y="{y + 11}" text-anchor="end">{attention.short(query)}</text>')
        for j, key in enumerate(keys):
            value = grid[q, j]
            fill = shade(value) if value == value else "#e8e8e8"
            title = f"<title>{query} to {key}: {value:.2f}</title>" if value == value else ""
            box = f'x="{left + cell * j}" y="{y}" width="{cell - 1}" height="{cell - 1}"'
            parts.append(f'<rect {box} fill="{fill}">{title}</rect>')
    for j, key in enumerate(keys):
        at = left + cell * (j + 0.5) + 3
        base = top + cell * len(queries) + 4
        parts.append(f'<text transform="translate({at:.1f} {base}) rotate(90)">{attention.short(key)}</text>')
    return "".join([*parts, "</svg>"])


# ---- the page ------------------------------------------------------------------------------------------------
def page(tables: dict[str, Any], settings: dict[str, Any], model: str) -> str:
    """`tables`: `roles`, `effects` (percent of full, one kind of ablation), `patching` (of z), `attribution` (of
    heads), `members`, `ov`, `attention` and `detectors`, of all tasks; `settings`: `title`, `main_tasks`, `tasks`,
    `labels` (thresholds), `k`, `sequential`."""
    roles, main, tasks = tables["roles"], settings["main_tasks"], settings["tasks"]
    cmap = maps.from_white(settings["sequential"])
    colours = [to_hex(c) for c in _task_colours(len(main), settings["sequential"])]
    evidence, found = lines(tables, settings["k"]), tables["attention"]
    found = found[found["variant"] == "in order"]
    queries, keys = attention.axes_of(found)
    detected = tables["detectors"].set_index(["detector", "layer", "head"]).to_dict("index")
    by_head = {key: rows for key, rows in found.groupby(["layer", "head", "task"])}
    cards = []
    for name in sorted(roles["component"].unique(), key=place):
        own = roles[roles["component"] == name]
        layer, _, head = place(name)
        labels = dict(zip(own["task"], own["label"], strict=True))
        groups: dict[str, list[Any]] = {}
        for group, line, cell in evidence:
            cells = [cell((task, layer, head)) for task in tasks]
            if set(cells) != {DASH}:
                groups.setdefault(group, []).append((line, cells))
        pictures = [score_picture(own, settings["labels"], main, colours)]
        maps_of = [
            (task, attention_picture(by_head[layer, head, task], queries, keys, task, lambda v: to_hex(cmap(v))))
            for task in main
            if (layer, head, task) in by_head
        ]
        circuits = [c for c in str(own["circuits"].iloc[0]).split(", ") if c]
        scores = [
            f"{d} {interval(detected[d, layer, head], 2)}"
            for d in ("previous", "duplicate", "induction")
            if (d, layer, head) in detected
        ]
        cards.append(
            {
                "name": name,
                "circuits": listing(map(words, circuits)),
                "inside": circuits,
                "labels": [labels.get(task, "") for task in tasks],
                "also": sorted({"; ".join(s.split("; ")[1:]) for s in own["labels"] if "; " in s}),
                "differs": bool(own["differs"].any()),
                "groups": groups.items(),
                "detectors": listing(scores),
                "scores": Markup(pictures[0]),
                "maps": [(words(task), Markup(svg), colours[main.index(task)]) for task, svg in maps_of],
            }
        )
    differ = [card["name"] for card in cards if card["differs"]]
    return TEMPLATE.render(
        title=f"{settings['title']}: heads of {model}",
        cards=cards,
        tasks=[words(task) for task in tasks],
        names=tasks,
        main=main,
        shades=SHADES,
        colours=list(zip(map(words, main), colours, strict=True)),
        thresholds=[(n, MEANING[n], settings["labels"].get(n)) for n in LABELS],
        differ=differ,
        lead=f"{count(len(cards), 'head')} of the circuits of {listing(map(words, main))}.",
    )


def _task_colours(n: int, sequential: str) -> list[ColorType]:
    return [matplotlib.colormaps[sequential](0.1 + 0.75 * i / max(1, n - 1)) for i in range(n)]


def baseline(cell: str) -> Markup:
    """A cell with its baseline on a line of its own."""
    return Markup("<br>").join(cell.split("; ")) if RANDOM in cell else Markup(cell)


HTML.filters["baseline"] = baseline
TEMPLATE = HTML.from_string("""\
{% extends base %}
{% block css %}
body { max-width: 84rem; }
svg text { font: 11px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #333; }
.card { border: 1px solid #d5d5d5; border-radius: 6px; padding: .4rem 1rem .8rem; margin: 1.4rem 0; }
.card h2 { border: 0; margin: .5rem 0 .2rem; }
.card:target { border-color: #4477aa; box-shadow: 0 0 0 2px #4477aa44; }
.pictures { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-end; margin: .5rem 0; }
.pictures figure { margin: 0; }
figcaption { font-size: .78rem; color: #555; }
.chip { padding: .05rem .45rem; border-radius: .6rem; white-space: nowrap; }
.none { color: #767676; }
.cell { white-space: nowrap; }
td, th { padding: .28rem .4rem; }
table { font-size: .78rem; }
.flag { background: #fff2c4; border-left: 4px solid #ccab22; padding: .2rem .7rem; }
td.group, th.group { font-weight: 600; text-align: left; padding-top: .6rem; }
.swatch { display: inline-block; width: .7em; height: .7em; border-radius: 50%; }
th[scope=row] { font-weight: 400; border-bottom: 1px solid #e4e4e4; text-align: left; white-space: nowrap; }
{% endblock %}
{% block body %}
{% macro chip(label) %}
{% if label in shades %}
<span class="chip" style="background:{{ shades[label] }}">{{ label }}</span>
{% else %}
<span class="none">{{ label or "\u2013" }}</span>
{% endif %}
{% endmacro %}
<h1>{{ title }}</h1>
<p class="lead">{{ lead }} A head has the first label whose score reaches its threshold. Brackets hold 95 % bootstrap
intervals.</p>
<h2 id="overview">Labels in every task</h2>
{% if differ %}
<p class="flag">Another label in another task:
{% for name in differ %}
<a href="#h{{ name }}">{{ name }}</a>{{ "" if loop.last else "," }}
{% endfor %}
</p>
{% else %}
<p>Every head has one label in all tasks.</p>
{% endif %}
<div class="wide"><table>
<thead><tr><th class="text">head</th>{% for task in tasks %}<th class="text">{{ task }}</th>{% endfor %}</tr></thead>
<tbody>
{% for card in cards %}
<tr><td class="text"><a href="#h{{ card.name }}">{{ card.name }}</a>{{ " *" if card.differs }}</td>
{% for label in card.labels %}
<td class="text cell">
{{ chip(label) }}
{% if names[loop.index0] in card.inside %}<span title="in this task's circuit">\u25cf</span>{% endif %}
</td>
{% endfor %}
</tr>
{% endfor %}
</tbody></table></div>
<p class="note">Dot: the head is in this task's circuit. Star: its label differs between tasks. Circuits are searched
on the first {{ main | length }} of these tasks.</p>
<h2 id="labels">What the labels mean</h2>
<div class="wide"><table>
<thead><tr><th class="text">label, in order of precedence</th><th class="text">score</th><th>from</th></tr></thead>
<tbody>
{% for name, meaning, threshold in thresholds %}
<tr><td class="text">{{ chip(name) }}</td><td class="text">{{ meaning }}</td>
<td>{{ "never" if threshold is none else threshold }}</td></tr>
{% endfor %}
</tbody></table></div>
{% for card in cards %}
<section class="card" id="h{{ card.name }}">
<h2>{{ card.name }}</h2>
<p>In the {{ "circuit" if card.inside | length == 1 else "circuits" }} of {{ card.circuits }}.
{% if card.also %}Further labels that apply: {{ card.also | join(", ") }}.{% endif %}
Repeated random tokens: {{ card.detectors }}. <a href="#overview">All heads</a></p>
{% if card.differs %}<p class="flag">Its label differs between tasks.</p>{% endif %}
<div class="pictures">
<figure>{{ card.scores }}<figcaption>Score of each label; line: threshold.
{% for task, colour in colours %}
<span class="swatch" style="background:{{ colour }}"></span> {{ task }}
{% endfor %}
</figcaption></figure>
{% for task, svg, colour in card.maps %}
<figure>{{ svg }}
<figcaption><span class="swatch" style="background:{{ colour }}"></span> attention, {{ task }}</figcaption></figure>
{% endfor %}
</div>
<div class="wide"><table>
<thead><tr><th class="text"></th>{% for task in tasks %}<th>{{ task }}</th>{% endfor %}</tr></thead>
<tbody>
<tr><th scope="row">label</th>{% for label in card.labels %}<td>{{ chip(label) }}</td>{% endfor %}</tr>
{% for group, rows in card.groups %}
<tr><td class="group" colspan="{{ tasks | length + 1 }}">{{ group }}</td></tr>
{% for line, cells in rows %}
<tr><th scope="row">{{ line }}</th>{% for cell in cells %}<td>{{ cell | baseline }}</td>{% endfor %}</tr>
{% endfor %}
{% endfor %}
</tbody></table></div>
</section>
{% endfor %}
<p class="note">Patching: the head's output at all positions; 0 is the corrupted score, 1 the clean one. Denoising
starts from 0, noising from 1. Attention: mean weight; rows look, columns are looked at; grey comes later in the prompt.
Next over copy: the next member is written more than the member itself. A dash: not measured, since the task has no
circuit of its own or lacks this variant.</p>
{% endblock %}
""")
