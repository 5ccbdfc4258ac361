"""Which tests against random sets can decide anything, on tables written by hand."""

import math

import pandas as pd
import pytest

from atlas.circuit.controls import summarise
from atlas.circuit.verdicts import BEYOND, COLUMNS, LIKE, UNTESTABLE, of_controls, of_parts, verdicts


def rows_of(*tests, note=""):
    """Rows (p, controls)."""
    table = pd.DataFrame(tests, columns=["p", "controls"])
    return table.assign(note=note)


def judged(table, useless=""):
    return verdicts(table, "one", pd.Series(useless, table.index, dtype=object), "some.controls")


def test_a_test_counts_beside_the_others_of_its_family():
    found = judged(rows_of((1 / 101, 100), (0.03, 100), (0.5, 100)))
    assert found["p_holm"].tolist() == pytest.approx([3 / 101, 0.06, 0.5])
    assert found["state"].tolist() == [BEYOND, LIKE, LIKE] and set(found["reason"]) == {""}
    assert found["p_smallest"].tolist() == pytest.approx([3 / 101] * 3) and set(COLUMNS) <= set(found)


@pytest.mark.parametrize(
    ("tests", "note", "reason"),
    [
        ([(math.nan, 0)], "no control: layer 2 has too few other heads", "layer 2 has too few other heads"),
        ([(1 / 9, 8)], "all 8 possible sets", "only 8 such sets exist, so that p cannot fall below 0.11"),
        ([(1 / 20, 19)], "", "19 random sets, so that p cannot fall below 0.05"),
        ([(1 / 21, 20)] * 3, "", "20 random sets, too few to decide 3 tests together; set some.controls to 60"),
        ([(1 / 31, 30)] * 2, "all 30 possible sets", "only 30 such sets exist, too few to decide 2 tests together"),
    ],
)
def test_what_cannot_count_is_untestable_and_says_why(tests, note, reason):
    found = judged(rows_of(*tests, note=note))
    assert set(found["state"]) == {UNTESTABLE} and set(found["reason"]) == {reason}


def test_the_number_of_controls_that_is_named_would_do():
    """60 sets decide 3 tests, 58 do not: 3 / 59 is above 0.05."""
    assert set(judged(rows_of(*[(1 / 61, 60)] * 3))["state"]) == {BEYOND}
    assert set(judged(rows_of(*[(1 / 59, 58)] * 3))["state"]) == {UNTESTABLE}


def test_tests_that_could_never_count_cost_the_others_nothing():
    table = pd.concat(
        [rows_of((1 / 41, 40)), rows_of(*[(1 / 9, 8)] * 5, note="all 8 possible sets")], ignore_index=True
    )
    found = judged(table)
    assert found["state"].tolist() == [BEYOND] + [UNTESTABLE] * 5 and found["tests"].iloc[0] == 1
    assert found["p_holm"].isna().tolist() == [False] + [True] * 5


def controls_of(question, circuit, task, own, drawn, members="0.0 1.1", others="0.1 1.0"):
    key = {"model": "m", "question": question, "circuit": circuit, "task": task}
    rows = [key | {"set": "circuit", "draw": -1, "components": members, "value": own}]
    rows += [key | {"set": "control", "draw": d, "components": others, "value": value} for d, value in enumerate(drawn)]
    return pd.DataFrame(rows).assign(ci_low=own - 1, ci_high=own + 1)


def summary_of(*tables):
    controls = pd.concat(tables, ignore_index=True)
    return of_controls(pd.DataFrame(summarise(controls)).assign(note=""), controls)


HIGH = [70.0 + i / 10 for i in range(80)]


def test_each_claim_is_a_family():
    """Circuits on their own tasks; what they share there; the same on a task that nothing was searched on."""
    pairs = [("a", "a"), ("b", "b"), ("shared", "a"), ("shared", "b"), ("shared", "c")]
    tables = [controls_of("necessity", circuit, task, 5.0, HIGH) for circuit, task in pairs]
    tables += [controls_of("sufficiency", task, task, 90.0, HIGH) for task in "ab"]
    found = summary_of(*tables)
    assert found["tests"].tolist() == [2, 2, 2, 2, 1, 2, 2] and found["claim"].nunique() == 4
    assert set(found["state"]) == {BEYOND} and found["alike"].tolist() == [0] * 7


def test_each_part_of_a_consensus_is_a_family():
    row = {"controls": 80, "p": 1 / 81, "control_high": 77.0, "note": ""}
    tests = [("sufficiency", part, task) for part in ("core", "core and contingent") for task in "ab"]
    tests += [("necessity", "shared", task) for task in "abc"]
    table = pd.DataFrame([dict(zip(("question", "circuit", "task"), test, strict=True)) | row for test in tests])
    found = of_parts(table, ["a", "b"])
    assert found["tests"].tolist() == [2, 2, 2, 2, 2, 2, 1] and set(found["state"]) == {BEYOND}
    taken = of_parts(table.assign(control_high=5.0), ["a", "b"])
    assert taken["state"].tolist() == [BEYOND] * 4 + [UNTESTABLE] * 3


def test_necessity_is_untestable_where_random_sets_take_the_score_too():
    low = [3.0 + i / 20 for i in range(80)]
    found = summary_of(controls_of("necessity", "a", "a", -2.0, low))
    assert found["p"].iloc[0] == 1 / 81 and found["state"].tolist() == [UNTESTABLE]
    assert found["reason"].tolist() == ["ablating random sets of this shape leaves less than 10 % of full as well"]
    kept = summary_of(controls_of("sufficiency", "a", "a", 60.0, low))
    assert kept["state"].tolist() == [BEYOND], "keeping nothing is what random sets should do"


def test_sufficiency_is_untestable_where_random_sets_are_nearly_the_circuit():
    members = " ".join(f"0.{h}" for h in range(10))
    others = " ".join(f"0.{h}" for h in range(1, 11))
    found = summary_of(controls_of("sufficiency", "a", "a", 90.0, HIGH, members, others))
    assert found["alike"].tolist() == pytest.approx([0.9]) and found["state"].tolist() == [UNTESTABLE]
    assert found["reason"].tolist() == ["random sets hold 90 % of its heads or more themselves"]
