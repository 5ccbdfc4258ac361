"""Pictures on the cards of heads and MLPs, as SVG in the page itself."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from atlas.heads.labels import LABELS
from atlas.report.figures import attention
from atlas.report.wording import number, words

LABELLED = 'role="img" aria-label="{}"'


def score_picture(tests: pd.DataFrame, floors: Mapping[str, Any], tasks: Sequence[str], colours: Sequence[str]) -> str:
    """The score of every role of one head in every main task, over what random heads reach; a line at each floor.

    ``tests``: rows of `role_tests` of the head. Of a role's scores that with the smaller p is drawn; a filled dot
    holds, an empty one does not.
    """
    left, wide, step = 132, 200, 17
    down = step * len(LABELS) + 22
    said = LABELLED.format("scores of roles beside those of random heads")
    parts = [f'<svg viewBox="0 0 {left + wide + 18} {down}" width="{left + wide + 18}" height="{down}" {said}>']

    def x(value: float) -> float:
        return left + wide * min(max(value, -0.05), 1.05)

    for share in (0, 0.5, 1):
        at = x(share)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="2" y2="{down - 18}" stroke="#ddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{down - 5}" text-anchor="middle">{share:g}</text>')
    best = tests.sort_values(["holds", "p_holm"], ascending=[False, True], kind="stable")
    best = best.drop_duplicates(["task", "label"])
    for i, label in enumerate(LABELS):
        y, own = step * (i + 0.5) + 3, best[best["label"] == label]
        parts.append(f'<text x="{left - 12}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        if label in floors:
            at = x(floors[label])
            parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y - 7:.1f}" y2="{y + 7:.1f}" stroke="#222"/>')
        for t, task in enumerate(tasks):
            shift = 3.2 * (t - (len(tasks) - 1) / 2)
            parts += [_score(row, x, y + shift, colours[t]) for row in own[own["task"] == task].to_dict("records")]
    return "".join([*parts, "</svg>"])


def _score(row: Mapping[str, Any], x: Callable[[float], float], y: float, colour: str) -> str:
    """A dot over a grey bar: one score, its interval in the title, and 95 % of random heads."""
    bar, value = "", row["value"]
    if value != value:
        return ""
    if row["null_low"] == row["null_low"]:
        low, high = x(row["null_low"]), x(row["null_high"])
        bar = f'<rect x="{low:.1f}" y="{y - 1.2:.1f}" width="{max(high - low, 0.8):.1f}" height="2.4" fill="#c9c9c9"/>'
    title = f"{words(row['task'])}, {row['score']}: {number(value, 2)}; random heads "
    title += f"{number(row['null_low'], 2)} to {number(row['null_high'], 2)}"
    fill = colour if row["holds"] else "#fff"
    dot = f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r="3" fill="{fill}" stroke="{colour}" stroke-width="1.2">'
    return f"{bar}{dot}<title>{title}</title></circle>"


def attention_picture(
    rows: pd.DataFrame, queries: list[str], keys: list[str], task: str, shade: Callable[[float], str]
) -> str:
    """Mean weights of one head between roles, queries downwards; ``shade``: weight -> colour."""
    cell, left, top = 14, 30, 4
    across, down = left + cell * len(keys) + 4, top + cell * len(queries) + 36
    said = LABELLED.format(f"attention, {words(task)}")
    parts = [f'<svg width="{max(across, 110)}" height="{down}" {said}>']
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


def answers_picture(rows: pd.DataFrame, task: str, colour: str) -> str:
    """What an MLP adds to the logit difference for each answer of one task, with its interval.

    ``rows``: of `mlp_answers`, those of single answers. All answers share one axis, in logits, 0 marked.
    """
    step, left, wide, top = 12, 74, 150, 16
    down = top + step * len(rows) + 6
    low, high = float(min(0.0, rows["ci_low"].min())), float(max(0.0, rows["ci_high"].max()))
    width = (high - low) or 1.0

    def x(value: float) -> float:
        return left + wide * (value - low) / width

    said = LABELLED.format(f"what it adds to the logit difference for each answer, {words(task)}")
    parts = [f'<svg width="{left + wide + 14}" height="{down}" {said}>']
    parts.append(f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{top - 2}" y2="{down - 4}" stroke="#999"/>')
    for value in {low, high}:
        parts.append(f'<text x="{x(value):.1f}" y="10" text-anchor="middle">{number(value, 1)}</text>')
    for i, row in enumerate(rows.to_dict("records")):
        y = top + step * (i + 0.5)
        said = f"{row['answer'].strip()}: {number(row['value'], 2)} [{number(row['ci_low'], 2)}, "
        said += f"{number(row['ci_high'], 2)}] logits, {row['prompts']} prompts"
        ends = f'x1="{x(row["ci_low"]):.1f}" x2="{x(row["ci_high"]):.1f}" y1="{y:.1f}" y2="{y:.1f}"'
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{escaped(row["answer"].strip())}</text>')
        parts.append(f'<line {ends} stroke="{colour}" stroke-width="1.5"/>')
        title = f"<title>{escaped(said)}</title>"
        parts.append(f'<circle cx="{x(row["value"]):.1f}" cy="{y:.1f}" r="2.6" fill="{colour}">{title}</circle>')
    return "".join([*parts, "</svg>"])


def escaped(text: str) -> str:
    """Text as it may stand in SVG."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
