"""A page of cards: for every head of a circuit its roles, a picture, and the evidence of every task side by side; what
the other heads of the model are called; and a card for every MLP."""

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import pandas as pd
from markupsafe import Markup
from matplotlib.colors import to_hex
from matplotlib.typing import ColorType

from atlas.core.multiple import ALPHA
from atlas.heads.labels import LABELS, UNLABELLED
from atlas.report import card_pictures, frame, maps, mlp_cards, role_words
from atlas.report.figures import attention
from atlas.report.figures.ov import LEAST, title_of
from atlas.report.wording import count, interval, listing, number, place, words

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
    "mlp_answers": ["component", "layer", "answer", "prompts", *MEAN, "share", "share_low", "share_high"],
    "mlp_tokens": ["component", "layer", "end", "place", "token", "token_id", "logit"],
}
DETECTORS = ["detector", "layer", "head", *MEAN, "null_low", "null_high", "p"]
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
    same = ("roles", "role_tests", "membership", "attention", "ov", "detectors", "mlp_answers", "mlp_tokens")
    return {name: found[name] for name in same} | {
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


# ---- the page ------------------------------------------------------------------------------------------------
def page(tables: dict[str, pd.DataFrame], settings: Mapping[str, Any], model: str) -> str:
    """One card for each head of a circuit, and each MLP; one line for each role that other heads have.

    ``tables``: those of `chosen`, all tasks together; ``settings``: ``title``, ``main_tasks``, ``tasks``, ``labels``
    (floors), ``k``, ``sequential``, ``note``.
    """
    main, tasks = settings["main_tasks"], settings["tasks"]
    colours = [to_hex(c) for c in _task_colours(len(main), settings["sequential"])]
    heads = head_cards(tables, settings, colours)
    floors = settings["labels"]
    return frame.render(
        __file__,
        title=f"{settings['title']}: heads of {model}",
        lead=f"{count(len(heads), 'head')} of the circuits of {listing(map(words, main))}. {settings['note']}.",
        cards=heads,
        tasks=[words(task) for task in tasks],
        names=tasks,
        main=main,
        shades=role_words.SHADES,
        colours=list(zip(map(words, main), colours, strict=True)),
        meanings=[(label, role_words.MEANING[label], floors.get(label)) for label in LABELS],
        differ=[card["name"] for card in heads if card["differs"]],
        outside=others(tables["roles"], tasks),
        mlps=mlp_cards.cards(tables, main, tasks, colours),
    )


def head_cards(
    tables: Mapping[str, pd.DataFrame], settings: Mapping[str, Any], colours: list[str]
) -> list[dict[str, Any]]:
    """What is on the card of each head that a circuit has, in the order of the model."""
    main, tasks, roles = settings["main_tasks"], settings["tasks"], tables["roles"]
    roles, tests = roles[roles["circuits"] != ""], tables["role_tests"]
    evidence, detected = lines(dict(tables), settings["k"]), index(tables["detectors"].assign(task=""), "detector")
    tested = index(tests, "score")
    shown = roles["component"].unique()
    evidence += role_lines(tests[tests["component"].isin(shown)], tested)
    pictures = _attention_pictures(tables["attention"], roles, main, settings["sequential"])
    cards = []
    for name in sorted(shown, key=place):
        own = roles[roles["component"] == name]
        layer, _, head = place(name)
        circuits = str(own["circuits"].iloc[0]).split(", ")
        by_task = {row["task"]: row for row in own.to_dict("records")}
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
                "labels": [by_task[task]["label"] if task in by_task else "" for task in tasks],
                "said": [_said(by_task[task]) for task in tasks if task in by_task],
                "differs": bool(own["differs"].any()),
                "groups": _groups(evidence, layer, head, tasks).items(),
                "detectors": listing(scores),
                "scores": Markup(
                    card_pictures.score_picture(tests[tests["component"] == name], settings["labels"], main, colours)
                ),
                "maps": [
                    (words(task), Markup(pictures[where]), colour)
                    for task, colour in zip(main, colours, strict=True)
                    if (where := (layer, head, task)) in pictures
                ],
            }
        )
    return cards


def _said(row: Mapping[str, Any]) -> dict[str, str]:
    """Of one head on one task: its label, the others that apply, the score that it rests on, and its nulls."""
    return {
        "task": words(row["task"]),
        "label": row["label"],
        "also": ", ".join(str(row["labels"]).split("; ")[1:]),
        "evidence": role_words.evidence(row),
        "null": role_words.null(row),
        "lacking": role_words.lacking(row),
    }


def role_lines(tests: pd.DataFrame, tested: Mapping[tuple[Any, ...], Mapping[str, Any]]) -> list[tuple[str, str, Cell]]:
    """Lines as `lines` has them, of the scores by which a head is more than random heads reach on some task.

    ``tested``: `index` of all tests, by score.
    """

    rows = tests[tests["p_holm"] < ALPHA]
    sure = set(zip(rows["layer"], rows["head"], rows["score"], strict=True))

    def of(score: str) -> Cell:
        def cell(at: Place) -> str:
            row = tested.get((*at, score))
            if not row or (*at[1:], score) not in sure or row["value"] != row["value"]:
                return DASH
            star = " *" if row["p_holm"] < ALPHA else ""
            return f"{interval(row, 2)}{star}{RANDOM}{role_words.span(row, 'null')}"

        return cell

    scores = [score for score in dict.fromkeys(tests["score"]) if score in set(rows["score"])]
    group = "Beside random heads (*: more than they reach)"
    return [(group, role_words.name_of(score), of(score)) for score in scores]


def others(roles: pd.DataFrame, tasks: list[str]) -> list[tuple[str, list[str]]]:
    """(label, for each task the heads outside every circuit that it is the label of) of labels that one has."""
    outside = roles[(roles["circuits"] == "") & (roles["label"] != UNLABELLED)]
    out = []
    for label in LABELS:
        own = outside[outside["label"] == label]
        of_tasks = [sorted(own.loc[own["task"] == task, "component"], key=place) for task in tasks]
        if len(own):
            out.append((label, [", ".join(names) or DASH for names in of_tasks]))
    return out


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
        (layer, head, task): card_pictures.attention_picture(rows, queries, keys, task, lambda v: to_hex(cmap(v)))
        for (layer, head, task), rows in found[found["task"].isin(main)].groupby(["layer", "head", "task"])
        if (layer, head) in heads
    }


def _task_colours(n: int, sequential: str) -> list[ColorType]:
    return [matplotlib.colormaps[sequential](0.1 + 0.75 * i / max(1, n - 1)) for i in range(n)]
