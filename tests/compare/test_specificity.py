"""Specificity by hand, and how often random circuits are called specific."""

import numpy as np
import pandas as pd
import pytest

from atlas.circuit.verdicts import BEYOND
from atlas.compare import specificity
from trust_tables import specificity_rows


def made(own, elsewhere, unrelated):
    return pd.DataFrame(specificity.rows_of(own, elsewhere, unrelated), columns=list(specificity.COLUMNS))


def test_differences_and_p_by_hand():
    """Ablated, 10 % of its own is left and 90 % of the unrelated task; kept, 80 and 5; random sets leave as much of
    both, so that none is as specific and p is the smallest that 60 can give."""
    table = made(*specificity_rows(["a", "b"], ["u"], 60), ["u"])
    rows = table.set_index(["question", "circuit", "task"])
    row = rows.loc["necessity", "a", "u"]
    assert (row["kind"], row["value"], row["difference"]) == ("unrelated", 90, 80)
    assert rows.loc["necessity", "a", "b"][["kind", "difference"]].tolist() == ["searched", 20]
    assert rows.loc["sufficiency", "a", "b"]["difference"] == 30
    own = rows.loc["necessity", "a", "a"]
    assert own["kind"] == "own" and np.isnan(own["difference"])
    row = rows.loc["sufficiency", "a", specificity.ALL_UNRELATED]
    assert row["difference"] == 75 and row["controls"] == 60 and row["p"] == 1 / 61
    assert row["control_median"] == row["control_low"] == row["control_high"] == 0
    narrow, wide = rows.loc["sufficiency", "a", "a"], row
    margin = np.hypot(narrow["value"] - narrow["ci_low"], wide["ci_high"] - wide["value"])
    assert wide["low"] == pytest.approx(75 - margin)


def test_what_all_share_counts_by_the_mean_of_its_tasks():
    own, elsewhere = specificity_rows(["a", "b"], ["u", "v"], 60)
    is_b = (own["circuit"] == "shared") & (own["task"] == "b") & (own["set"] == "circuit")
    own.loc[is_b, "value"] += 30
    elsewhere.loc[(elsewhere["task"] == "v") & (elsewhere["set"] == "circuit"), "value"] -= 40
    rows = made(own, elsewhere, ["u", "v"]).set_index(["question", "circuit", "task"])
    assert rows.loc["necessity", "shared", specificity.ALL_UNRELATED]["difference"] == (90 + 50) / 2 - (10 + 40) / 2
    assert rows.loc["necessity", "shared", "v"]["difference"] == 50 - 25


def test_random_sets_are_matched_by_their_members():
    """A set that was not scored on every task is no control."""
    own, elsewhere = specificity_rows(["a"], ["u"], 30)
    own = own[own["draw"] != 3]
    rows = made(own, elsewhere[elsewhere["draw"] != 4], ["u"]).set_index("task")
    assert set(rows.loc[[specificity.ALL_UNRELATED], "controls"]) == {28}
    none = made(own[own["draw"] < 0], elsewhere, ["u"]).set_index("task").loc[[specificity.ALL_UNRELATED]]
    assert set(none["controls"]) == {0} and none["p"].isna().all() and set(none["note"]) != {""}
    assert set(specificity.decided(none.reset_index())["state"]) == {"untestable"}


def test_verdicts_are_corrected_over_circuits_and_without_unrelated_tasks_there_are_none():
    table = specificity.decided(made(*specificity_rows(["a", "b", "c"], ["u"], 60), ["u"]))
    tests = table[table["task"] == specificity.ALL_UNRELATED]
    assert set(tests["state"]) == {BEYOND} and set(tests.loc[tests["circuit"] != "shared", "tests"]) == {3}
    assert set(tests.loc[tests["circuit"] == "shared", "tests"]) == {1}
    assert set(table.loc[table["task"] != specificity.ALL_UNRELATED, "state"]) == {""}
    few = specificity.decided(made(*specificity_rows(["a", "b", "c"], ["u"], 30), ["u"]))
    reason = few[few["task"] == specificity.ALL_UNRELATED]["reason"].iloc[0]
    assert "too few to decide 3 tests together; set trust.controls to 60" in reason
    alone = specificity.decided(made(*specificity_rows(["a"], [], 0), []))
    assert set(alone["state"]) == {""} and alone["p"].isna().all()


@pytest.mark.slow
def test_a_circuit_like_the_random_ones_is_seldom_specific():
    """Own and random sets from one distribution, with tasks of their own level: p <= 0.05 in 5 % of 400 draws, within
    three standard deviations."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        values = rng.normal([[20], [70]], 5, (2, 20))
        frames = []
        for task, row in zip(("a", "u"), values, strict=True):
            sets = [{"set": "control" if i else "circuit", "components": str(i), "value": v} for i, v in enumerate(row)]
            frame = pd.DataFrame(sets).assign(question="necessity", circuit="a", task=task)
            frames.append(frame.assign(ci_low=frame["value"], ci_high=frame["value"]))
        found = made(*frames, ["u"])
        hits += found["p"].iloc[-1] <= 0.05
    assert abs(hits / 400 - 0.05) <= 3 * np.sqrt(0.05 * 0.95 / 400)
