"""Hypothesis tests on planted circuits, whose outcome is known, and how often they reject what is true."""

import numpy as np
import pandas as pd
import pytest

from atlas.circuit import doubts
from atlas.core.components import Component
from atlas.core.multiple import ALPHA
from atlas.core.statistics import Bootstrap
from atlas.proof import certify, exact
from atlas.proof.fixtures import circuit

BOOTSTRAP = Bootstrap(200)


def planted(name, folder, family="llama"):
    fixture = getattr(exact, name)(family)
    return certify.make_ablators(fixture.build(folder), fixture.prompts())["mean"]


def found(ablator, names):
    rows = doubts.rows_of(ablator, {"c": circuit(names)}, 199, 0, BOOTSTRAP)
    table = doubts.decided(pd.DataFrame(rows, columns=list(doubts.TEST_COLUMNS)))
    return table.set_index("test")


# ---- planted circuits ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_true_circuit_is_equivalent_and_one_without_a_member_is_not(family, tmp_path):
    """`leak`: without 1.3 an eighth of the answer is missing on each of 16 prompts, so that all signs are alike."""
    ablator = planted("leak", tmp_path, family)
    true, missing = found(ablator, "0.1 1.3 2.2"), found(ablator, "0.1 2.2")
    row = true.loc["equivalence"]
    assert (row["state"], row["p"], row["ties"]) == ("not rejected", 1, 16), "rounding would have a sign"
    row = missing.loc["equivalence"]
    assert row["state"] == "rejected" and row["p"] == 2**-15 and row["value"] == 0 == row["ties"]
    for part in ("1.3 2.2", "0.1 1.3"):
        assert found(ablator, part).loc["equivalence", "state"] == "rejected"


def test_a_circuit_that_is_better_is_not_equivalent_either(tmp_path):
    """`inhibitory`: without 2.0 the circuit answers twice as surely as the model."""
    row = found(planted("inhibitory", tmp_path), "0.1 2.3").loc["equivalence"]
    assert row["state"] == "rejected" and row["value"] == 1


def test_the_complement_of_the_true_circuit_is_independent_and_another_way_around_is_not(tmp_path):
    """`cancelling`: 1.2 and 2.3 both write the whole answer, and 2.0 takes back what 1.2 wrote. Without 0.1 nothing
    finds the member. Of a circuit of 1.2 and 2.0 alone, 0.1 and 2.3 outside write the answer."""
    ablator = planted("cancelling", tmp_path)
    row = found(ablator, "0.1 1.2 2.0 2.3").loc["independence"]
    assert (row["state"], row["value"], row["p"]) == ("not rejected", 0, 1)
    row = found(ablator, "1.2 2.0").loc["independence"]
    assert row["state"] == "rejected" and row["p"] == 1 / 200 and row["value"] > 0.9
    assert found(ablator, "0.1").loc["independence", "state"] == "not rejected", "nothing gets through a cut chain"


def test_independence_of_the_leak_needs_both_heads_that_answer(tmp_path):
    """`leak`: 1.3 writes an eighth of the answer beside 2.2; outside with 0.1 it says what the model answers."""
    ablator = planted("leak", tmp_path)
    assert found(ablator, "1.3 2.2").loc["independence", "state"] == "not rejected"
    assert found(ablator, "2.2").loc["independence", "state"] == "rejected"


@pytest.mark.parametrize(
    ("name", "true"), [("two_heads", "0.1 2.2"), ("leak", "0.1 1.3 2.2"), ("head_and_mlp", "1.2 m1")]
)
def test_an_added_component_is_not_needed_and_the_planted_ones_are(name, true, tmp_path):
    ablator = planted(name, tmp_path)
    useless = [Component(2, 1), Component(0, 3)]
    rows = doubts.member_rows(ablator, circuit(true) | set(useless), "c", BOOTSTRAP)
    states = {row["component"]: row["state"] for row in rows}
    assert states == dict.fromkeys(true.split(), "needed") | {str(c): "like random" for c in useless}
    for row in rows:
        assert row["outside"] == 15 - len(states) and row["tests"] == len(states)
        assert row["bar"] == pytest.approx(0, abs=1e-3) and row["value"] == pytest.approx(row["loss"], abs=1e-3)


def test_rows_equal_scores_taken_one_by_one(tmp_path):
    """Loss, bar and place of a circuit in which others help: `cancelling` with 0.1 and 2.3, to which 2.0 or 1.2 alone
    bring something."""
    ablator = planted("cancelling", tmp_path)
    own = circuit("0.1 1.2")
    rows = doubts.member_rows(ablator, own, "c", BOOTSTRAP)
    percent, outside = ablator.percent_of_full, ablator.everything - own
    gains = sorted(percent(own | {c}) - percent(own) for c in outside)
    for row in rows:
        loss = percent(own) - percent(own - {Component.parse(row["component"])})
        assert row["loss"] == pytest.approx(loss, abs=1e-6) and row["bar"] == pytest.approx(gains[-1], abs=1e-6)
        assert row["place"] == np.mean([gain < loss for gain in gains])


def test_without_anything_outside_nothing_is_tested(tmp_path):
    ablator = planted("two_heads", tmp_path)
    rows = doubts.member_rows(ablator, ablator.everything, "full", BOOTSTRAP)
    assert {row["state"] for row in rows} == {"untestable"} and all(row["p"] != row["p"] for row in rows)
    assert doubts.member_rows(ablator, frozenset(), "empty", BOOTSTRAP) == []
    row = found(ablator, "0.1 2.2").loc["equivalence"]
    assert row["p_least"] == 2**-15


# ---- what is true is seldom rejected ---------------------------------------------------------------------------
@pytest.mark.parametrize("outside", [12, 39])
def test_a_member_like_the_others_is_seldom_needed(outside):
    """Effects of all components from one distribution, seen through noise: the bar holds its chance, 1 / 13 of 12
    others and 5 % of 39, within three standard deviations of 400 draws."""
    rng, draws, full = np.random.default_rng(0), 400, np.full(30, 10.0)
    hits = 0
    for _ in range(draws):
        values = rng.exponential(size=outside + 1)[:, None] + 0.1 * rng.normal(size=(outside + 1, 30))
        row = doubts.beyond(values[0], list(values[1:]), full, Bootstrap(100))
        hits += row["value"] > 0 and row["p"] < ALPHA
    chance = max(0.05, 1 / (1 + outside))
    assert hits / draws <= chance + 3 * np.sqrt(chance / draws)


def test_few_prompts_cannot_reject():
    tests = pd.DataFrame({"test": "equivalence", "circuit": "reported", "p": [0.0625, 1.0, 0.5], "p_least": 2**-4})
    assert set(doubts.decided(tests)["state"]) == {"untestable"}
    assert set(doubts.decided(tests.assign(p_least=2**-9))["state"]) == {"not rejected"}
