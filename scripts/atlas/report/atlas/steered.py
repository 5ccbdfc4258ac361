"""The best cell of every pair of sequences that a model was steered between, beside random directions."""

from __future__ import annotations

from typing import Any

import pandas as pd

from atlas.report.wording import number, p_value, percent, words

METHOD, SPLIT = "difference of means", "held_out"
METRICS = {"top1": "target's next member on top", "class_top1": "any of its members on top"}


def cells(table: pd.DataFrame) -> dict[str, Any] | None:
    """``header`` and ``rows`` of words, from steering.parquet: the layer and coefficient chosen on prompts searched on,
    and on held-out ones the share whose first choice is the target's next member, or any member of the target; the
    same of random directions, mean and largest. None where nothing was steered.

    A dash where there are no rows of a metric: source and target may have the same members.
    """
    best = table[(table["method"] == METHOD) & table["chosen"].astype(bool) & (table["split"] == SPLIT)]
    if best.empty:
        return None
    header = ["from", "to", "after block", "times"]
    for said in METRICS.values():
        header += [said, "random directions", "p, corrected"]
    rows = []
    for (source, target), own in best.groupby(["source", "target"], sort=False):
        first = own.iloc[0]
        row = [words(source), words(target), str(int(first["layer"])), f"{first['coefficient']:g}"]
        for metric in METRICS:
            found = own[own["metric"] == metric]
            row += _beside(found.iloc[0].to_dict()) if len(found) else ["\u2013"] * 3
        rows.append(row)
    return {"header": header, "rows": rows}


def _beside(row: dict[str, Any]) -> list[str]:
    random = f"{number(100 * row['random_mean'], 1)} %, at most {number(100 * row['random_hi'], 1)} %"
    return [percent(row, 100), random if row["draws"] else "\u2013", p_value(row["p_holm"], "")]
