"""The figure and the sentences about features, from small synthetic tables."""

import dataclasses
import functools

import pandas as pd
import pytest

from atlas.report import summary
from atlas.report.figures import features as figure
from atlas.report.sections import features as section
from drawings import check_written, texts
from figure_tables import COLOURS, SMALL, study_of
from summaries import summary_of

CLASSES = {"months": 12, "numerals": 60}


def quality(loaded=False):
    row = {"autoencoder": "reported", "hook": "blocks.0.hook_resid_post", "architecture": "topk", "seed": 0.0}
    row |= {"width": 8, "features": 64, "tokens": 400, "held_out": 100, "l0": 4.0, "explained": 0.98, "dead": 3}
    row |= {"kl_recovered": 0.97, "ci_low": 0.95, "ci_high": 0.99, "kl_recovered_zero": 0.99, "kl": 0.1, "texts": 48}
    row |= {"kl_mean": 4.0, "kl_zero": 6.0, "agreement": 0.95, "agreement_90": 0.9, "agreement_null": 0.6}
    if loaded:
        return pd.DataFrame([row | {"seed": float("nan")}])
    others = [{"autoencoder": "another seed", "seed": 1.0, "explained": 0.96}]
    others += [{"autoencoder": "untrained", "agreement": 0.8, "kl_recovered": 0.5, "ci_low": 0.4, "ci_high": 0.6}]
    return pd.DataFrame([row, *(row | other for other in others)])


def heads(planted=True):
    """Ablation matters in head 1.0 on months, where planted; nothing else does."""
    rows = []
    for head in (0, 1):
        for kind, members in CLASSES.items():
            for edit in ("ablate", "swap"):
                hit = planted and (head, kind, edit) == (0, "months", "ablate")
                row = {"layer": 1, "head": head, "in_circuit": head == 0, "class": kind, "edit": edit}
                row |= {"members": members, "score": 0.5, "chance": 1 / members, "untouched": 3.1}
                row |= {"reconstruction": 3.0, "value": 1.5 if hit else 0.1, "ci_low": 1.2 if hit else -0.1}
                row |= {"ci_high": 1.8 if hit else 0.3, "random": 0.02, "random_low": -0.2, "random_high": 0.3}
                row |= {"draws": 99, "p": 0.01 if hit else 0.4, "tests": 4, "p_holm": 0.04 if hit else 1.0}
                rows.append(row | {"moved": 0.25 if edit == "swap" else float("nan")})
    return pd.DataFrame(rows)


def effects(planted=True):
    values = {"reconstruction": 0.1, "own feature": 4.0 if planted else 1.0, "random features": 1.0}
    values |= {"beyond random": 3.0 if planted else 0.0, "swap": 5.0, "swap random": 4.0, "swap beyond random": 1.0}
    rows = []
    for edit, value in values.items():
        row = {"task": "months", "edit": edit, "value": value, "ci_low": value - 0.5, "ci_high": value + 0.5}
        row |= {"full": 8.0, "share": value / 8, "moved": 0.1, "prompts": 48, "draws": 4, "tests": 1}
        rows.append(row | {"p": 0.001 if planted else 0.6, "p_holm": 0.001 if planted else 0.6})
    return pd.DataFrame(rows)


def members():
    rows = [
        {"class": kind, "member": f"m{i}", "label": "member" if i % 3 else "class"}
        for kind, n in CLASSES.items()
        for i in range(n)
    ]
    return pd.DataFrame(rows)


def of_tests(found):
    rows = [("own feature", kind, n, 0.8, 0.1, 0.2, 0.01) for kind, n in CLASSES.items()]
    rows += [(f"index modulo {m}", "all", len(found), 0.4, 0.2, 0.3, 0.01 if len(found) else 0.6) for m in (10, 5, 2)]
    columns = ["test", "class", "features", "value", "null_mean", "null_high", "p_holm"]
    return pd.DataFrame(rows, columns=columns).assign(p=lambda t: t["p_holm"])


def indices(found=True):
    row = {"period": 10, "feature": 7, "residue": 3, "value": 0.4, "null_high": 0.3, "members": "3, March"}
    return pd.DataFrame([row] if found else [], columns=list(row))


def activity():
    rows = [
        (kind, f"m{i}", f"m{j}", j, float(i == j) or 0.1 * (abs(i - j) == 1))
        for kind, n in CLASSES.items()
        for j in range(n)
        for i in range(n)
    ]
    return pd.DataFrame(rows, columns=["class", "member", "own_of", "feature", "value"])


def tables(planted=True, loaded=False):
    found = indices(planted)
    made = {"features": quality(loaded), "feature_members": members(), "feature_indices": found}
    return made | {
        "feature_tests": of_tests(found),
        "feature_heads": heads(planted),
        "feature_effects": effects(planted),
    }


def draw():
    return figure.draw(activity(), heads(), effects(), COLOURS, "viridis")


@functools.cache
def drawn():
    return draw()


# ---- the figure ----------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_figure_is_written_and_repeats_byte_for_byte(tmp_path):
    check_written([drawn(), draw()], tmp_path)


def test_maps_show_the_first_members_and_say_so():
    titles = [ax.get_title(loc="left") for ax in drawn().axes]
    assert "numerals\nfirst 40 of 60" in titles and "months" in titles
    grid = drawn().axes[0].collections[0].get_array()
    assert grid.shape == (12, 12) and (grid.diagonal() == 1).all() and grid.sum() == pytest.approx(12 + 22 * 0.1)


def test_a_point_is_filled_where_random_features_do_not_reach_it():
    ablated = next(ax for ax in drawn().axes if ax.get_title(loc="left") == "Heads: own feature ablated")
    points = [line for line in ablated.lines if line.get_marker() == "o"]
    filled = [point for point in points if point.get_markerfacecolor() == COLOURS["circuit"]]
    assert len(points) == 4 and [point.get_xdata()[0] for point in filled] == [1.5]
    assert [label.get_text() for label in ablated.get_yticklabels()] == ["1.0*", "1.1", "1.0*", "1.1"]


def test_a_study_without_classes_or_tasks_says_so():
    empty = figure.draw(activity().head(0), heads().head(0), effects().head(0), COLOURS, "viridis")
    assert "No class has enough members of one token each." in texts(empty)
    untyped = pd.DataFrame(columns=effects().columns)  # as a table of no rows is read
    without = figure.draw(activity(), heads().head(0), untyped, COLOURS, "viridis")
    assert "no task has members\nof these classes" in texts(without)


# ---- sentences -----------------------------------------------------------------------------------------------
def test_sentences_follow_the_numbers():
    said = section.findings(tables())
    assert said[0] == (
        "A sparse autoencoder of the residual stream after layer 0 (64 features, 4 active on a token) explains 98.0 % "
        "of the variance of held-out tokens and recovers 97.0 % [95.0, 99.0] of the loss; taking a member's own "
        "feature from what a successor head reads costs the next member more than random features do in 1 of 4 pairs "
        "of successor head and class."
    )
    assert "3 of its features fire on none of 100 held-out tokens" in said[1]
    assert "that start alone agrees to 0.80 and recovers 50.0 % [40.0, 60.0] of the loss" in said[1]
    assert "months F1 0.80 (shuffled members 0.10, p = 0.01 corrected; 8 member and 4 class)" in said[2]
    assert "index modulo 10: 1 feature, strongest 7 for 3 (3, March; 0.40" in said[3]
    assert "most, head 1.0, in a circuit, on months loses 1.50 [1.20, 1.80] of 3.00 logits" in said[4]
    assert "beyond random features in 0 of 4 pairs" in said[5]
    assert "so the own feature is surely needed beyond random ones (3.00 [2.50, 3.50]" in said[6]


def test_nothing_found_is_said_as_plainly():
    said = section.findings(tables(planted=False, loaded=True))
    assert "in 0 of 4 pairs" in said[0] and "It was loaded;" in said[1] and "Another seed" not in said[1]
    assert "index modulo 10: none (strongest 0.40, permuted members up to 0.30, p = 0.6)" in said[3]
    assert "so the own feature is not surely needed beyond random ones" in said[6]


def test_the_summary_has_a_section_where_the_study_makes_features():
    study = summary_of(study_of(SMALL))
    assert not section.section(study).shown
    more = dataclasses.replace(study, tables=study.tables | tables())
    made = section.section(more)
    assert made.shown and 'id="features"' in summary.page(more)


def test_labels_are_those_of_the_analysis():
    from atlas.geometry import feature_members

    names = (feature_members.MEMBER, feature_members.CLASS, feature_members.MIXED, feature_members.NONE)
    assert names == section.LABELS
