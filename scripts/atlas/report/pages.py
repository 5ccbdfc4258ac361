"""HTML pages that need nothing from outside: their tables (a header and rows of strings) and their frame."""

import math
import re
from typing import Any

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup

from atlas.report.wording import COMBINED, interval, number, p_value, words


def circuit_rows(faithfulness: pd.DataFrame, task: str, threshold: float, order: str) -> pd.DataFrame:
    """The compared circuit of a task: one row for each (split, metric)."""
    rows = faithfulness[(faithfulness["task"] == task) & (faithfulness["threshold"] == threshold)]
    return rows[rows["order"] == order].set_index(["split", "metric"])


def clean_table(clean: pd.DataFrame, info: dict[str, dict[str, Any]], tasks: list[str]) -> dict[str, Any]:
    rows = []
    table = clean[clean["split"] == "all"].set_index(["task", "run", "metric"]).sort_index()
    for task in tasks:
        cells = [
            words(task),
            f"{table.loc[task, 'prompts'].iloc[0]:.0f}",
            f"{100 * table.loc[task, 'share_kept'].iloc[0]:.0f} %",
            str(sum(info[task]["counts"]["rejected"].values())),
        ]
        for metric, digits, factor in (("top1", 1, 100), ("logit_diff", 2, 1)):
            for run in ("clean", "corrupted"):
                cells.append(interval(table.loc[(task, run, metric)], digits, factor))
        rows.append(cells)
    header = [
        "task",
        "prompts",
        "kept",
        "rejected",
        "top-1 clean (%)",
        "top-1 corrupted (%)",
        "logit difference clean",
        "logit difference corrupted",
    ]
    return {"header": header, "rows": rows}


def circuit_table(
    faithfulness: pd.DataFrame, tasks: list[str], threshold: float, order: str, all_heads: int
) -> dict[str, Any]:
    rows = []
    for task in tasks:
        table = circuit_rows(faithfulness, task, threshold, order)
        heads, mlps = (int(table[kind].iloc[0]) for kind in ("heads", "mlps"))
        cells = [words(task), str(heads), f"{100 * heads / all_heads:.0f} %", str(mlps)]
        for key in (("search", "percent_of_full"), ("held_out", "percent_of_full")):
            cells.append(interval(table.loc[key]) if key in table.index else "\u2013")
        for key in (("search", "faithfulness"), ("held_out", "faithfulness")):
            cells.append(interval(table.loc[key], 2) if key in table.index else "\u2013")
        rows.append(cells)
    header = [
        "task",
        "heads",
        "of all heads",
        "MLPs",
        "% of full, search",
        "% of full, held out",
        "faithfulness, search",
        "faithfulness, held out",
    ]
    return {"header": header, "rows": rows}


def cross_table(cross: pd.DataFrame, tasks: list[str], main_tasks: list[str]) -> dict[str, Any]:
    table = cross[cross["metric"] == "percent_of_full"].set_index(["circuit", "task"])
    circuits = [c for c in (*main_tasks, *COMBINED) if c in table.index.get_level_values(0)]
    rows = [[words(circuit), *(interval(table.loc[(circuit, task)], 0) for task in tasks)] for circuit in circuits]
    return {"header": ["circuit, kept alone", *map(words, tasks)], "rows": rows}


def overlap_table(overlap: pd.DataFrame) -> dict[str, Any] | None:
    rows = [
        [
            f"{words(row['circuit_a'])}, {words(row['circuit_b'])}",
            row["level"].replace("mlps", "MLPs"),
            f"{row['size_a']:.0f}",
            f"{row['size_b']:.0f}",
            f"{row['shared']:.0f}",
            number(row["expected"], 1),
            number(row["jaccard"], 2),
            *(p_value(row[key], name="") for key in ("p_layer_matched", "p_hypergeometric")),
        ]
        for _, row in overlap.iterrows()
    ]
    header = ["circuits", "level", "first", "second", "shared", "expected", "Jaccard", "p, layers held", "p, free"]
    return {"header": header, "rows": rows} if rows else None


def controls_table(summary: pd.DataFrame) -> dict[str, Any]:
    rows = [
        [
            row["question"],
            words(row["circuit"]),
            words(row["task"]),
            interval(row),
            f"{number(row['control_median'], 1)} [{number(row['control_low'], 1)}, {number(row['control_high'], 1)}]"
            if row["controls"]
            else "\u2013",
            f"{row['controls']:.0f}",
            p_value(row["p"], name=""),
            row["note"] or "",
        ]
        for _, row in summary.iterrows()
    ]
    header = ["question", "circuit", "task", "% of full", "controls: median [95 % of them]", "controls", "p", "note"]
    return {"header": header, "rows": rows}


def generation_table(summary: pd.DataFrame) -> dict[str, Any]:
    """Every prompt set with every head set, sensitive prompts left out; the last column has all prompts."""
    everywhere = summary[summary["over"] == "all"].set_index(["set", "heads"])
    rows = []
    for _, row in summary[summary["over"] == "robust"].iterrows():
        whole = everywhere.loc[(row["set"], row["heads"])]
        spread = f"{number(100 * row['control_median'], 1)} "
        spread += f"[{number(100 * row['control_low'], 1)}, {number(100 * row['control_high'], 1)}]"
        compared = bool(row["controls"] and row["prompts"])
        cells = [words(row["set"]), words(row["heads"]), f"{row['prompts']:.0f}", f"{row['sensitive']:.0f}"]
        cells += [interval(row, 1, 100) if row["prompts"] else "\u2013", f"{row['controls']:.0f}"]
        cells += [spread, p_value(row["p"], name="")] if compared else ["\u2013"] * 2
        cells.append(f"{number(100 * whole['value'], 1)} ({p_value(whole['p'])})" if whole["prompts"] else "\u2013")
        rows.append(cells)
    header = ["prompts", "heads ablated", "used", "sensitive", "% right", "random sets", "their median [95 % of them]"]
    return {"header": [*header, "p", "% right, all prompts"], "rows": rows}


def areas_table(areas: pd.DataFrame, tasks: list[str]) -> dict[str, Any] | None:
    """CPR and CMD of every ranking, on held-out prompts where there are any."""
    held_out = areas[areas["split"] == "held_out"]
    table = (held_out if len(held_out) else areas).set_index(["task", "method", "ranking", "metric"])
    rows = [
        [words(method), ranking or "\u2013"]
        + [
            interval(table.loc[(task, method, ranking, metric)], 2)
            if (task, method, ranking, metric) in table.index
            else "\u2013"
            for task in tasks
            for metric in ("cpr", "cmd")
        ]
        for method, ranking in dict.fromkeys(zip(areas["method"], areas["ranking"], strict=True))
    ]
    header = ["method", "ranking", *(f"{words(task)}, {metric.upper()}" for task in tasks for metric in ("cpr", "cmd"))]
    return {"header": header, "rows": rows} if rows else None


def evaluation_table(evaluation: pd.DataFrame, tasks: list[str]) -> dict[str, Any] | None:
    """Every circuit on every metric, on held-out prompts where there are any."""
    held_out = evaluation[evaluation["split"] == "held_out"]
    table = (held_out if len(held_out) else evaluation).set_index(["task", "circuit", "metric"])
    metrics = list(dict.fromkeys(evaluation["metric"]))
    rows = [
        [words(task), words(circuit)]
        + [
            interval(table.loc[(task, circuit, metric)], 2) if (task, circuit, metric) in table.index else "\u2013"
            for metric in metrics
        ]
        for task in tasks
        for circuit in dict.fromkeys(evaluation["circuit"])
        if (task, circuit) in table.index.droplevel("metric")
    ]
    return {"header": ["task", "circuit", *map(words, metrics)], "rows": rows} if rows else None


def stability_table(summary: pd.DataFrame, tasks: list[str]) -> dict[str, Any] | None:
    rows = [
        [
            words(row["task"]),
            row["level"],
            row["family"],
            *(f"{row[key]:.0f}" for key in ("runs", "size_min", "size_max", "intersection", "union")),
            f"{number(row['jaccard'], 2)} [{number(row['jaccard_low'], 2)}, {number(row['jaccard_high'], 2)}]",
            number(row["expected"], 2),
        ]
        for _, row in summary[summary["task"].isin(tasks)].iterrows()
    ]
    header = [
        "task",
        "level",
        "runs over",
        "runs",
        "smallest",
        "largest",
        "kept by all",
        "by any",
        "Jaccard",
        "expected",
    ]
    return {"header": header, "rows": rows} if rows else None


def strongest_edges(scores: pd.DataFrame, n: int = 20) -> pd.DataFrame:
    """The n edges of largest magnitude, of both signs, of each task and method."""
    order = scores["value"].abs().sort_values(ascending=False, kind="stable").index
    top = scores.loc[order].groupby(["task", "method"], sort=False).head(n)
    return top.sort_values(["task", "method"], kind="stable")


def frame_table(frame: pd.DataFrame) -> dict[str, Any]:
    """A whole table, as it is, with numbers rounded to four digits."""

    def cell(value: object) -> str:
        if isinstance(value, float) and not isinstance(value, bool):
            return "\u2013" if math.isnan(value) else f"{value:.4g}"
        return "\u2013" if value is None else str(value)

    return {"header": list(frame.columns), "rows": [[cell(v) for v in row] for row in frame.itertuples(index=False)]}


def text_columns(rows: list[list[str]]) -> list[Markup]:
    """The class of each column's cells: columns with words are set left, columns of numbers right."""
    return [
        Markup(' class="text"' if any(re.match(r"[^\W\d_]", cell) for cell in column) else "")
        for column in zip(*rows, strict=True)
    ]


def tied(sentence: str) -> str:
    """With spaces that do not break within `80 %` and `p = 0.02`."""
    return re.sub(r" (?=%|[=<] [\d.])|(?<=[=<]) (?=[\d.])", "\u00a0", sentence)


HTML = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
HTML.filters |= {"text_columns": text_columns, "tied": tied}
STYLE = Markup("""\
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #222;
  background: #fff; max-width: 62rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.12rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
.lead { color: #666; margin: .2rem 0 1.4rem; }
.warning { background: #fbe3e6; border-left: 4px solid #ee6677; padding: .7rem 1rem; font-weight: 600; }
.short { background: #f3f6fa; border-left: 4px solid #4477aa; padding: .7rem 1rem .7rem 2rem; margin: 0; }
li { margin: .3rem 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; margin: .9rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .65rem; text-align: right; border-bottom: 1px solid #e4e4e4; vertical-align: bottom; }
td { white-space: nowrap; }
.text { text-align: left; }
td.text { white-space: normal; }
th { border-bottom: 1px solid #888; font-weight: 600; }
tbody tr:hover { background: #f6f6f6; }
.note { color: #666; font-size: .85rem; }
pre { font-size: .78rem; background: #f6f6f6; padding: .7rem; overflow-x: auto; white-space: pre-wrap; }
""")
HTML.globals["style"] = STYLE
BASE = HTML.from_string("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
{{ style }}
{% block css %}{% endblock %}</style>
</head>
<body>
{% block body %}{% endblock %}</body>
</html>
""")
HTML.globals["base"] = BASE
PAGE = HTML.from_string("""\
{% extends base %}
{% block body %}
<h1>{{ title }}</h1>
{% if warning %}
<p class="warning">{{ warning }}</p>
{% endif %}
<p class="lead">{{ lead }}</p>
{% if short %}
<ul class="short">
{% for sentence in short %}
<li>{{ sentence | tied }}</li>
{% endfor %}
</ul>
{% endif %}
{% for section in sections %}
<h2{% if section.anchor %} id="{{ section.anchor }}"{% endif %}>{{ section.title }}</h2>
{% if section.sentences %}
<ul>
{% for sentence in section.sentences %}
<li>{{ sentence | tied }}</li>
{% endfor %}
</ul>
{% endif %}
{% if section.table %}
{% set left = section.table.rows | text_columns %}
<div class="wide"><table>
<thead><tr>{% for name in section.table.header %}<th{{ left[loop.index0] }}>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in section.table.rows %}
<tr>{% for cell in row %}<td{{ left[loop.index0] }}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% if section.links %}
<p>
{% for address, text in section.links %}
<a href="{{ address }}">{{ text }}</a>{{ "" if loop.last else "," }}
{% endfor %}
</p>
{% endif %}
{% if section.note %}
<p class="note">{{ section.note }}</p>
{% endif %}
{% if section.pre %}
<pre>{{ section.pre }}</pre>
{% endif %}
{% endfor %}
{% endblock %}
""")


ROWS_UP_TO = 300


def warning(model: dict[str, Any]) -> str:
    """What stands above every page of a model (model.json) with random weights; empty for others."""
    if not model.get("random_weights"):
        return ""
    return (
        "This model has random weights. The run shows that the workflow fits the architecture and what it costs; its "
        "numbers, sentences and figures are no findings."
    )


def tables_page(tables: dict[str, pd.DataFrame], title: str, warning: str = "") -> str:
    """Tables on one page, very long ones cut; the keys are their headings."""
    sections = [
        {
            "title": words(name),
            "table": frame_table(frame.head(ROWS_UP_TO)),
            "note": f"The first {ROWS_UP_TO} of {len(frame)} rows." if len(frame) > ROWS_UP_TO else "",
        }
        for name, frame in tables.items()
        if len(frame)
    ]
    lead = "The tables behind the summary; value, ci_low and ci_high are a mean and its 95 % bootstrap interval."
    return PAGE.render(title=title, warning=warning, lead=lead, short=[], sections=sections)
