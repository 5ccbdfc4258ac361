"""What tests against random sets can decide, and what they say together (methods: tests).

A test is *untestable* where its controls could not show anything: none exist; so few that no p could count, by itself
or beside the other tests of its family; ablating random sets takes the score away as well; or random sets hold nearly
all of the circuit's heads themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from atlas.circuit.controls import KEYS
from atlas.core.multiple import ALPHA, TOGETHER, corrected, holm

BEYOND, LIKE, UNTESTABLE = "beyond random", "like random", "untestable"
COLUMNS = (*TOGETHER, "p_smallest", "state", "reason")
NO_ROOM = 10  # percent of full; where 97.5 % of the controls leave less, the circuit cannot leave less than they do
TAKEN = f"ablating random sets of this shape leaves less than {NO_ROOM} % of full as well"
SAME = 0.9  # share of the circuit's heads in the mean control, from which on controls are the circuit nearly


def verdicts(tests: pd.DataFrame, claim: pd.Series | str, useless: pd.Series, key: str) -> pd.DataFrame:
    """The table with `COLUMNS`; a row is a test with ``p``, ``controls`` (their number) and ``note`` (why so few).

    claim: of each test; those of one are a family. useless: why a test's controls could show nothing, or empty. key: of
    the configuration, that sets the number of controls. Tests that can never count by themselves are no members of
    their family: that is known before anything is scored, and spares the others a correction for them. ``p_smallest``:
    `p_holm` if all tests of the family had the smallest p that their controls can give. ``state``: BEYOND (p_holm below
    ALPHA), LIKE or UNTESTABLE, with its ``reason``, which is empty for the others.
    """
    floor = (1 / (1 + tests["controls"])).where(tests["controls"] > 0)
    member = (floor < ALPHA) & (useless == "")
    found = corrected(tests.assign(member_p=tests["p"].where(member)), claim, p="member_p").drop(columns="member_p")
    found["p_smallest"] = floor.where(member).groupby(found["claim"]).transform(holm)
    rows = zip(found.to_dict("records"), useless, strict=True)
    found["reason"] = [_reason(row, why, key) for row, why in rows]
    found["state"] = np.where(found["reason"] != "", UNTESTABLE, np.where(found["p_holm"] < ALPHA, BEYOND, LIKE))
    return found


def _reason(row: dict[str, Any], useless: str, key: str) -> str:
    n, tests, listed = int(row["controls"]), int(row["tests"]), str(row["note"]).startswith("all ")
    if not n:
        return str(row["note"] or "no controls").removeprefix("no control: ")
    if useless:
        return useless
    said = f"only {n} such sets exist" if listed else f"{n} random sets"
    if 1 / (1 + n) >= ALPHA:
        return f"{said}, so that p cannot fall below {1 / (1 + n):.2g}"
    if row["p_smallest"] >= ALPHA:
        remedy = "" if listed else f"; set {key} to {round(tests / ALPHA)}"
        return f"{said}, too few to decide {tests} tests together{remedy}"
    return ""


def of_controls(summary: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """`verdicts` on rows of `controls_summary` (with their ``note``), and ``alike``: the share of the circuit's heads
    that a control holds too, in the mean; ``controls``: the table of that name.

    Families are claims: the circuits suffice on their own tasks; they are necessary there; what they share is necessary
    on these tasks, and on tasks that no circuit was searched on.
    """
    found = summary.assign(alike=[_alike(controls, row) for row in summary.to_dict("records")])
    own = found["circuit"] == found["task"]
    others = np.where(found["task"].isin(set(found["task"][own])), "the shared heads", "the shared heads elsewhere")
    claim = found["question"] + " of " + pd.Series(np.where(own, "the circuits", others), found.index, dtype=object)
    useless = pd.Series("", found.index, dtype=object)
    useless[_taken(found)] = TAKEN
    useless[found["alike"] >= SAME] = f"random sets hold {100 * SAME:.0f} % of its heads or more themselves"
    return verdicts(found, claim, useless, "comparison.controls")


def of_parts(tests: pd.DataFrame, main_tasks: Sequence[str]) -> pd.DataFrame:
    """`verdicts` on rows of `consensus_tests` of all tasks: each part of the circuits, and what all cores share.

    A part on the main tasks is a family; what is shared, on tasks that nothing was searched on, is another one.
    """
    elsewhere = np.where(tests["task"].isin(list(main_tasks)), "", " elsewhere")
    useless = pd.Series("", tests.index, dtype=object)
    useless[_taken(tests)] = TAKEN
    return verdicts(tests, tests["question"] + " of " + tests["circuit"] + elsewhere, useless, "comparison.controls")


def _taken(tests: pd.DataFrame) -> pd.Series:
    return (tests["question"] == "necessity") & (tests["control_high"] < NO_ROOM)


def _alike(controls: pd.DataFrame, row: dict[str, Any]) -> float:
    rows = controls[(controls[list(KEYS)] == [row[key] for key in KEYS]).all(axis=1)]
    sets = [set(str(names).split()) for names in rows["components"]]
    circuits = [held for held, kind in zip(sets, rows["set"], strict=True) if kind == "circuit"]
    drawn = [held for held, kind in zip(sets, rows["set"], strict=True) if kind == "control"]
    if not drawn:
        return float("nan")
    return float(np.mean([len(held & circuits[0]) / len(circuits[0]) for held in drawn]))
