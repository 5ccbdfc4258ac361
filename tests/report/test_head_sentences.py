"""Sentences about what heads do follow the tables."""

import numpy as np
import pandas as pd
import pytest

import head_tables
from atlas.report import lens_page, role_words
from atlas.report.sections import heads, left_out
from figure_tables import GROUPED, HEADLESS, LARGE, SMALL, UNKNOWN, study_of


@pytest.fixture(params=[LARGE, SMALL, GROUPED, UNKNOWN], scope="module")
def study(request):
    return study_of(request.param)


NEAREST = {"score": "ov copy", "value": 0.2, "ci_low": 0.1, "ci_high": 0.3, "null_low": 0.0, "null_high": 0.1}
NEAREST |= {"shuffled_low": 0.0, "shuffled_high": 0.1, "floor": 0.25, "p": 0.001, "tests": 96, "p_holm": 0.01}
LABELS = head_tables.THRESHOLDS


def called(circuits="a", **labels):
    """Roles: head -> its label on each of the tasks a, b, c (main) and d."""
    rows = [
        {"component": name, "task": task, "label": label, "effect": 1.0, "circuits": circuits, **NEAREST}
        for name, held in labels.items()
        for task, label in zip("abcd", held.split(", "), strict=False)
    ]
    rows = [row | {"component": row["component"].replace("h", "").replace("_", ".")} for row in rows]
    return pd.DataFrame(rows)


def test_label_sentences_name_heads_by_label_and_the_tasks():
    table = called(
        h0_1="copy, copy, copy", h1_2="unlabelled, copy, unlabelled", h2_0="unlabelled, unlabelled, unlabelled"
    )
    first, rule, rest, differ = heads.label_findings(table, list("abc"), LABELS, "prompts")
    assert first == (
        "Of the 3 heads in any circuit, 2 have a role on a main task, beyond random heads (prompts): "
        "copy: 0.1 (all main tasks) and 1.2 (b)."
    )
    assert rule.startswith("A role is a score that random heads of this model do not reach (p < 0.05, corrected")
    assert rest == "Unlabelled on every main task: 2.0 (more than random heads reach, but below its floor)."
    assert differ == "1.2 is not called the same on all main tasks: unlabelled on a and c and copy on b."


def test_heads_in_no_circuit_are_counted_apart():
    outside = called("", h3_0="copy, copy, induction", h3_1="unlabelled, unlabelled, copy", h3_2="unlabelled")
    table = pd.concat([called(h0_1="copy, copy, copy"), outside])
    said = heads.label_findings(table, list("ab"), LABELS, "prompts")
    assert said[0].startswith("Of the 1 head in any circuit, 1 has a role")
    assert said[-1] == "Of the 3 heads in no circuit, 1 have a role on a main task (copy 1)."
    assert not any("3.0" in sentence for sentence in said)


def test_when_no_head_has_a_label_the_first_sentence_says_so_and_why():
    said = heads.label_findings(called(h0_1="unlabelled, unlabelled"), ["a", "b"], {"copy": 0.5}, "prompts")
    assert said[0] == "None of the 1 head in any circuit has a role on a main task, beyond random heads (prompts)."
    assert said[2].startswith("Unlabelled on every main task: 0.1 (more than random")
    assert said[3] == "No head is called differently on different main tasks."
    assert said[4].startswith("No floor is set for previous token, induction")
    assert heads.label_findings(called().reindex(columns=["component", "circuits"]), ["a"], {}, "prompts") == [
        "No circuit holds a head, so there is none to explain."
    ]


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ({"p_holm": 0.2}, "no score is more than random heads reach"),
        ({"shuffled_high": 0.3}, "more than random heads reach, but no more than with members shuffled"),
        ({}, "more than random heads reach, but below its floor"),
        ({"p": np.nan, "p_holm": np.nan}, "not tested against random heads"),
        ({"score": None, "value": np.nan, "p": np.nan, "p_holm": np.nan}, "not tested against random heads"),
    ],
)
def test_an_unlabelled_head_says_what_it_lacks(lacks, said):
    table = called(h0_1="unlabelled").assign(**lacks)
    assert role_words.lacking(table.iloc[0].to_dict()) == said
    assert f"0.1 ({said})" in " ".join(heads.label_findings(table, ["a"], LABELS, "prompts"))
    assert said in heads.evidence_findings(table, None, ["a"])[0]


def test_without_random_heads_it_is_said_that_nothing_was_tested():
    table = called(h0_1="unlabelled, unlabelled").assign(p=np.nan, p_holm=np.nan)
    said = heads.label_findings(table, ["a", "b"], LABELS, "prompts")
    assert (
        said[1] == "No role was tested: random heads, against which roles are tested, need a model with a live engine."
    )


def test_other_tasks_add_to_the_heads_with_several_labels():
    said = heads.label_findings(called(h0_1="copy, copy, copy, induction"), list("abc"), LABELS, "prompts")
    assert "Counting the other tasks, 0.1 is called differently on some of them too." in said


def test_the_strongest_head_comes_with_its_label_its_score_and_its_nulls(study):
    said = heads.evidence_findings(study.roles, study.attribution, study.main)
    for task, sentence in zip(study.main, said[::2], strict=True):
        own = study.roles[(study.roles["task"] == task) & (study.roles["circuits"] != "")]
        row = own.loc[own["effect"].idxmax()]
        assert f"ablating {row['component']} costs most" in sentence
        assert ("it is called" in sentence) == (row["label"] != "unlabelled")
        assert role_words.evidence(row) in sentence and role_words.null(row) in sentence


def test_attribution_sentences_keep_both_signs_apart():
    values = {"0.0": 0.5, "0.1": -0.4, "0.2": 0.001}
    rows = [
        {"task": "a", "part": "head", "name": n, "layer": 0, "head": int(n[-1]), **head_tables.interval(v, 0.05)}
        for n, v in values.items()
    ]
    said = heads.evidence_findings(called(h0_1="copy").assign(effect=np.nan), pd.DataFrame(rows), ["a"])
    assert said == [
        "A, heads that write most for the answer, 0.0 0.50 [0.45, 0.54]; against the answer, 0.1 \u22120.40 "
        "[\u22120.45, \u22120.36] (logits)."
    ]


def stream(*denoising, z=()):
    key = {"task": "a", "site": "resid_pre", "head": -1, "position": 4}
    rows = [
        key | {"direction": d, "layer": layer, **head_tables.interval(v if d == "denoising" else 1 - v, 0)}
        for layer, v in enumerate(denoising)
        for d in ("denoising", "noising")
    ]
    key |= {"site": "z", "position": -1, "direction": "noising", "layer": 0}
    return pd.DataFrame(rows + [key | {"head": h, **head_tables.interval(v)} for h, v in enumerate(z)])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (stream(0.1, 0.6, 0.9), "restores at least half of the score from layer 1 on"),
        (stream(0.6, 0.1, 0.9), "restores at least half of the score from layer 2 on"),
        (stream(0.1, 0.2), "restores at least half of the score at no layer"),
        (stream(0.9, z=(0.4, 0.99)), "single heads that cost most: 0.0 (60 %)."),
        (stream(0.9, z=(1.2,)), "no corrupted output of a single head surely costs anything."),
    ],
)
def test_patching_sentences_follow_the_rows(table, said):
    assert said in heads.patching_findings(table, ["a"])[0]


def test_lens_sentences_name_the_point_and_the_block(study):
    task = study.main[0]
    own = study.lens_lead[study.lens_lead["task"] == task]
    sentence = heads.lens_findings(study.lens, study.lens_lead, study.lens_increments, [task])[0]
    assert "on 11 of 12 prompts" in sentence
    steps = study.lens_increments[(study.lens_increments["task"] == task) & (study.lens_increments["lens"] == "norm")]
    assert f"within block {steps.loc[steps['share'].idxmax(), 'from_point'] // 2}, on" in sentence
    half = own.loc[own["stays"] >= 0, "stays"].sort_values().iloc[5]
    assert lens_page.point_name(study.lens.set_index("point")["name"][half].iloc[0]) in sentence
    never = own.assign(stays=-1)
    flat = steps.assign(share=0.0)
    sentence = heads.lens_findings(study.lens, never, flat, [task])[0]
    assert "first choice on no prompt" in sentence and "within no block" in sentence


def test_detector_sentences_say_none_with_the_largest():
    rows = [("previous", 0, 0, 0.9), ("previous", 0, 1, 0.1), ("induction", 1, 1, 0.3), ("duplicate", 0, 0, 0.0)]
    table = pd.DataFrame(rows, columns=["detector", "layer", "head", "value"])
    table = table.assign(ci_low=table["value"], ci_high=table["value"], p=0.001)
    floors = {"previous token": 0.5, "induction": 0.5}
    assert heads.detector_findings(table, floors) == [
        "On repeated random tokens, of all heads of the model: previous token: 0.0; "
        "induction: none (largest 1.1 0.30 [0.30, 0.30])."
    ]
    said = heads.detector_findings(table.assign(p=0.03), floors)[0]  # corrected for two heads
    assert "previous token: none (largest 0.0 0.90" in said, "random heads reach as much"


def test_backup_sentences_count_sure_rises_only():
    row = {"task": "a", "ablated": "0.0", "layer": 0, "head": 1, "change": 0.2, "scale_ratio": 1.5}
    row |= {"change_ci_low": 0.1, "change_ci_high": 0.3}
    sure = row | {"p_holm": 0.01}
    said = heads.backup_findings(pd.DataFrame([sure]), ["a"])[0]
    assert "1 head surely writes more" in said and "0.1 without 0.0, by 0.20 [0.10, 0.30] logits" in said
    assert "scale is then 1.50 times" in said
    unsure = row | {"p_holm": 0.06}  # beside others: its interval alone leaves out 0
    assert "no head surely writes more" in heads.backup_findings(pd.DataFrame([unsure]), ["a"])[0]


def test_the_label_table_has_a_row_for_each_head_and_stars_differences(study):
    table, inside = heads.table(study.roles, study.tasks), study.roles[study.roles["circuits"] != ""]
    assert len(table["rows"]) == inside["component"].nunique()
    assert {len(row) for row in table["rows"]} == {1 + len(study.tasks)}
    starred = {row[0].split()[1] for row in table["rows"] if row[0].endswith("*")}
    assert starred == set(inside.loc[inside["differs"], "component"])


def test_all_findings_come_in_whole_sentences(study):
    tables = {name: getattr(study, name) for name in ("roles", "attribution", "patching", "lens", "lens_lead")}
    tables |= {name: getattr(study, name) for name in ("lens_increments", "detectors", "backup")}
    said = heads.findings(tables, study.main, head_tables.THRESHOLDS, "prompts")
    assert all(s.endswith(".") and "nan" not in s and "  " not in s for s in said)


def test_what_is_left_out_is_said_with_the_reason_where_there_is_one():
    said = left_out.analysis_findings({"edges": "it has no engine", "lens": None, "backup": None})
    assert said == [
        "The configuration leaves out edges (not to be had of this model: it has no engine); the logit lens and backup "
        "heads."
    ]
    assert left_out.analysis_findings({}) == []


def test_circuits_without_heads_are_said_to_have_none():
    made = study_of(HEADLESS)
    said = heads.label_findings(made.roles, made.main, head_tables.THRESHOLDS, "prompts")
    assert said == ["No circuit holds a head, so there is none to explain."]
    assert heads.table(made.roles, made.tasks) is None
