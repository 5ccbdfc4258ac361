"""How a model represents order, for the atlas page: scores of heads, where members lie, what each analysis found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from atlas.core.multiple import ALPHA
from atlas.report import pages
from atlas.report.atlas.packing import Number, Numbering, numbers, rounded
from atlas.report.sections.study import Study
from atlas.report.shown import GEOMETRY
from atlas.report.wording import words

POINTS = 9  # at most, of which the page has a layout of a class
DIGITS = 3  # significant ones of coordinates
ROWS = 40  # of a table, at most
NO_HEAD = -1  # in place of layer and head: no head stands between
MEMBER = "member"  # members are read at themselves; else at the answers of a task

INPUTS = {"mlp0": "after MLP 0", "without_mlp0": "without MLP 0"}
TARGETS = {"next": "next member", "previous": "previous member", "next_next": "two members on"}
GREATER = "greater"
TARGETS |= {GREATER: "later members above earlier ones"}
ABOUT = (
    "Share of members for which a head, reading nothing but the member, gives its target the largest logit of the "
    "class; from weights alone. Heads of layer 0 come before MLP 0."
)
ABOUT_GREATER = (
    "Share of members for which a head, reading nothing but the member, gives members two or more places after it a "
    "larger mean logit than those before it, each member's logit less its mean over all members read; 0.5 by chance. "
    "From weights alone. Heads of layer 0 come before MLP 0."
)
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


@dataclass(frozen=True)
class Part:
    """What an analysis found, as its section of the summary says it. ``best``: title and maker of a table that is seen
    at once; the section's own folds out, and so do ``tables``, others of the analysis that the page shows whole."""

    section: Callable[[Study], pages.Section]
    tables: Sequence[str] = ()
    best: tuple[str, Callable[[Study], dict[str, Any] | None]] | None = None


# Analysis -> its part, in the order of the page
PARTS: dict[str, Part] = {}
ALSO = ("membership",)  # tables that sections read beside those of their analysis


def order(study: Study, numbering: Numbering) -> dict[str, Any] | None:
    """ORDER of the page, from the tables of `shown.GEOMETRY` that a study makes; None where they tell nothing."""
    tables = study.tables
    scores = successors(tables["successors"], numbering) if "successors" in tables else []
    lie = layouts(tables["pca"], tables["shapes"]) if {"pca", "shapes"} <= set(tables) else []
    curves = shapes(tables["shapes"]) if "shapes" in tables else []
    found = {
        "classes": [
            {"name": name, "words": words(name)}
            for name in dict.fromkeys(row["class"] for rows in (scores, lie, curves) for row in rows)
        ],
        "successors": {"rows": scores} if scores else None,
        "layouts": lie,
        "shapes": curves,
        "parts": parts(study),
    }
    return found if any(found.values()) else None


# ---- successor heads -----------------------------------------------------------------------------------------
def successors(table: pd.DataFrame, numbering: Numbering) -> list[dict[str, Any]]:
    """The scores of all heads for each class, target and input of successors.parquet, beside random heads and none.

    ``target`` is unique within a class: without MLP 0 it ends so.
    """
    found = []
    for name in INPUTS:
        for _, rows in table[table["input"] == name].groupby(["class", "target"], sort=False):
            heads, alone = rows[rows["head"] != NO_HEAD], rows[rows["head"] == NO_HEAD]
            if len(heads):
                found.append(_scores(heads, numbering) | {"alone": _alone(alone)})
    return found


def _scores(heads: pd.DataFrame, numbering: Numbering) -> dict[str, Any]:
    first, sure = heads.iloc[0], heads[heads["p_holm"] < ALPHA]
    end = "" if first["input"] == next(iter(INPUTS)) else f"-{first['input'].replace('_', '-')}"
    return {
        "class": first["class"],
        "target": f"{first['target']}{end}",
        "words": TARGETS.get(first["target"], words(first["target"])),
        "group": INPUTS[first["input"]],
        "centre": 0.5 if first["target"] == GREATER else 0,
        "about": ABOUT_GREATER if first["target"] == GREATER else ABOUT,
        "members": int(first["members"]),
        "value": numbering.spread(heads, "value"),
        "p": numbering.spread(heads, "p_holm"),
        "sure": sorted(numbering.place[int(row.layer), int(row.head)] for row in sure.itertuples()),
        "random": {"median": rounded(first["random_median"]), "high": rounded(first["random_hi"])},
    }


def _alone(rows: pd.DataFrame) -> dict[str, Number] | None:
    """The score where no head stands between."""
    return None if rows.empty else {"value": rounded(rows["value"].iloc[0]), "p": rounded(rows["p"].iloc[0])}


# ---- where members lie ---------------------------------------------------------------------------------------
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


# ---- what each analysis found --------------------------------------------------------------------------------
def parts(study: Study) -> list[dict[str, Any]]:
    """Sentences and small tables of each analysis whose tables are there."""
    made = []
    for name, part in PARTS.items():
        own = [study.tables[each] for each in GEOMETRY[name] if each in study.tables]
        if all(table.empty for table in own):
            continue
        section, listed = part.section(study), []
        best = None if part.best is None else part.best[1](study)
        if part.best is not None and best is not None:
            listed.append(_listed(part.best[0], best, unfolded=True))
        if section.table:
            listed.append(_listed(section.title, section.table))
        listed += [_listed(words(each), *whole(study.tables[each])) for each in part.tables if len(study.tables[each])]
        made.append(
            {
                "name": name,
                "title": section.title,
                "sentences": [text for text in (section.first, *section.sentences) if text],
                "tables": listed,
                "note": section.note,
            }
        )
    return made


def whole(table: pd.DataFrame) -> tuple[dict[str, Any], str]:
    """A table as it is, and what all of its rows have in common; of a long one the first rows."""
    short_of, same = pages.varying(table)
    said = [f"In every row: {', '.join(f'{key} {value}' for key, value in same.items())}."] if same else []
    if len(table) > ROWS:
        said.append(f"The first {ROWS} of {len(table)} rows.")
    return pages.frame_table(short_of.head(ROWS)), " ".join(said)


def _listed(title: str, table: dict[str, Any], note: str = "", unfolded: bool = False) -> dict[str, Any]:
    rows = [[str(cell) for cell in row] for row in table["rows"]]
    return {"title": title, "header": list(map(str, table["header"])), "rows": rows, "note": note, "open": unfolded}
