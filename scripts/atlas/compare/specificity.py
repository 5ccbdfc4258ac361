"""Does a circuit serve its own tasks more than unrelated ones? (methods: doubts; arXiv 2605.08348)

Ablated, it should hurt its own task more; kept alone, help it more. Both are differences of percents of full, and each
is held against random sets of heads with as many in every layer, the same sets on all tasks. Nothing here runs a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from atlas.circuit.controls import p_value
from atlas.circuit.verdicts import verdicts
from atlas.core.hypotheses import average, difference

OWN, MAIN, UNRELATED = "own", "searched", "unrelated"
ALL_UNRELATED = "unrelated tasks"  # in place of a task: their mean
COLUMNS: tuple[str, ...] = (
    "question",
    "circuit",
    "task",
    "kind",
    "value",
    "ci_low",
    "ci_high",
    "difference",
    "low",
    "high",
)
COLUMNS += ("controls", "control_median", "control_low", "control_high", "p", "note")

Estimate = tuple[float, float, float]


def rows_of(own: pd.DataFrame, elsewhere: pd.DataFrame, unrelated: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of `specificity` (COLUMNS): each circuit ablated (`necessity`) and kept (`sufficiency`) on every task.

    own, elsewhere: rows of `controls` on a circuit's own tasks and on others (percents of full of the circuit, draw -1,
    and of random sets). A circuit of several own tasks counts by their mean. ``difference``: how much less is left of
    its own than of the other task without it, or how much more it keeps; positive where it is specific, with margins of
    both in quadrature. On the row ALL_UNRELATED random sets have the same: p = (1 + r) / (1 + n), r of the n that were
    scored on all of these tasks at least as specific.
    """
    out = []
    for (question, circuit), mine in own.groupby(["question", "circuit"], sort=False):
        sign = -1 if question == "necessity" else 1
        here, theirs = (
            _estimates(mine),
            elsewhere[(elsewhere["question"] == question) & (elsewhere["circuit"] == circuit)],
        )
        others, base = _estimates(theirs), average(list(here.values()))
        for task, estimate in (here | others).items():
            kind = OWN if task in here else UNRELATED if task in unrelated else MAIN
            row = {"question": question, "circuit": circuit, "task": task, "kind": kind} | _columns(estimate)
            out.append(row | (_gap(base, estimate, sign) if task in others else {}))
        asked = [task for task in unrelated if task in others]
        if asked:
            mean = average([others[task] for task in asked])
            row = {"question": question, "circuit": circuit, "task": ALL_UNRELATED, "kind": UNRELATED}
            row |= _columns(mean) | _gap(base, mean, sign)
            out.append(row | _controls(mine, theirs[theirs["task"].isin(asked)], sign, row["difference"]))
    return out


def _estimates(rows: pd.DataFrame) -> dict[str, Estimate]:
    found = rows[rows["set"] == "circuit"]
    return {row["task"]: (row["value"], row["ci_low"], row["ci_high"]) for row in found.to_dict("records")}


def _columns(estimate: Estimate) -> dict[str, float]:
    return dict(zip(("value", "ci_low", "ci_high"), estimate, strict=True))


def _gap(own: Estimate, other: Estimate, sign: int) -> dict[str, float]:
    ends = difference(own, other) if sign > 0 else difference(other, own)
    return dict(zip(("difference", "low", "high"), ends, strict=True))


def _controls(own: pd.DataFrame, theirs: pd.DataFrame, sign: int, found: float) -> dict[str, Any]:
    """What random sets have, of those that were scored on every task of both sides."""
    sides = []
    for rows in (own, theirs):
        drawn = rows[rows["set"] == "control"]
        sides.append(drawn.pivot_table(index="components", columns="task", values="value").dropna().mean(axis=1))
    both = pd.concat(sides, axis=1, join="inner")
    gaps = (sign * (both.iloc[:, 0] - both.iloc[:, 1])).to_numpy()
    row: dict[str, Any] = {"controls": len(gaps), "note": "" if len(gaps) else "no random set was scored on all tasks"}
    if len(gaps):
        ends = zip(
            ("control_median", "control_low", "control_high"), np.quantile(gaps, [0.5, 0.025, 0.975]), strict=True
        )
        row |= dict(ends) | {"p": p_value(found, gaps, low_is_extreme=False)}
    return row


def decided(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `verdicts` on its tests: a family is one question, of all circuits of single tasks; that of what
    all share is one by itself. Rows without a test have no state."""
    tests = table[table["task"] == ALL_UNRELATED]
    if tests.empty:
        return table.assign(claim="", tests=0, p_holm=np.nan, p_smallest=np.nan, state="", reason="")
    claim = tests["question"] + " is specific" + np.where(tests["circuit"] == "shared", ", of what all share", "")
    found = verdicts(tests, claim, pd.Series("", tests.index, dtype=object), "trust.controls")
    return pd.concat([found, table.drop(index=tests.index).assign(state="", reason="")]).sort_index()
