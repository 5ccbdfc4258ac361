"""Figures and sentences on index probes and on the tuned lens, from synthetic tables."""

import numpy as np
import pandas as pd
import pytest

from atlas.core.multiple import corrected
from atlas.geometry import read_names as names
from atlas.report import style
from atlas.report.figures import probes as probe_figure
from atlas.report.figures import tuned_lens as lens_figure
from atlas.report.sections import probes as probe_section
from atlas.report.sections import tuned_lens as lens_section
from atlas.report.sections.study import Study
from drawings import check_written
from figure_tables import COLOURS

CLASSES = {"numerals": 30, "number_words": 20, "months": 12, "days": 7}
LABELS = {"mod 10": 0.1, "mod 5": 0.2, "mod 2": 0.5, "index": 0.0}
TASKS = ["numerals", "number_words", "months"]


def probes_table(points=7, carried=("mod 10",), seed=0):
    """Probes that read the labels ``carried`` surely in all classes but days, from the second point on."""
    rng, rows = np.random.default_rng(seed), []
    sizes = CLASSES | {names.ALL: sum(CLASSES.values()), names.BEYOND: 32}
    for label, chance in LABELS.items():
        metric = names.CORRELATION if label == names.INDEX else names.ACCURACY
        for point in range(points):
            for tested_on, members in sizes.items():
                if tested_on == names.BEYOND and label == names.INDEX:
                    continue
                read = label in carried and point > 0 and tested_on != "days"
                value = 0.8 + 0.1 * rng.random() - 0.01 * point if read else chance + 0.05 * rng.random()
                base = {"model": "m", "point": point, "label": label, "tested_on": tested_on, "metric": metric}
                base |= {"chance": chance, "members": members, "shuffles": 2000}
                null = {"null_median": chance, "null_high": chance + 0.1, "p": 1 / 2001 if read else 0.4}
                whole = {"value": 0.97, "ci_low": 0.94, "ci_high": 0.99, "trained_on": names.ALL_CLASSES}
                own = {"value": value, "ci_low": value - 0.1, "ci_high": min(1, value + 0.1)}
                rows.append(base | own | null | {"trained_on": names.OTHERS})
                if tested_on != names.BEYOND:
                    rows.append(base | whole | {"null_median": np.nan, "null_high": np.nan, "p": np.nan})
    made = pd.DataFrame(rows)
    family = made["tested_on"].where(made["tested_on"].isin([names.ALL, names.BEYOND]), "by class")
    return corrected(made, made["label"] + ", " + family)


def lens_table(layers=6, tasks=TASKS, since=2, right=True):
    """The tuned lens is nearer than any constant from ``since`` layers on, the logit lens from the last but one."""
    rows = []

    def add(task, lens, metric, point, value, width=0.1):
        name = f"resid_pre {point}" if 0 <= point < layers else "resid_post" if point == layers else "any"
        interval = {"value": value, "ci_low": value - width, "ci_high": value + width}
        keys = {"model": "m", "task": task, "point": point, "name": name, "lens": lens, "metric": metric}
        rows.append(keys | interval | {"prompts": 40, "split": "held_out"})

    for task in tasks:
        add(task, names.CONSTANT, "kl", names.NO_POINT, 3.0)
        for lens, begins in ((names.TUNED, since), (names.LOGIT, layers - 1)):
            add(task, lens, names.LEADS_FROM, names.NO_POINT, begins + 0.5 if right else np.nan)
        for point in range(layers + 1):
            tuned = 3.02 if point < since else 2.0 * (layers - point) / layers
            logit = 4.0 * (layers - point) if point < layers else 0.0
            for lens, kl, begins in ((names.TUNED, tuned, since), (names.LOGIT, logit, layers - 1)):
                add(task, lens, "kl", point, kl, 0.1 if point < layers else 0.0)
                for metric in names.METRICS[1:]:
                    add(task, lens, metric, point, 0.9 if point >= begins else 0.02, 0.02)
            add(task, names.LESS_LOGIT, "kl", point, tuned - logit, 0.1 if point < layers else 0.0)
            add(task, names.LESS_CONSTANT, "kl", point, tuned - 3.0)
    return pd.DataFrame(rows)


def training_table(layers=6):
    return pd.DataFrame({"point": range(layers), "texts": 300, "trained": 2104, "aside": 96})


DRAWN = {
    "probes": lambda points=7: probe_figure.draw(probes_table(points), COLOURS, "RdBu"),
    "no probes": lambda points=7: probe_figure.draw(probes_table().head(0), COLOURS, "RdBu"),
    "lens": lambda points=7: lens_figure.draw(lens_table(points - 1), TASKS, COLOURS),
    "lens of many tasks": lambda points=7: lens_figure.draw(
        lens_table(points - 1, [*TASKS, "days", "letters"]), [*TASKS, "days", "letters"], COLOURS
    ),
}


# ---- figures -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("figure", "points"), [("probes", 7), pytest.param("lens", 4, marks=pytest.mark.slow)])
def test_figure_is_written(figure, points, tmp_path):
    check_written([DRAWN[figure](points)], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("points", [7, 31])
@pytest.mark.parametrize("figure", DRAWN)
def test_figure_keeps_to_the_page_and_repeats_byte_for_byte(figure, points, tmp_path):
    made = DRAWN[figure](points)
    assert made.get_size_inches()[0] <= style.PAGE + 0.01
    check_written([made, DRAWN[figure](points)], tmp_path)


def test_maps_hold_scores_above_chance_and_a_dot_where_they_are_sure():
    table = probes_table()
    made = probe_figure.draw(table, COLOURS, "RdBu")
    maps = [ax for ax in made.axes if ax.get_xlabel() == "layers passed"]
    assert len(maps) == len(LABELS)
    own = table[(table["label"] == "mod 10") & (table["trained_on"] == names.OTHERS)]
    wide = own.assign(above=probe_figure.above_chance).pivot(index="tested_on", columns="point", values="above")
    np.testing.assert_allclose(maps[0].collections[0].get_array(), wide.loc[list(CLASSES)])
    dots = [len(ax.collections[1].get_offsets()) if len(ax.collections) > 1 else 0 for ax in maps]
    assert dots == [3 * 6, 0, 0, 0]
    assert probe_figure.above_chance(pd.DataFrame({"value": [0.5, 0.75, 1], "chance": 0.5})).tolist() == [0, 0.5, 1]


def test_a_lens_is_nearer_than_the_mean_answer_where_that_is_sure():
    table = lens_table(since=3)
    assert lens_figure.nearer(table[table["task"] == "months"]) == {3, 4, 5, 6}
    ax = lens_figure.draw(table, TASKS, COLOURS).axes[0]
    assert ax.get_yscale() == "log" and ax.get_title("left") == "numerals"


# ---- sentences -----------------------------------------------------------------------------------------------
def test_what_carries_over_is_said_with_its_null_and_correction():
    first, *others = probe_section.findings(probes_table())
    assert first.startswith(
        "A linear probe that never saw a member's class reads the index modulo 10 (of 69 members of 4 classes, each "
        "left out in turn): best after "
    )
    assert "chance 10 %, 95 % of shuffled probes below 20.0 %; p < 0.001" in first
    assert "2000 shuffled probes can give; 0.0035 corrected for 7 tests" in first
    assert others[0].startswith("The index modulo 5: surely read at no point, best after")
    assert "with other contexts of the class trained on, 97.0 % [94.0, 99.0]" in others[0]
    assert "The index: surely read at no point" in others[2] and "correlation 0.0" in others[2]
    assert (
        "Beyond ten, where an index and its last digit differ" in others[3] and "surely at 6 of 7 points" in others[3]
    )
    assert others[4].startswith(
        "Class by class, corrected over points and classes, the index modulo 10 is surely read in"
    )
    assert others[4].endswith("; not in days.")


def test_what_carries_nowhere_is_said_as_plainly():
    sentences = probe_section.findings(probes_table(carried=()))
    assert sentences[0] == (
        "No linear probe surely reads the index modulo 10, the index modulo 5, the index modulo 2 and the index of "
        "members of a class that it never saw (of 69 members of 4 classes, each left out in turn)."
    )
    assert sentences[1].startswith("The index modulo 10: surely read at no point") and "p = 0.4" in sentences[1]
    assert sentences[-1].endswith("is surely read in none.")
    both = probe_section.findings(probes_table(carried=("mod 10", "index")))[0]
    assert "reads the index modulo 10 and the index (of" in both and "): the index modulo 10 best after" in both
    assert probe_section.findings(probes_table().head(0))[0].startswith("Fewer than two classes have members")


def test_where_the_answer_leads_is_said_beside_the_logit_lens():
    first, *tasks, basis = lens_section.findings(lens_table(), training_table(), TASKS)
    assert (
        "after so many of 6 layers" in first and "(prompts held out): numerals 2.5 [2.4, 2.6] (logit lens 5.5" in first
    )
    assert tasks[2] == (
        "Months: after 3 of 6 layers the tuned lens is 1.00 [0.90, 1.10] nats (KL) from the model's answer, the logit "
        "lens 12.00 [11.90, 12.10], and the best that is the same for every prompt 3.00 [2.90, 3.10]; it is "
        "surely nearer than that from 2 layers on, and than the logit lens at 6 of 6 points."
    )
    assert "300 texts of the study's own" in basis and "2200 positions" in basis


def test_a_lens_that_reads_nothing_and_a_model_that_is_never_right_are_said():
    table = lens_table(since=9, right=False)
    table.loc[table["lens"] == names.LESS_CONSTANT, ["value", "ci_low", "ci_high"]] = [0.0, -0.1, 0.1]
    first, task, *_ = lens_section.findings(table.assign(split=names.HALF), training_table(), TASKS)
    assert "(every other prompt): numerals: never first in the end" in first
    assert "it is never surely nearer than that" in task


def study_with(**tables):
    return Study(tables=tables, info={}, circuits={}, model={}, left_out={}, settings={}, provenance={})


def test_a_study_without_them_has_no_such_sections():
    assert not probe_section.section(study_with()).shown and not lens_section.section(study_with()).shown
    made = study_with(probes=probes_table(), tuned_lens=lens_table(), tuned_lens_training=training_table())
    for module in (probe_section, lens_section):
        section = module.section(made)
        assert section.shown and section.first and section.note
