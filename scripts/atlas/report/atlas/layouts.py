"""Where members lie: on principal components, in what shape, and whether a probe reads their index, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from atlas.report.atlas.packing import Number, numbers, rounded
from atlas.report.wording import words

POINTS = 9  # at most, of which the page has a layout of a class
DIGITS = 3  # significant ones of coordinates
MEMBER = "member"  # members are read at themselves; else at the answers of a task
LINE, CIRCLE = "line", "circle"
ORDERS = "random orders"  # the null of every shape
SHAPES = {
    LINE: "Line: rank correlation of the index read with the index",
    CIRCLE: "Circle: mean cosine of the angle's error",
    "closed": "Closed: distances follow steps around the circle, less those along the line",
    "helix": "Helix: share of variance explained",
}
SHAPES_ABOUT = "Of members that the fit has not seen. Band: 95 % of {null}. Filled: corrected p < 0.05."
CONTROL = "The class has no such order: a control."
BESIDE = {"value": "value", "null_low": "null_low", "null_high": "null_high", "p": "p_holm"}
PROBES = {
    "mod 10": ("index modulo 10", "accuracy of reading the index modulo 10"),
    "mod 5": ("index modulo 5", "accuracy of reading the index modulo 5"),
    "mod 2": ("index modulo 2", "accuracy of reading the index modulo 2"),
    "index": ("index", "correlation of the index read with the index"),
}
POOLED = ("all", "beyond ten")  # in place of a class
UNSEEN = "other classes"  # what a probe was trained on that never saw the class
PROBES_ABOUT = (
    "Of a linear probe trained on all other classes. Band: from the median to the 95th percentile of probes with "
    "shuffled indices. Filled: corrected p < 0.05."
)


def where(at: str, task: str) -> str:
    """The key of where members are read: at themselves, or at the answers of a task."""
    return at if at == MEMBER or not task else f"{at}:{task}"


def said_where(at: str, task: str) -> str:
    """The same in words; an answer is read at the last token of its prompt."""
    return "at the member" if at == MEMBER else f"as the answer{f' of {words(task)}' if task else ''}"


def layouts(pca: pd.DataFrame, table: pd.DataFrame) -> list[dict[str, Any]]:
    """Members on principal components (pca.parquet), at `POINTS` points at most: those spread evenly, and where the
    class's own shape (``table``, shapes.parquet) stands out most from its null."""
    found = []
    for (name, at, task), rows in pca.groupby(["class", "at", "task"], sort=False):
        own = table[(table["class"] == name) & (table["at"] == at) & (table["task"] == task)]
        circle = own[(own["shape"] == CIRCLE) & ~own["control"].astype(bool)]
        of = {"class": name, "at": where(at, task), "where": said_where(at, task), "best": None}
        shape = (circle if len(circle) else own[own["shape"] == LINE]).dropna(subset=["value", "null_high"])
        if len(shape):
            of["best"] = int(shape.loc[(shape["value"] - shape["null_high"]).idxmax(), "point"])
        found.append(of | _layout(rows, len(circle) > 0, of["best"]))
    return found


def _layout(rows: pd.DataFrame, cyclic: bool, best: int | None) -> dict[str, Any]:
    by_point = {int(point): own.sort_values("place", kind="stable") for point, own in rows.groupby("point")}
    points = some(sorted(by_point), [] if best is None else [best])
    axes = [column for column in rows if column.startswith("pc") and rows[column].notna().all()]
    shares, first = [column.replace("pc", "share") for column in axes], by_point[points[0]]
    coordinates = [[list(map(short, row)) for row in by_point[point][axes].to_numpy()] for point in points]
    return {
        "members": list(first["word"]),
        "joined": joined(list(map(int, first["place"])), cyclic),
        "points": points,
        "coordinates": coordinates,
        "explained": [[rounded(by_point[point][share].iloc[0]) for share in shares] for point in points],
    }


def some(points: Sequence[int], always: Sequence[int], most: int = POINTS) -> list[int]:
    """``most`` of the points at most: ``always``, the first and the last, and others evenly between them."""
    if len(points) <= most:
        return list(points)
    room = most - len(set(always) - {points[0], points[-1]})
    spread = {points[round(i * (len(points) - 1) / (room - 1))] for i in range(room)}
    return sorted(spread | set(always))


def joined(places: Sequence[int], cyclic: bool) -> list[list[int]]:
    """[number, number, 1 where they are neighbours in the class]: each member with the next one that is there, and the
    last of a circle with the first, which no member need stand between."""
    lines = [[i, i + 1, int(places[i + 1] == places[i] + 1)] for i in range(len(places) - 1)]
    return [*lines, [len(places) - 1, 0, 0]] if cyclic and len(places) > 2 else lines


def short(value: float) -> Number:
    """A coordinate."""
    return rounded(f"{value:.{DIGITS}g}")


def shapes(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Each shape of shapes.parquet at every point, beside its null; a class's own before what is a control for it, of a
    cyclic one the circle first."""
    found, order_of = [], table.assign(later=table["shape"] != CIRCLE).sort_values(["control", "later"], kind="stable")
    of = order_of.groupby(["class", "at", "task", "shape", "null"], sort=False)
    for (name, at, task, shape, null), rows in of:
        control = bool(rows["control"].iloc[0])
        own = rows.sort_values("point", kind="stable")
        about = SHAPES_ABOUT.format(null=null)
        found.append(
            {
                "class": name,
                "at": where(at, task),
                "shape": f"{shape}:{null}".replace(" ", "-"),
                "words": f"{shape}{'' if null == ORDERS else f', {null}'}{', a control' if control else ''}",
                "title": SHAPES.get(str(shape), words(str(shape))),
                "about": f"{about} {CONTROL}" if control else about,
                "points": [int(point) for point in own["point"]],
                **{key: numbers(own[column]) for key, column in BESIDE.items()},
            }
        )
    return found


def probes(table: pd.DataFrame) -> list[dict[str, Any]]:
    """What probes of other classes read of a class at every point (probes.parquet), as `shapes` has it."""
    found = []
    rows = table[(table["trained_on"] == UNSEEN) & ~table["tested_on"].isin(POOLED)]
    for (label, name), own in rows.groupby(["label", "tested_on"], sort=False):
        by_point = own.sort_values("point", kind="stable")
        said, title = PROBES[str(label)]
        columns = {"value": "value", "null_low": "null_median", "null_high": "null_high", "p": "p_holm"}
        found.append(
            {
                "class": name,
                "at": MEMBER,
                "shape": f"probe:{label}".replace(" ", "-"),
                "words": f"probe of the {said}",
                "title": f"Probe: {title}",
                "about": PROBES_ABOUT,
                "points": [int(point) for point in by_point["point"]],
                **{key: numbers(by_point[column]) for key, column in columns.items()},
            }
        )
    return found
