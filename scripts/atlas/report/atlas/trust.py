"""What doubts the circuits: the tests of the summary, and what each member costs beside components added at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from atlas.report.atlas.packing import Numbering, rounded
from atlas.report.sections import trust

if TYPE_CHECKING:
    import pandas as pd


def doubts(tables: Mapping[str, pd.DataFrame], main: list[str]) -> dict[str, Any]:
    """The sentence on what all cores share, and every test but those of single members, in words."""
    sentence = trust.survival(tables, main) if len(main) > 1 else None
    return {"sentence": sentence} | trust.table(tables, members=False)


def needed(members: pd.DataFrame, numbering: Numbering) -> list[list[Any]]:
    """[number, points lost without it, the bar of those outside, corrected p, state] of each member of a task."""
    return [
        [numbering.of_name[row["component"]], *map(rounded, (row["loss"], row["bar"], row["p_holm"])), row["state"]]
        for row in members.to_dict("records")
    ]
