"""The figure and the sentences about successor heads, from a small synthetic table."""

import dataclasses
import functools

import numpy as np
import pandas as pd

from atlas.report import summary
from atlas.report.figures import successors as figure
from atlas.report.sections import successors as section
from drawings import check_written, texts
from figure_tables import SMALL, study_of
from summaries import summary_of

CLASSES = {"months": 12, "number_words": 20}
LAYERS, HEADS = 2, 3
MEMBERSHIP = pd.DataFrame({"circuit": ["days", "days", "shared"], "component": ["1.1", "m0", "1.1"]})


def table_of(planted=("months",), classes=CLASSES):
    """Head 1.1 is sure for the ``planted`` classes: 75 % with MLP 0, 25 % without it; all else is as random heads."""
    rows = []
    for kind, n in classes.items():
        for target in ("next", "previous", "next_next", "greater"):
            for source in ("mlp0", "without_mlp0"):
                first = source == "mlp0"
                base = {"class": kind, "target": target, "input": source, "members": n}
                base |= {"random_median": 0.08, "random_hi": 0.17}
                heads = [(-1, -1), *np.ndindex(LAYERS, HEADS)]
                for layer, head in (at for at in heads if not first or at[0] != 0):
                    hit = kind in planted and target == "next" and (layer, head) == (1, 1)
                    value = (0.75 if first else 0.25) if hit else 0.33 if layer < 0 else 0.1
                    p = (0.001, 0.004) if hit and first else (0.4, 1.0)
                    row = {"layer": layer, "head": head, "value": value, "p": p[0], "p_holm": p[1]}
                    rows.append(base | row)
    columns = [
        "class",
        "input",
        "target",
        "layer",
        "head",
        "value",
        "members",
        "random_median",
        "random_hi",
        "p",
        "p_holm",
    ]
    return pd.DataFrame(rows, columns=columns)


@functools.cache
def drawn(planted=("months",)):
    return figure.draw(table_of(planted), MEMBERSHIP, ["days"], "viridis")


# ---- the figure ----------------------------------------------------------------------------------------------
def test_figure_is_written_and_repeats_byte_for_byte(tmp_path):
    check_written([drawn(), figure.draw(table_of(), MEMBERSHIP, ["days"], "viridis")], tmp_path)


def test_a_map_for_each_class_and_input_holds_the_table():
    axes = drawn().axes
    assert [ax.get_title(loc="left") for ax in axes[:4:2]] == ["months", "number words"] and len(axes) == 5
    with_mlp, without = (ax.collections[0].get_array() for ax in axes[:2])
    assert with_mlp.mask[0].all() and with_mlp[1].tolist() == [0.1, 0.75, 0.1], "layer 0 comes before MLP 0"
    assert without[1].tolist() == [0.1, 0.25, 0.1] and without[0].tolist() == [0.1] * 3
    assert axes[0].get_xlabel() == "random 8 %\nno head 33 %"


def test_dots_are_where_a_head_is_sure_and_frames_are_of_circuits():
    axes = drawn().axes
    dots = [[tuple(xy) for c in ax.collections[1:] for xy in c.get_offsets()] for ax in axes[:4]]
    assert dots == [[(1, 1)], [], [], []]
    frames = [[tuple(np.add(p.get_xy(), 0.5)) for p in ax.patches] for ax in axes[:4]]
    assert frames == [[(1, 1)]] * 4


def test_many_classes_stand_in_several_lines_on_the_page():
    classes = {f"class_{i}": 10 for i in range(10)}
    made = figure.draw(table_of((), classes), MEMBERSHIP, ["days"], "viridis")
    assert len(made.axes) == 21 and made.get_size_inches()[0] <= 6.81


def test_without_classes_the_figure_says_so():
    assert texts(figure.draw(table_of().head(0), MEMBERSHIP, [], "viridis")) == [
        "No class has enough members of one token each: no head is scored."
    ]


# ---- sentences -----------------------------------------------------------------------------------------------
def test_sentences_name_the_head_its_null_and_whether_it_is_in_a_circuit():
    first, months, words, several = section.findings(table_of(), MEMBERSHIP, ["days"])
    assert first == (
        "By weights alone some head takes members to the next one more often than random heads in 1 of 2 classes, best "
        "months 1.1 (75.0 %); no head is sure for number words."
    )
    assert months == (
        "Months: 1.1 takes 75.0 % of 12 members to the next one; random heads 8.0 % in the median and 17.0 % at their "
        "97.5th percentile (p = 0.001, 0.004 corrected for 3 heads). Without MLP 0 it takes 25.0 %, and MLP 0 without "
        "a head 33.0 %. 1.1 is in the circuit of days."
    )
    assert "(so do 1.1 and 1.2)" in words and "so this head is not sure" in words and "1.0 is in no circuit" in words
    assert several.startswith("No head is sure for more than one class. Sure to favour the previous member: no head.")


def test_one_head_of_several_classes_is_named():
    found = section.findings(table_of(tuple(CLASSES)), MEMBERSHIP, ["days"])
    assert (
        "in 2 of 2 classes" in found[0] and "One head for several classes: 1.1 (months and number words)." in found[-1]
    )


def test_no_sure_head_is_said_plainly():
    first = section.findings(table_of(()), MEMBERSHIP, ["days"])[0]
    assert first == (
        "By weights alone no head is sure to take members to the next one, in any of 2 classes: the highest score, "
        "10.0 % (1.0, months), is not beyond random heads (p = 1 corrected)."
    )


def test_the_section_has_a_row_for_each_class_and_is_left_out_without_the_table():
    study = summary_of(study_of(SMALL))
    without = section.section(study)
    assert not without.shown and not without.first
    full = dataclasses.replace(study, tables=study.tables | {"successors": table_of()})
    made = section.section(full)
    assert [row[0] for row in made.table["rows"]] == ["months", "number words"] and made.table["rows"][0][3] == "75.0 %"
    page = summary.page(full)
    assert "Successor heads" in page and "By weights alone" in page
    assert "By weights alone" not in summary.page(study)


def test_no_scored_class_is_said():
    (said,) = section.findings(table_of().head(0), MEMBERSHIP, [])
    assert said.startswith("No class of members") and section.summary(table_of().head(0), MEMBERSHIP, []) is None
