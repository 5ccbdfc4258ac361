"""Figures and sentences about how order is laid out, from tables made of planted members and from written ones."""

import functools

import numpy as np
import pandas as pd
import pytest

from atlas.geometry import displacements as of_displacements
from atlas.geometry import shape_patches as of_patches
from atlas.geometry import shapes as of_shapes
from atlas.geometry.residuals import Residuals
from atlas.report import style
from atlas.report.figures import displacements, residual_pca, shape_patches, shapes
from atlas.report.sections import shapes as section_of_shapes
from conftest import every_other
from drawings import check_written, texts
from figure_tables import COLOURS
from planted_members import isotropic, members_of, planted, ring


def several(of, points, at="member"):
    return Residuals(of.members, points, np.repeat(of.values, len(points), axis=0), at)


@functools.cache
def tables(size):
    """Of one class of seven members at two points; or of eight classes, named as long as they come, at seven."""
    points = (0, 1) if size == "small" else tuple(range(7))
    names = (
        ["days"] if size == "small" else ["days", "spanish_number_words", *(f"class_of_letters_{i}" for i in range(6))]
    )
    found = [planted(members_of(7, "days", cyclic=True), ring(7))]
    found += [isotropic(members_of(20 if i == 1 else 7, name), i) for i, name in enumerate(names) if i]
    of = [several(one, points) for one in found]
    made = [of_shapes.table(one, 99, 0) for one in of]
    answers = several(found[0], points[1:], "answer")
    patched = [patch_rows(one.members.name, points) for one in of]
    return {
        "pca": pd.concat([*(of_shapes.pca(one) for one in of), of_shapes.pca(answers, "days")], ignore_index=True),
        "shapes": pd.concat([*made, of_shapes.table(answers, 19, 0, "days")], ignore_index=True),
        "displacements": of_displacements.table(of, 19, 0),
        "shape_patches": pd.concat(patched, ignore_index=True),
    }


def patch_rows(name, points, fitted=0.7, low=0.6, high_of_orders=0.6, shape="circle"):
    rows = []
    kinds = [("whole", 1.0, 1), ("fitted", fitted, 1)]
    for point in points:
        of_controls = [("permuted", 0.4, 19), ("random", 0.2, 5), ("pca", 0.65, 1)] if point == points[-1] else []
        for kind, value, draws in kinds + of_controls:
            row = {"task": name, "class": name, "shape": shape, "point": point, "chosen": point == points[-1]}
            row |= {
                "patched": kind,
                "dimensions": 2,
                "value": value,
                "ci_low": low if kind == "fitted" else value - 0.1,
            }
            row |= {"ci_high": value + 0.1, "draws": draws, "draws_low": value - 0.2, "p": np.nan, "variance": 0.5}
            rows.append(row | {"draws_high": high_of_orders if draws > 1 else value, "prompts": 8})
    return pd.DataFrame(rows).assign(clean=-3.0, exchanged=4.0)


def make(figure, size):
    of = tables(size)
    return {
        "residual_pca": lambda: residual_pca.draw(of["pca"], ["days"], "viridis"),
        "shapes": lambda: shapes.draw(of["shapes"], COLOURS),
        "displacements": lambda: displacements.draw(of["displacements"], "RdBu", "viridis"),
        "shape_patches": lambda: shape_patches.draw(of["shape_patches"], COLOURS),
    }[figure]()


FIGURES = ["residual_pca", "shapes", "displacements", "shape_patches"]


SIZES = ["small", pytest.param("large", marks=pytest.mark.slow)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("figure", every_other(list(FIGURES)))
def test_figures_are_written_repeat_byte_for_byte_and_keep_to_the_page(figure, size, tmp_path):
    drawn = [make(figure, size) for _ in range(1 + (size == "small"))]
    check_written(drawn, tmp_path)
    width, height = drawn[0].get_size_inches()
    assert width <= style.PAGE + 0.01 and height <= 20


def test_panels_are_of_points_from_first_to_last_and_say_what_components_explain():
    assert residual_pca.points_shown([0, 1, 2, 3, 4, 5, 6]) == [0, 2, 4, 6]
    assert residual_pca.points_shown([0, 3]) == [0, 3]
    figure = make("residual_pca", "small")
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[0].startswith("embedding (") and titles[1].startswith("after 1 block (")
    assert any("days0" in text for text in texts(figure))


@pytest.mark.slow
def test_the_matrix_of_displacements_holds_the_numbers_of_the_middle_point():
    of = tables("large")["displacements"]
    point = displacements.point_shown(sorted(of["point"].unique()))
    assert point == 3
    shown = set(texts(make("displacements", "large")))
    for value in of.loc[of["point"] == point, "value"]:
        assert displacements._short(value) in shown
    assert displacements._short(-0.0512) == "\u2212.05" and displacements._short(0.999) == "1"
    assert displacements._short(0.001) == "0"


def test_tables_without_rows_are_said_to_be_empty():
    empty = displacements.draw(tables("small")["displacements"].head(0), "RdBu", "viridis")
    assert "No two classes" in texts(empty)[0]
    assert "No task" in texts(shape_patches.draw(tables("small")["shape_patches"].head(0), COLOURS))[0]


# ---- sentences -----------------------------------------------------------------------------------------------
def shape_row(name, shape, value, p, control=False, point=0, null="random orders", at="member", **more):
    row = {"class": name, "at": at, "task": "", "point": point, "shape": shape, "null": null, "control": control}
    row |= {"members": 12, "value": value, "value_fit": value, "null_mean": 0, "null_low": -0.5, "null_high": 0.4}
    return row | {"bound": 0.9, "p": p / 2, "tests": 2, "p_holm": p} | more


def test_sentences_tell_a_closed_circle_from_an_arc():
    rows = [
        *(shape_row("months", "circle", value, 0.01, point=point) for point, value in ((0, 0.9), (2, 0.95))),
        *(shape_row("months", "closed", 0.3, 0.02, point=point) for point in (0, 2)),
        shape_row("days", "circle", 0.2, 0.4),
        shape_row("days", "closed", 0.1, 0.4),
        shape_row("letters", "circle", 0.8, 0.01, True),
        shape_row("letters", "closed", -0.3, 1.0, True),
        shape_row("letters", "line", 0.97, 0.01),
        shape_row("months", "line", 0.2, 0.5),
    ]
    said = section_of_shapes.shape_findings(pd.DataFrame(rows))
    assert said[0] == (
        "Around a circle, unseen members are read in order in months (0.95 after 2 blocks, 95 % of random orders "
        "\u22120.50 to 0.40; p = 0.005, 0.01 corrected for 2 points): mean cosine of the angle's error. The circle "
        "closes, beyond random orders, in months. No circle was found of days, beyond random orders."
    )
    assert said[1].startswith("Of 1 other classes, which are no cycles, 1 passes the same test (letters)")
    assert "months at 2 of 2 points (0.30 at the embedding) and days at 0 of 1 point" in said[2]
    assert said[3] == "They follow the steps along at every point in letters: an arc or a line."
    assert said[4].endswith("letters 0.97 at the embedding (1 of 1 point).")


def test_sentences_without_circle_or_line_say_so():
    said = section_of_shapes.shape_findings(pd.DataFrame([shape_row("letters", "line", 0.1, 0.5)]))
    assert said[0] == "No class is cyclic, so no circle was looked for."
    assert said[1].startswith("In no class is the index")
    rows = [shape_row("days", "circle", 0.9, 0.01), shape_row("days", "closed", 0.1, 0.5)]
    assert "closes, beyond random orders, in none of them" in section_of_shapes.shape_findings(pd.DataFrame(rows))[0]


def test_sentences_about_a_helix_compare_it_with_random_periods_or_say_that_it_cannot_be_tested():
    few = section_of_shapes.shape_findings(pd.DataFrame([shape_row("numerals", "line", 0.9, 0.01, members=10)]))
    assert few[-1] == "A helix of numerals cannot be tested: 10 of them are one token, and it takes 20."
    rows = [shape_row("numerals", "helix", 0.45, 0.01, members=101)]
    rows += [shape_row("numerals", "helix", 0.45, 0.3, null="random periods", members=101)]
    said = section_of_shapes.shape_findings(pd.DataFrame(rows))[-1]
    assert (
        "explains 45 % of the variance of unseen members at the embedding (random orders up to 40 %), not beyond"
        in said
    )
    rows[1] |= {"p_holm": 0.01}
    assert "corrected p = 0.3; beyond them at 0 of 1 point)" in said
    assert ", beyond helices of random periods" in section_of_shapes.shape_findings(pd.DataFrame(rows))[-1]


def test_sentences_about_answers_name_the_first_point():
    rows = [
        shape_row("months", "circle", 0.9, p, point=point, at="answer") for point, p in ((1, 0.2), (2, 0.01), (3, 0.01))
    ]
    start = "At the last token, by the answer that follows: months (circle, 12 members) after 2 blocks first, at 2 of 3"
    assert f"{start} points." in section_of_shapes.shape_findings(pd.DataFrame(rows))
    rows.append(shape_row("months", "closed", 0.4, 0.01, point=3, at="answer"))
    assert f"{start} points, closed at 1." in section_of_shapes.shape_findings(pd.DataFrame(rows))


def test_sentences_about_displacements():
    same = {
        "point": 0,
        "steps": 8,
        "unmatched": -0.09,
        "unmoved": 0.5,
        "null_mean": 0,
        "null_low": -0.2,
        "null_high": 0.2,
    }
    rows = [
        {"class": "a", "other": "b", "measure": "cosine", "value": 0.89, "p_holm": 0.01},
        {"class": "a", "other": "c", "measure": "cosine", "value": 0.1, "p_holm": 0.5},
        {"class": "a", "other": "b", "measure": "transfer", "value": 1.0, "p_holm": 0.01},
        {"class": "b", "other": "a", "measure": "transfer", "value": 0.2, "p_holm": 0.6},
        {"class": "a", "other": "a", "measure": "cosine", "value": 0.01, "p_holm": 0.6},
    ]
    ways, moved, within = section_of_shapes.displacement_findings(pd.DataFrame([same | row for row in rows]))
    assert ways == (
        "At the embedding, the way to the next member goes as that of the same numbers in another class in 1 of 2 "
        "pairs of classes; the largest mean cosines: a and b 0.89 (random orders \u22120.20 to 0.20, all other pairs "
        "of steps \u22120.09, 8 steps)."
    )
    assert "in 1 of 2 directions: b by that of a 100 % (unmoved 50 %, random orders up to 20 %)" in moved
    assert within.endswith("0.01 to 0.01: no direction is next for all steps.")
    assert section_of_shapes.displacement_findings(pd.DataFrame(columns=of_displacements.COLUMNS))[0].startswith(
        "No two classes"
    )


def test_sentences_about_patches_need_more_than_every_random_order_and_an_interval_above_their_mean():
    table = pd.concat(
        [patch_rows("days", (0, 1)), patch_rows("months", (0, 1), 0.7, 0.35), patch_rows("a", (0, 1), 0.5)]
    )
    first, days, months, third = section_of_shapes.patch_findings(table)
    assert first == "The answer follows 1 of 3 shapes more than the same shapes of random orders."
    assert days == (
        "Days, circle (2 dimensions, 50 % of the members' variance, after 1 block): moving all members within it "
        "obtains 70 % [60, 80] of what their tokens do (8 prompts), more than the same shape of 19 random orders (40 "
        "%, 20 to 60); the whole difference 100 %, first components 65 %, random subspaces 20 %."
    )
    assert "not surely more than" in months and "not surely more than" in third
    assert section_of_shapes.patch_findings(pd.DataFrame(columns=of_patches.COLUMNS))[0].startswith("No task's prompts")


def test_a_study_without_the_analysis_has_no_section():
    from types import SimpleNamespace

    assert not section_of_shapes.section(SimpleNamespace(tables={})).shown
    of = {name: tables("small")[name] for name in ("shapes", "displacements", "shape_patches")}
    assert section_of_shapes.section(SimpleNamespace(tables=of)).first.startswith("Around a circle, unseen members")
