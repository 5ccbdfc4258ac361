"""A page of cards: for every head of a circuit its label, a picture, and the evidence of every task side by side."""

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import pandas as pd
from markupsafe import Markup
from matplotlib.colors import to_hex
from matplotlib.typing import ColorType

from atlas.heads.labels import LABELS
from atlas.report import frame, maps
from atlas.report.figures import attention
from atlas.report.figures.ov import LEAST, title_of
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


def chosen(tables: Mapping[str, pd.DataFrame], kind: str) -> dict[str, pd.DataFrame]:
    """What `page` shows of a study's tables, under the names that it reads; what the study leaves out has no rows.

    ``kind``: the ablation of the effects.
    """
    empty = {name: pd.DataFrame(columns=["task", *columns]) for name, columns in OF_TASKS.items()}
    found = empty | {"detectors": pd.DataFrame(columns=DETECTORS)} | dict(tables)
    effects, patching, attribution = (found[name] for name in ("effects", "patching", "attribution"))
    return {name: found[name] for name in ("roles", "attention", "ov", "detectors")} | {
        "members": found["attention_members"],
        "effects": effects[(effects["kind"] == kind) & (effects["metric"] == "percent_of_full")],
        "patching": patching[(patching["site"] == "z") & (patching["head"] >= 0)],
        "attribution": attribution[attribution["part"] == "head"],
    }


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
def page(tables: dict[str, pd.DataFrame], settings: Mapping[str, Any], model: str) -> str:
    """One card for each head of ``roles``.

    ``tables``: those of `chosen`, all tasks together; ``settings``: ``title``, ``main_tasks``, ``tasks``, ``labels``
    (thresholds), ``k``, ``sequential``.
    """
    roles, main, tasks = tables["roles"], settings["main_tasks"], settings["tasks"]
    colours = [to_hex(c) for c in _task_colours(len(main), settings["sequential"])]
    evidence, detected = lines(tables, settings["k"]), index(tables["detectors"].assign(task=""), "detector")
    pictures = _attention_pictures(tables["attention"], roles, main, settings["sequential"])
    cards = []
    for name in sorted(roles["component"].unique(), key=place):
        own = roles[roles["component"] == name]
        layer, _, head = place(name)
        circuits = [c for c in str(own["circuits"].iloc[0]).split(", ") if c]
        labels = dict(zip(own["task"], own["label"], strict=True))
        scores = [
            f"{detector} {interval(detected[at], 2)}"
            for detector in ("previous", "duplicate", "induction")
            if (at := ("", layer, head, detector)) in detected
        ]
        cards.append(
            {
                "name": name,
                "circuits": listing(map(words, circuits)),
                "inside": circuits,
                "labels": [labels.get(task, "") for task in tasks],
                "also": sorted({"; ".join(s.split("; ")[1:]) for s in own["labels"] if "; " in s}),
                "differs": bool(own["differs"].any()),
                "groups": _groups(evidence, layer, head, tasks).items(),
                "detectors": listing(scores),
                "scores": Markup(score_picture(own, settings["labels"], main, colours)),
                "maps": [
                    (words(task), Markup(pictures[where]), colour)
                    for task, colour in zip(main, colours, strict=True)
                    if (where := (layer, head, task)) in pictures
                ],
            }
        )
    return frame.render(
        __file__,
        title=f"{settings['title']}: heads of {model}",
        lead=f"{count(len(cards), 'head')} of the circuits of {listing(map(words, main))}. {settings['note']}.",
        cards=cards,
        tasks=[words(task) for task in tasks],
        names=tasks,
        main=main,
        shades=SHADES,
        colours=list(zip(map(words, main), colours, strict=True)),
        thresholds=[(n, MEANING[n], settings["labels"].get(n)) for n in LABELS],
        differ=[card["name"] for card in cards if card["differs"]],
    )


def _groups(
    evidence: list[tuple[str, str, Cell]], layer: int, head: int, tasks: list[str]
) -> dict[str, list[tuple[str, list[str]]]]:
    """Group -> its lines (name, a cell for each task) of one head; lines that no task has are left out."""
    groups: dict[str, list[tuple[str, list[str]]]] = {}
    for group, line, cell in evidence:
        cells = [cell((task, layer, head)) for task in tasks]
        if set(cells) != {DASH}:
            groups.setdefault(group, []).append((line, cells))
    return groups


def _attention_pictures(
    table: pd.DataFrame, roles: pd.DataFrame, main: list[str], sequential: str
) -> dict[tuple[int, int, str], str]:
    """(layer, head, task) -> SVG of the attention of a head of ``roles`` to members in order."""
    found = table[table["variant"] == "in order"]
    queries, keys = attention.axes_of(found)
    cmap, heads = maps.from_white(sequential), {place(name)[::2] for name in roles["component"]}
    return {
        (layer, head, task): attention_picture(rows, queries, keys, task, lambda v: to_hex(cmap(v)))
        for (layer, head, task), rows in found[found["task"].isin(main)].groupby(["layer", "head", "task"])
        if (layer, head) in heads
    }


def _task_colours(n: int, sequential: str) -> list[ColorType]:
    return [matplotlib.colormaps[sequential](0.1 + 0.75 * i / max(1, n - 1)) for i in range(n)]
