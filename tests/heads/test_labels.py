"""Labels: the planted heads get the labels that their construction means, by the default thresholds; and the rules."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from atlas.core.components import Component, heads
from atlas.core.statistics import Bootstrap
from atlas.heads import attention, detectors, labels, role_scores
from atlas.heads.explained import Explained
from atlas.model import models
from atlas.proof import exact, fixtures
from atlas.proof.planted import FILLERS, MEMBERS
from conftest import ROOT, crossed
from head_prompts import layout_of

# What each planted head does, by its construction (fixtures.py), in the words that there are.
#
# A `finder` attends to the last member because it is a member, and copies it to a place that the unembedding does not
# read: that it copies, and does not write the successor, is nowhere but in how the next head reads that place. So it is
# known by what it attends to: a same-type detector; likewise the head that finds the first member. 0.3 of `position`
# tells positions apart, for which there is no word; 1.1 and 1.2 of `interlock` look at their own place and mark it.
FINDS, NEXT, NONE = "same-type detector", "successor", labels.UNLABELLED
PLANTED = {
    "two_heads": {"0.1": FINDS, "2.2": NEXT},
    "head_and_mlp": {"1.2": FINDS},
    "induction": {"0.2": "previous token", "1.1": "induction"},
    "backup": {"0.1": FINDS, "1.2": FINDS},
    "inhibitory": {"0.1": FINDS, "2.0": "inhibitor", "2.3": NEXT},
    "position": {"0.3": NONE, "1.1": FINDS, "2.2": NEXT},
    "leak": {"0.1": FINDS, "1.3": NEXT, "2.2": NEXT},
    "cancelling": {"0.1": FINDS, "1.2": NEXT, "2.0": "inhibitor", "2.3": NEXT},
    "interlock": {"0.1": FINDS, "1.1": "self", "1.2": "self"},
}
BOOTSTRAP = Bootstrap(100, 0)
K = 5


DRAWS = 60


def tables_of(fixture, model) -> dict:
    """The tables that a study has of a task, as far as labels need them."""
    layout, prompts = layout_of(fixture), fixture.prompts()
    members, fillers = fixtures.ids(MEMBERS), fixtures.ids(FILLERS)
    variants = {
        "in order": prompts.tokens,
        "shuffled": attention.shuffled(prompts.tokens, layout, 0),
        "words": attention.words(prompts.tokens, fillers, layout, 0),
    }
    of = Explained(fixture.id, model, None, pd.DataFrame(fixture.rows()), layout, BOOTSTRAP)
    settings = role_scores.Settings(DRAWS, prompts=12, seed=0)
    bos = fixtures.ids([fixtures.BOS])[0]
    repeated = detectors.repeated_tokens(members, 7, 16, seed=0, bos=bos)
    drawn = detectors.null(model, repeated[:4], detectors.Settings(7, 16, True, 0, DRAWS))
    return {
        "role_scores": role_scores.table(of, variants, ["attention", "ov", "attribution"], settings),
        "detectors": detectors.table(detectors.scores(model, repeated, bos=True), BOOTSTRAP, drawn),
    }


@pytest.mark.parametrize(("name", "family"), crossed(list(PLANTED), exact.FAMILIES, step=2))
def test_planted_heads_get_the_roles_that_they_were_planted_for_and_no_others_any(config, name, family, tmp_path):
    """The heads that were not planted have random weights, and are called nothing."""
    fixture, wanted = getattr(exact, name)(family), PLANTED[name]
    assert {str(c) for c in heads(frozenset().union(*fixture.nodes.values()))} == set(wanted)
    model = models.load(fixture.build(tmp_path), device="cpu")
    every = labels.every_head(model.n_layers, model.n_heads)
    tables = {name: tables_of(fixture, model)}
    roles = labels.label_tasks({}, every, tables, K, config["heads"]["labels"])["roles"]
    found = dict(zip(roles.component, roles.label, strict=True))
    assert {head: label for head, label in found.items() if label != NONE} == {
        head: label for head, label in wanted.items() if label != NONE
    }


def test_every_exact_fixture_has_its_labels():
    assert set(PLANTED) == {make.__name__ for make in exact.MAKERS}


# ---- evidence ------------------------------------------------------------------------------------------------
HEADS = [Component(0, 0), Component(1, 3)]


def made_up_tables() -> dict:
    """Tables of a study with one value in every cell, told apart by its digits."""
    cells = pd.DataFrame({"layer": [0, 1], "head": [0, 3]})

    def rows(value, **columns):
        return cells.assign(value=[value, value + 0.5], **columns)

    members = [
        rows(value, statistic=f"{query} to members", variant=variant)
        for value, (query, variant) in enumerate(
            [(q, v) for q in ("last", "member") for v in ("in order", "shuffled", "words")], start=10
        )
    ]
    members += [
        rows(20, statistic="last to last member", variant="in order"),
        rows(99, statistic="last to last member", variant="shuffled"),
        rows(21, statistic="previous member is the maximum", variant="in order"),
        rows(22, statistic="member to own type", variant="interleaved"),
        rows(23, statistic="member to other type", variant="interleaved"),
    ]
    wanted = [(norm, score, K) for norm in ("own", "in place") for score in ("next", "copy")]
    wanted += [
        ("own", "next over copy", 0),
        ("in place", "next over copy", 0),
        ("own", "next", 1),
        ("block1", "next", K),
    ]
    ov_rows = [
        rows(value, norm=norm, score=score, k=k, baseline=value / 100)
        for value, (norm, score, k) in enumerate(wanted, start=30)
    ]
    attribution = [rows(2.0, part="head"), rows(99.0, part="write")]
    attribution.append(pd.DataFrame({"layer": [-1], "head": [-1], "value": [5.5], "part": ["head"]}))
    return {
        "detectors": pd.concat([rows(i, detector=d) for i, d in enumerate(("previous", "duplicate", "induction"))]),
        "attribution": pd.concat(attribution),
        "attention_members": pd.concat(members),
        "ov": pd.concat(ov_rows),
        "component_effects": pd.concat([rows(60.0, metric="percent_of_full"), rows(1.0, metric="logit_diff")]),
        "patching": pd.concat(
            [
                rows(40, direction="denoising", site="z", position=-1),
                rows(41, direction="noising", site="z", position=-1),
                rows(99, direction="noising", site="q", position=-1),
            ]
        ),
    }


def test_evidence_takes_each_cell_from_its_table():
    found = labels.evidence(HEADS, made_up_tables(), K).iloc[1]
    expected = {"effect": 39.5, "patching_denoising": 40.5, "patching_noising": 41.5, "attribution": 2.5}
    expected |= {"attribution_share": 2.5 / 10.0}  # 2 + 2.5 of heads and 5.5 of the rest
    expected |= {"previous": 0.5, "duplicate": 1.5, "induction": 2.5}
    expected |= {"ov_next": 30.5, "ov_next_baseline": 0.3, "ov_copy": 31.5, "ov_next_over_copy": 34.5}
    expected |= {"in_place_next": 32.5, "in_place_copy": 33.5, "in_place_next_over_copy": 35.5}
    expected |= {"last_to_members": 10.5, "last_to_members_shuffled": 11.5, "last_to_members_words": 12.5}
    expected |= {"member_to_members": 13.5, "member_to_members_shuffled": 14.5, "member_to_members_words": 15.5}
    expected |= {"last_to_last_member": 20.5, "previous_member_maximum": 21.5, "own_type": 22.5, "other_type": 23.5}
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_missing_tables_and_variants_are_nan():
    tables = made_up_tables()
    del tables["component_effects"]
    tables["attention_members"] = tables["attention_members"].query("variant != 'words'")
    found = labels.evidence(HEADS, tables, K)
    assert found.effect.isna().all() and found.last_to_members_words.isna().all()
    assert found.last_to_members.notna().all()


# ---- roles ---------------------------------------------------------------------------------------------------
FLOORS = {"copy": 0.25, "successor": 0.25, "inhibitor": 0.1, "induction": 0.5, "previous member": 0.5}
SURE = 1e-4


def scored(score, values, p=SURE, shuffled=np.nan) -> pd.DataFrame:
    """Rows of `role_scores` of one score, for the heads `HEADS`."""
    ends = {"ci_low": 0.0, "ci_high": 1.0, "null_low": 0.0, "null_high": 0.1, "shuffled_low": 0.0}
    cells = pd.DataFrame({"layer": [h.layer for h in HEADS], "head": [h.head for h in HEADS]})
    return cells.assign(score=score, value=values, p=p, shuffled_high=shuffled, **ends)


def called(*scores, floors=FLOORS, detectors=None) -> pd.DataFrame:
    tables = {"role_scores": pd.concat(scores)} if scores else {}
    tables |= {} if detectors is None else {"detectors": detectors}
    return labels.label_tasks({"a": frozenset(HEADS)}, HEADS, {"a": tables}, K, floors)["roles"]


def test_a_role_holds_where_all_three_are_so():
    """More than random heads, by Holm's p; more than with members shuffled; and from the floor on."""
    assert called(scored("ov copy", [0.25, 0.2499]))["label"].tolist() == ["copy", labels.UNLABELLED]
    assert called(scored("ov copy", 0.9, p=[0.024, 0.026]))["label"].tolist() == ["copy", "copy"], "0.048 and 0.048"
    assert called(scored("ov copy", 0.9, p=[0.026, 0.5]))["label"].tolist() == [labels.UNLABELLED] * 2, "0.052"
    assert called(scored("ov copy", 0.9, shuffled=[0.89, 0.9]))["label"].tolist() == ["copy", labels.UNLABELLED]
    assert called(scored("ov copy", 0.9, p=np.nan))["label"].tolist() == [labels.UNLABELLED] * 2, "not tested"
    assert called(scored("ov copy", 0.9), floors={})["label"].tolist() == [labels.UNLABELLED] * 2, "no floor"


def test_scores_of_one_role_are_corrected_together_and_those_of_others_apart():
    found = called(scored("ov copy", 0.9, p=[0.02, 0.5]), scored("in place copy", 0.1, p=[0.5, 0.5]))
    assert found["label"].tolist() == [labels.UNLABELLED] * 2 and found["p_holm"][0] == pytest.approx(0.08)
    found = called(scored("ov copy", 0.9, p=[0.02, 0.5]), scored("ov next", 0.1, p=[0.5, 0.5]))
    assert found["label"].tolist() == ["copy", labels.UNLABELLED] and found["p_holm"][0] == pytest.approx(0.04)


def test_the_first_label_counts_and_all_are_kept():
    detectors = scored("induction", [0.9, 0.1]).rename(columns={"score": "detector"})
    detectors = detectors.drop(columns=["shuffled_low", "shuffled_high"])
    found = called(scored("ov copy", 0.9), scored("against", [0.5, 0.5]), detectors=detectors)
    assert found["label"].tolist() == ["induction", "copy"]
    assert found["labels"].tolist() == ["induction; copy; inhibitor", "copy; inhibitor"]
    assert found["score"].tolist() == ["induction", "ov copy"], "the row's numbers are those of the label"
    assert found["floor"].tolist() == [0.5, 0.25] and found["value"].tolist() == [0.9, 0.9]


def test_of_two_scores_the_one_that_holds_stands_for_the_label():
    better = scored("last to previous member", [0.6, 0.4], p=[0.01, 0.01])
    surer = scored("member to previous member", [0.4, 0.3], p=[0.001, 0.001])
    found = called(better, surer)
    assert found["label"].tolist() == ["previous member", labels.UNLABELLED]
    assert found["score"].tolist() == ["last to previous member", "member to previous member"]
    assert found["score: previous member"].tolist() == [0.6, 0.3]


def test_other_labels_in_other_tasks_are_flagged():
    table = pd.DataFrame({"layer": [0, 0, 1, 1], "head": [0, 0, 3, 3], "label": ["copy", "copy", "copy", "successor"]})
    assert labels.compared(table).differs.tolist() == [False, False, True, True]


def test_every_head_of_the_model_is_tested_on_every_task():
    """Each task by its own tables; ``circuits`` names the circuits that have the head."""
    circuits = {"a": frozenset({HEADS[0], Component(1)}), "b": frozenset(HEADS[:1])}
    tables = {task: made_up_tables() for task in "ac"}
    tables["a"]["role_scores"] = scored("ov copy", 0.9)
    tables["c"]["role_scores"] = scored("ov copy", [0.9, 0.1])
    found = labels.label_tasks(circuits, HEADS, tables, K, FLOORS)
    roles, tests = found["roles"], found["role_tests"]
    assert list(roles.columns[:5]) == ["task", "component", "layer", "head", "circuits"]
    assert list(zip(roles.task, roles.component, roles.circuits, strict=True)) == [
        (task, name, of) for task in "ac" for name, of in (("0.0", "a, b"), ("1.3", ""))
    ]
    assert roles["label"].tolist() == ["copy", "copy", "copy", labels.UNLABELLED]
    assert roles["differs"].tolist() == [False, True, False, True]
    assert roles["effect"].tolist() == [40.0, 39.5, 40.0, 39.5]
    own = tests[tests.label == "copy"]
    assert own["claim"].unique().tolist() == ["copy"] and own["tests"].unique().tolist() == [2]
    assert own["holds"].tolist() == [True, True, True, False]


def test_the_default_floors_name_every_label_in_order(config):
    assert list(config["heads"]["labels"]) == list(labels.LABELS)


def test_labels_need_no_torch():
    code = "import sys; import atlas.heads.labels, atlas.circuit.chosen; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts").returncode == 0
