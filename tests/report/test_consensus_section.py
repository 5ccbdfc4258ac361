"""Sentences about what searches agree on follow the numbers: heads and MLPs apart, each beside its chance."""

import pandas as pd

from atlas.circuit.verdicts import of_parts
from atlas.compare.consensus import agreement, member_rows, shared_rows
from atlas.proof.fixtures import circuit
from atlas.report.sections import consensus
from edge_tables import interval
from figure_tables import LARGE, study_of

EVERY = "m0 m1 m2"
LOW, HIGH = (
    {"control_median": middle, "control_low": middle - 5, "control_high": middle + 5} for middle in (20.0, 80.0)
)
SEARCHES = [("orders", "layers"), ("orders", "random_0"), ("seeds", "seed 1")]


def tables(**own):
    """The five tables of tasks whose searches end in these circuits (lists of names, one a search)."""
    searches = {t: dict(zip(SEARCHES, map(circuit, names), strict=True)) for t, names in own.items()}
    agreed = pd.DataFrame([{"task": t} | row for t, found in searches.items() for row in agreement(found)])
    shared, members = pd.DataFrame(shared_rows(searches, 3, 4)), pd.DataFrame(member_rows(searches))
    scores, tests = [], []
    for task in own:
        for name, value in (("core", 70), ("core and contingent", 90)):
            row = {"task": task, "circuit": name, "split": "held_out", **interval(value, 2)}
            scores.append(row | {"metric": "percent_of_full"})
            tests.append(row | {"question": "sufficiency", "controls": 99, "p": 0.01, "note": "", **LOW})
        shared_set = {"task": task, "circuit": "shared", **interval(15, 2)}
        tests.append(shared_set | {"question": "necessity", "controls": 99, "p": 0.02, "note": "", **HIGH})
    return agreed, shared, members, pd.DataFrame(scores), of_parts(pd.DataFrame(tests), list(own))


def test_the_headline_counts_heads_and_mlps_apart_and_says_what_it_rests_on():
    names = [f"0.1 1.1 2.1 {EVERY}", f"0.1 1.1 2.1 {EVERY}", f"0.1 1.1 2.1 2.2 {EVERY}"]
    made = tables(a=names, b=names)
    said = consensus.findings(*made, ["a", "b"], "T = 20 %, 3 searches of each task", 3)
    assert said[0] == (
        "In at least 90 % of the searches (T = 20 %, 3 searches of each task) the circuits of both main tasks keep 3 "
        "shared heads (0.1, 1.1 and 2.1) and 3 of 3 MLPs; as many random heads in the same layers (3 and 3) would "
        "share 0.8, p = 0.016; as many random MLPs (3 and 3) would share 3.0, and no overlap of these sizes could have "
        "p below 1, so it says nothing."
    )
    least = "p = 0.01, the smallest that 99 random sets can give; 0.02 corrected for 2 tests"
    assert said[1] == (
        "A: 3 heads and 3 of 3 MLPs are core and keep 70.0 % [68.0, 71.6] of the full model alone on prompts held out "
        f"(random heads 20.0 %, {least}); with the contingent ones, 1 head and 0 MLPs, 90.0 % [88.0, 91.6] (random "
        f"heads 20.0 %, {least})."
    )
    beyond = "more than chance (p < 0.05, corrected for all of these) in 3 of 3"
    assert any("share 3 to 4 heads" in s and beyond in s for s in said)
    assert any(s.startswith("Shared by both tasks in at least half of the searches: 0.1 (100 %)") for s in said)
    assert said[-1].startswith("Without the heads that all cores share the model keeps 15.0 %")


def test_pairs_of_three_tasks_have_a_sentence_each():
    names = [f"0.1 1.1 2.1 {EVERY}"] * 3
    made = tables(a=names, b=names, c=[f"0.1 1.2 {EVERY}"] * 3)
    said = consensus.findings(*made, ["a", "b", "c"], "", 3)
    assert "keep 1 shared head (0.1) and 3 of 3 MLPs" in said[0]
    assert said[1] == (
        "The cores of a and b share 3 heads; as many random heads in the same layers (3 and 3) would share 0.8, "
        "p = 0.016; 0.062 corrected for 4 tests."
    )
    assert said[2] == (
        "The cores of a and c share 1 head; as many random heads in the same layers (3 and 2) would share 0.5, and no "
        "overlap of these sizes could have p below 0.062, so it says nothing."
    )


def test_one_task_shares_nothing_and_without_contingent_members_it_is_said():
    made = tables(a=[f"0.1 {EVERY}"] * 3)
    (said,) = consensus.findings(*made, ["a"], "", 3)
    assert said.startswith("A: 1 head and 3 of 3 MLPs are core") and said.endswith("; nothing is contingent.")


def test_the_basis_counts_searches_and_families():
    agreed = pd.DataFrame({"task": ["a"], "runs": [4]})
    rows = [("component", "orders", 2), ("component", "seeds", 3), ("edge", "seeds", 3)]
    summary = pd.DataFrame(rows, columns=["level", "family", "runs"])
    assert consensus.basis_of(agreed, summary, 20) == (
        "T = 20 %, 4 searches of each task: 2 search orders and 2 other seeds"
    )
    assert consensus.basis_of(agreed.assign(runs=1), summary.head(0), 20) == "T = 20 %, 1 search of each task"


def test_every_task_has_a_row_for_each_part():
    study = study_of(LARGE)
    tests = of_parts(study.consensus_tests, study.main)
    made = consensus.table(study.consensus, study.consensus_scores, tests, study.main)
    assert len(made["rows"]) == 2 * len(study.main)
    assert {len(row) for row in made["rows"]} == {len(made["header"])}
    core, both = made["rows"][:2]
    assert set(core[3].split()) <= set(both[3].split())
