"""Sentences about the tests of circuits follow the tables, and the shared sub-circuit has one."""

import pandas as pd
import pytest

from atlas.report import summary
from atlas.report.atlas import trust as on_page
from atlas.report.atlas.packing import Numbering
from atlas.report.sections import trust
from figure_tables import GROUPED, LARGE, SMALL, study_of
from summaries import summary_of


@pytest.fixture(scope="module")
def study():
    return summary_of(study_of(LARGE))


def changed(study, **tables):
    return dict(study.tables) | tables


def test_one_sentence_says_what_the_shared_circuit_survives(study):
    said = trust.survival(study.tables, study.main)
    assert said.endswith(".") and ". " not in said
    assert said.startswith("What the cores of all tasks share (") and " survives other searches (" in said
    assert "the same on new sequences in new wordings (all tasks)" in said
    assert "unrelated tasks (unrelated tasks keep 80.0 points more than its own without it)" in said
    assert said.index("survives") < said.index("does not survive") if "does not survive" in said else True


def test_a_test_that_fails_stands_on_the_other_side(study):
    specific = study.tables["specificity"].assign(state="like random")
    said = trust.survival(changed(study, specificity=specific), study.main)
    assert said.index("it does not survive") < said.index("unrelated tasks (")
    none = study.tables["specificity"].head(0)
    said = trust.survival(changed(study, specificity=none), study.main)
    assert said.index("it cannot be tested for") < said.index("unrelated tasks, of which none is named")
    new = study.tables["unseen"].copy()
    shared = (new["circuit"] == "shared") & (new["state"] != "")
    new.loc[shared, "state"] = "beyond random"
    new.loc[shared & (new["task"] == study.main[0]), "state"] = "like random"
    said = trust.survival(changed(study, unseen=new), study.main)
    before, after = said.split("does not survive")
    same = "the same on new sequences in new wordings ("
    assert same in before and f"{same}{study.main[0].replace('_', ' ')})" in after


def test_a_member_that_is_like_others_is_named(study):
    said = trust.minimal(study.tables["member_tests"])
    assert len(said) == 1 and said[0].startswith("Minimality: ")
    for task, rows in study.tables["member_tests"].groupby("task"):
        like = rows[rows["state"] != "needed"]
        assert f"{len(rows) - len(like)} of {len(rows)} member" in said[0]
        assert task.replace("_", " ") in said[0] and all(name in said[0] for name in like["component"])


def test_rejected_and_not_rejected_are_told_apart(study):
    said = trust.whole(study.tables["hypotheses"])
    assert said[0].startswith(
        "Equivalence: the reported circuit is not the full model's equal on numerals (better on 10.0 %"
    )
    held = [s for s in said if s.startswith("Independence: without the reported circuit nothing")]
    assert len(held) == 1 and "HSIC 0.020, p = 0.3; 0.9 corrected for 3 tests" in held[0]
    assert any(s.startswith("Independence: without the core alone the model's answers still depend") for s in said)
    few = study.tables["hypotheses"].assign(state="untestable")
    assert all("cannot be tested on" in s for s in trust.whole(few))


def test_every_test_has_a_row_with_null_statistic_and_p(study):
    made = trust.table(study.tables)
    tables = study.tables
    tests = tables["specificity"]["p"].notna().sum() + (tables["unseen"]["state"] != "").sum()
    assert len(made["rows"]) == len(tables["hypotheses"]) + len(tables["member_tests"]) + tests
    assert {len(row) for row in made["rows"]} == {len(made["header"])} and made["header"][3] == "null"
    assert all(isinstance(cell, str) and cell for row in made["rows"] for cell in row)
    short = on_page.doubts(study.tables, study.main)
    assert len(short["rows"]) == len(made["rows"]) - len(tables["member_tests"])
    assert short["sentence"] == trust.survival(study.tables, study.main)


@pytest.mark.parametrize("name", [LARGE, SMALL, GROUPED])
def test_the_section_is_in_the_summary(name):
    study = summary_of(study_of(name))
    section = trust.section(study)
    assert section.shown and section.first and section.anchor == "trust"
    assert "Doubts: tests of the circuits" in summary.page(study)


def test_what_a_component_costs_is_on_the_page_by_its_number(study):
    task = study.main[0]
    rows = study.tables["member_tests"]
    rows = rows[rows["task"] == task]
    numbering = Numbering(study.all_mlps, study.all_heads // study.all_mlps)
    found = on_page.needed(rows, numbering)
    assert [str(numbering.components[row[0]]) for row in found] == rows["component"].to_list()
    assert [row[4] for row in found] == rows["state"].to_list()


def test_without_other_wordings_it_is_said():
    rows = pd.DataFrame({"state": [""], "task": ["a"]})
    (said,) = trust.unseen(rows)
    assert "stability.templates" in said
