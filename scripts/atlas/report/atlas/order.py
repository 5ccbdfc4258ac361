"""How a model represents order, for the atlas page: scores of heads, where members lie, what each analysis found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from atlas.core.multiple import ALPHA
from atlas.report import pages
from atlas.report.atlas import layouts, steered
from atlas.report.atlas.packing import Number, Numbering, rounded
from atlas.report.sections import directions, features, neurons, probes, shapes, steering, tuned_lens
from atlas.report.sections import successors as successor_heads
from atlas.report.sections.study import Study
from atlas.report.shown import GEOMETRY
from atlas.report.wording import words

ROWS = 40  # of a table, at most
NO_HEAD = -1  # in place of layer and head: no head stands between

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


@dataclass(frozen=True)
class Part:
    """What an analysis found, as its section of the summary says it. ``best``: title and maker of a table that is seen
    at once; the section's own folds out, and so do ``tables``, others of the analysis that the page shows whole."""

    section: Callable[[Study], pages.Section]
    tables: Sequence[str] = ()
    best: tuple[str, Callable[[Study], dict[str, Any] | None]] | None = None


def best_cells(study: Study) -> dict[str, Any] | None:
    """The best cell of every pair that was steered between."""
    return steered.cells(study.tables["steering"])


# Analysis -> its part, in the order of the page
PARTS: dict[str, Part] = {
    "successors": Part(successor_heads.section),
    "shapes": Part(shapes.section),
    "probes": Part(probes.section),
    "tuned_lens": Part(tuned_lens.section),
    "directions": Part(directions.section),
    "neurons": Part(neurons.section),
    "features": Part(features.section),
    "steering": Part(steering.section, best=("Best cells", best_cells)),
}
ALSO = ("membership", "cross")  # tables that sections read beside those of their analysis


def order(study: Study, numbering: Numbering) -> dict[str, Any] | None:
    """ORDER of the page, from the tables of `shown.GEOMETRY` that a study makes; None where they tell nothing."""
    tables = study.tables
    scores = successors(tables["successors"], numbering) if "successors" in tables else []
    lie = layouts.layouts(tables["pca"], tables["shapes"]) if {"pca", "shapes"} <= set(tables) else []
    curves = layouts.shapes(tables["shapes"]) if "shapes" in tables else []
    curves += layouts.probes(tables["probes"]) if "probes" in tables else []
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
