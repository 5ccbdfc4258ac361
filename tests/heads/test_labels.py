"""Labels: the planted heads get the labels that their construction means, by the default thresholds; and the rules."""

import subprocess
import sys

import pandas as pd
import pytest

from atlas.core.components import Component, heads
from atlas.core.statistics import Bootstrap
from atlas.heads import attention, detectors, labels, role_scores
from atlas.heads.explained import Explained
from atlas.model import models
from atlas.proof import exact, fixtures
from atlas.proof.planted import FILLERS, MEMBERS
from conftest import ROOT
from head_prompts import layout_of

# What each planted head does, by its construction (fixtures.py), in the words that there are.
#
# A `finder` attends to the last member because it is a member, and copies it to a place that the unembedding does not
# read: that it copies, and does not write the successor, is nowhere but in how the next head reads that place. So it is
# known by what it attends to: a same-type detector; likewise the head that finds the first member. 0.3 of `position`
# tells positions apart, for which there is no word; 1.1 and 1.2 of `interlock` mark the place where they look, their own.
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


@pytest.mark.parametrize("family", exact.FAMILIES)
@pytest.mark.parametrize("name", PLANTED)
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
    found = labels.labelled(labels.evidence(HEADS, tables, K), {"same-type detector": 0.0})
    assert found.effect.isna().all() and found.last_to_members_words.isna().all()
    assert found["score: same-type detector"].isna().all() and (found.label == labels.UNLABELLED).all()


# ---- labels --------------------------------------------------------------------------------------------------
NAMES = ["previous", "duplicate", "induction", "attribution_share"]
NAMES += [f"{source}_{score}" for source in ("ov", "in_place") for score in ("next", "copy", "next_over_copy")]
NAMES += [f"{query}_to_members{ending}" for query in ("last", "member") for ending in ("", "_shuffled", "_words")]
NOTHING = dict.fromkeys(NAMES, 0.0)


def label(config, **evidence) -> tuple[str, str]:
    row = labels.labelled(pd.DataFrame([NOTHING | evidence]), config["heads"]["labels"]).iloc[0]
    return row.label, row.labels


def test_a_label_applies_from_its_threshold_on(config):
    for name, evidence in (
        ("previous token", "previous"),
        ("induction", "induction"),
        ("duplicate", "duplicate"),
        ("copy", "ov_copy"),
        ("copy", "in_place_copy"),
    ):
        threshold = config["heads"]["labels"][name]
        assert label(config, **{evidence: threshold})[0] == name
        assert label(config, **{evidence: threshold - 1e-6})[0] == labels.UNLABELLED
    assert label(config) == (labels.UNLABELLED, "")
    assert set(config["heads"]["labels"]) == set(labels.LABELS)


def test_next_and_copy_are_told_apart_by_which_is_written_more(config):
    both = {"ov_next": 1.0, "ov_copy": 1.0}
    assert label(config, **both, ov_next_over_copy=0.9) == ("successor", "successor")
    assert label(config, **both, ov_next_over_copy=0.1) == ("copy", "copy")
    assert label(config, in_place_next=1.0, in_place_next_over_copy=1.0)[0] == "successor"


def test_general_patterns_come_first_and_all_labels_are_kept(config):
    found = label(config, induction=0.9, ov_copy=0.9, attribution_share=-0.5)
    assert found == ("induction", "induction; copy; inhibitor")
    assert label(config, ov_copy=0.9, attribution_share=-0.5)[0] == "copy", "it takes from the answer by copying"
    assert label(config, attribution_share=-0.5)[0] == "inhibitor"
    assert label(config, attribution_share=0.5)[0] == labels.UNLABELLED


def test_a_type_is_what_stays_when_members_move_and_goes_when_they_are_gone(config):
    members = {"last_to_members": 0.9, "last_to_members_shuffled": 0.8}
    assert label(config, **members, last_to_members_words=0.1)[0] == "same-type detector"
    assert label(config, **members, last_to_members_words=0.8)[0] == labels.UNLABELLED, "position"
    assert label(config, last_to_members=0.9)[0] == labels.UNLABELLED, "the order of members"
    assert label(config, member_to_members=0.9, member_to_members_shuffled=0.9)[0] == "same-type detector"


def test_a_label_without_a_threshold_never_applies():
    assert labels.labelled(pd.DataFrame([NOTHING | {"previous": 1.0}]), {}).label.item() == labels.UNLABELLED


def test_other_labels_in_other_tasks_are_flagged():
    table = pd.DataFrame({"layer": [0, 0, 1, 1], "head": [0, 0, 3, 3], "label": ["copy", "copy", "copy", "successor"]})
    assert labels.compared(table).differs.tolist() == [False, False, True, True]


def test_heads_of_all_circuits_are_labelled_on_every_task(config):
    """Each task by its own tables; ``circuits`` names the circuits that have the head, MLPs are no heads."""
    circuits = {"a": frozenset({*HEADS, Component(1)}), "b": frozenset(HEADS[:1])}
    tables = {"a": made_up_tables(), "c": made_up_tables()}
    tables["c"]["ov"] = tables["c"]["ov"].assign(value=0.0)
    tables["c"]["detectors"] = tables["c"]["detectors"].assign(value=0.0)
    del tables["c"]["component_effects"]
    found = labels.label_tasks(circuits, tables, K, config["heads"]["labels"])
    assert list(found.columns[:5]) == ["task", "component", "layer", "head", "circuits"]
    assert list(zip(found.task, found.component, found.circuits, strict=True)) == [
        (task, name, of) for task in "ac" for name, of in (("0.0", "a, b"), ("1.3", "a"))
    ]
    for task, rows in found.groupby("task"):
        alone = labels.labelled(labels.evidence(HEADS, tables[task], K), config["heads"]["labels"])
        pd.testing.assert_frame_equal(rows[list(alone)].reset_index(drop=True), alone)
    wide = found.pivot(index="component", columns="task", values="label")
    assert found.differs.tolist() == (wide["a"] != wide["c"]).tolist() * 2 and found.differs.any()


def test_labels_need_no_torch():
    code = "import sys; import atlas.heads.labels, atlas.circuit.chosen; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts").returncode == 0
