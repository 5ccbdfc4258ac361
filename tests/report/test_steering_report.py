"""The figure and the section about steering, from synthetic tables."""

import re

import numpy as np
import pytest
from matplotlib.patches import Rectangle

import steering_tables
from atlas.report import style
from atlas.report.figures import steering as figure
from atlas.report.sections import steering as section
from drawings import check_written, texts
from figure_tables import COLOURS


def drawn(tables):
    return figure.draw(tables["steering"], tables["steering_side_effects"], COLOURS, "viridis")


@pytest.fixture(scope="module")
def tables():
    return steering_tables.made()


@pytest.mark.slow
def test_figure_is_written_and_repeats_byte_for_byte(tmp_path):
    small = steering_tables.made((0, 2), (1, 2))
    small = {name: table[table["source"] == "numerals"] for name, table in small.items()}
    check_written([drawn(small), drawn(small)], tmp_path)


def test_maps_hold_held_out_success_and_the_chosen_cell_is_framed(tables):
    made = drawn(tables)
    first, second = made.axes[:2]
    rows = tables["steering"]
    rows = rows[(rows.source == "numerals") & (rows.method == "difference of means") & (rows.split == "held_out")]
    for ax, metric in ((first, "top1"), (second, "class_top1")):
        expected = rows[rows.metric == metric].sort_values(["layer", "coefficient"])["value"]
        np.testing.assert_allclose(np.ravel(ax.collections[0].get_array()), expected)
        (frame,) = (patch for patch in ax.patches if isinstance(patch, Rectangle))
        assert frame.get_xy() == (0.5, 0.5), "the second layer and the second coefficient"
    assert [t.get_text() for t in second.texts].count("100") == 1
    assert any("of one class" in t for t in texts(made)), "next and previous have the same members"


def test_marks_stand_where_the_table_says_beside_random_ones(tables):
    ax = drawn(tables).axes[2]
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert labels == [
        "unsteered",
        "difference of means, layer 2",
        "residual swap, layer 2",
        "circuit swap (5 heads)",
        "all heads swap (48 heads)",
        "target prompts",
    ]
    points = {(float(x.get_xdata()[0]), float(y)) for x in ax.lines for y in x.get_ydata() if x.get_marker() in "os"}
    assert {(100.0, 1.17), (0.0, 0.83), (80.0, 2.83), (90.0, 4.83)} <= {(x, round(y, 2)) for x, y in points}
    bars = [line for line in ax.lines if line.get_linewidth() > 3]
    assert len(bars) == 4 and list(bars[0].get_xdata()) == [5, 20]


@pytest.mark.slow
def test_a_large_study_keeps_to_the_page():
    large = steering_tables.made(range(12), range(1, 14), ("agreement", "capitals"))
    made = drawn(large)
    assert made.get_size_inches()[0] <= style.PAGE + 0.01
    assert not [t for t in made.axes[0].texts if t.get_text().isdigit()], "cells too small for numbers have none"
    assert drawn(steering_tables.made(empty=True)).texts


def test_sentences_say_what_beats_random_directions_and_what_does_not(tables):
    found = section.findings(tables["steering"], tables["steering_side_effects"])
    assert "some member of the target's class in 1 of 1 pair (100.0 % of the prompts)" in found[0]
    assert "the target's next member in 0 of 2 pairs (0.0 % of the prompts)" in found[0]
    assert "those of random heads in 2 of 2 pairs (80.0 % of the prompts)" in found[0]
    first = next(s for s in found if s.startswith("Numerals to number words, 8 held-out prompts"))
    assert "at layer 2, times 1 (chosen on the prompts searched on)" in first
    assert re.search(
        r"class on top on 100.0 % \[90.0, 100.0\] of the prompts \(random directions 5.0 % in the mean", first
    )
    assert "the right member on 0.0 % [0.0, 10.0] of the prompts" in first and "The model is right on 90.0 %" in first
    assert "with classes shuffled reach 10.0 % at most" in first
    second = next(s for s in found if s.startswith("Number words to number words decreasing"))
    assert "class" not in second.split("; vectors")[0] and "The model itself hardly does the target" in second
    assert "repeated words moves by 0.10" in found[2] and "at most), its loss by" in found[2]
    more = steering_tables.made(member=0.6)
    found = section.findings(more["steering"], more["steering_side_effects"])
    assert "next member in 1 of 2 pairs (0.0 to 60.0 % of the prompts)" in found[0]


def test_samples_stand_in_a_table_and_a_study_without_pairs_says_so(tables):
    shown = section.table(tables["steering_samples"])
    assert shown["rows"][0] == ["numerals", "number words", "2, 1", "Cup in 1.\u23ceHat in", "two", " 2.", " two."]
    empty = steering_tables.made(empty=True)
    (said,) = section.findings(empty["steering"], empty["steering_side_effects"])
    assert said.startswith("Nothing was steered") and section.table(empty["steering_samples"]) is None
