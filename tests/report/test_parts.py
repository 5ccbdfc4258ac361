"""Figures and sentences about directions and neurons, from tables whose content is known."""

import functools

import pandas as pd
import pytest

from atlas.report import style
from atlas.report.figures import directions, neurons
from atlas.report.sections import directions as of_directions
from atlas.report.sections import neurons as of_neurons
from conftest import every_other
from drawings import check_written, texts
from figure_tables import COLOURS
from part_tables import LEAD, OF, TASKS, direction_tables, neuron_tables
from summaries import Study

CLEAN = pd.DataFrame({"split": ["held_out"]})


def draw(kind, tables):
    return {"directions": directions, "neurons": neurons}[kind].draw(
        **tables, main_tasks=TASKS, colours=COLOURS, diverging="RdBu"
    )


TABLES = {"directions": direction_tables, "neurons": neuron_tables}


@functools.cache
def sure(kind):
    """One drawing for all tests that look at it."""
    return draw(kind, TABLES[kind]())


@pytest.mark.parametrize("kind", every_other(list(TABLES)))
def test_figure_is_written(kind, tmp_path):
    made = sure(kind)
    assert made.get_size_inches()[0] <= style.PAGE + 0.01
    check_written([made], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TABLES)
def test_figure_repeats_byte_for_byte(kind, tmp_path):
    check_written([draw(kind, TABLES[kind]()) for _ in range(2)], tmp_path)


@pytest.mark.parametrize("kind", TABLES)
def test_a_study_without_parts_says_so(kind, tmp_path):
    tables = {name: table.head(0) for name, table in TABLES[kind]().items()}
    made = draw(kind, tables)
    assert any(text.startswith("No ") for text in texts(made))
    check_written([made], tmp_path)


def test_losses_stand_in_the_order_of_attribution_and_a_star_marks_the_tested_one():
    ax = sure("directions").axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["all", f"{LEAD}*", "0"]
    assert ax.collections[-1].get_offsets()[:, 0].tolist() == pytest.approx([2.0, 1.8, 0.2])
    ax = draw("directions", direction_tables(sure=False)).axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["all", f"{LEAD}", "0"]


def test_the_map_of_next_has_the_whole_head_first():
    made = sure("directions")
    (ax,) = (ax for ax in made.axes if ax.get_xlabel() == "direction")
    grid = ax.collections[0].get_array()
    assert grid.shape == (2, 6)
    assert grid[0].tolist() == pytest.approx([1.0, 0.1 / 0.9, 0, 0.8 / 0.9, 0.1 / 0.9, -0.1 / 0.9])
    assert sum(len(c.get_offsets()) for c in ax.collections[1:]) == 2, "of months the whole and one direction are sure"


def test_tokens_of_the_first_directions_are_said_with_their_labels():
    said = texts(sure("directions"))
    assert "reads May  June  July  (months*)" in said
    assert "writes June  \\$  \u25a1  July  (mixed*)" in said
    assert directions.clip("a  " * 60).endswith("\u2026") and len(directions.clip("a  " * 60)) <= directions.CLIPPED + 2


def test_curves_hold_the_table_and_the_smallest_set():
    made = sure("neurons")
    none, found = made.axes[:2]
    assert "no effect to carry" in [t.get_text() for t in none.texts]
    assert found.lines[1].get_ydata().tolist() == pytest.approx([2 * (1 - 0.1 / n) for n in (1, 2, 4, 8, OF)])
    assert [t.get_text() for t in found.texts] == ["1*"]


def test_activations_start_with_the_corrupted_mean():
    ax = sure("neurons").axes[2]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["corrupted", "March", "April", "May"]
    assert ax.collections[0].get_array()[0].tolist() == pytest.approx([1.0, 0.0, 0.2, 0.4])
    assert ax.get_yticklabels()[0].get_text() == f"m2:{LEAD}*"


# ---- sentences ------------------------------------------------------------------------------------------------
def test_the_direction_that_carries_most_is_named_with_its_controls():
    made = direction_tables()
    first, *others = of_directions.ablation_findings(made["direction_ablations"], "prompts held out")
    assert "surely more than these in 4 of 4 cases" in first and "99 random directions" in first
    assert "direction 2 of 1.2 on months: 1.80 [1.70, 1.90] of the 2.00 [1.90, 2.10] logits" in first
    assert "random 0.05 [\u22120.10, 0.20], p = 0.02" in others[0] and others[0].startswith("Months: ")
    found = of_directions.next_findings(made["direction_next"])
    assert "1 head on 2 classes" in found[0] and "1.2 (months)" in found[0]
    assert "direction 2 of 1.2 89 % on months" in found[1]
    (said,) = of_directions.label_findings(made["directions"])
    assert "Of 18 lists" in said and "direction 0 of 1.2 (next member)" in said and "(months)" in said


def test_nothing_is_said_to_be_found_where_nothing_is():
    made = direction_tables(sure=False)
    found = of_directions.ablation_findings(made["direction_ablations"], "prompts")
    assert "in 0 of 4 cases" in found[0] and len(found) == 1
    assert "none surely writes the next member" in of_directions.next_findings(made["direction_next"])[0]
    assert "read: none; written: none" in of_directions.label_findings(made["directions"])[0]
    empty = {name: table.head(0) for name, table in made.items()}
    assert "writes anything" in of_directions.ablation_findings(empty["direction_ablations"], "prompts")[0]
    assert (
        of_directions.next_findings(empty["direction_next"]) == [] == of_directions.label_findings(empty["directions"])
    )
    sets = neuron_tables(sure=False)["neuron_sets"]
    assert "in 0 of 2 cases" in of_neurons.set_findings(sets, "prompts")[0]
    without = of_neurons.set_findings(sets[sets["component"] == "m1"], "prompts")
    assert without == ["No MLP of the circuits has an effect at the answer position that neurons could carry."]


def test_the_smallest_set_is_named_with_random_ones():
    made = neuron_tables()
    first, *others = of_neurons.set_findings(made["neuron_sets"], "prompts held out")
    assert "in 2 of 2 cases" in first and "99 random sets" in first
    assert "on months: 1 of 16 neurons of m2, 1.80 [1.75, 1.85] of 2.00 [1.95, 2.05] logits" in first
    assert "random sets 0.10 [0.00, 0.20], p = 0.02" in first
    assert "costs 20 to 20 % of what the whole MLP costs, with an interval above 0 in 2 of 2 cases" in others[-1]
    shared, active, written = of_neurons.neuron_findings(made["neurons"])
    assert "m2:2 (months 1.80 [1.70, 1.90] and numerals 1.80 [1.70, 1.90] logits)" in shared and "m2:7" not in shared
    assert "of 4 of 8 neurons surely differ" in active and "m2:2 (months)" in written


@pytest.mark.parametrize("section", [of_directions.section, of_neurons.section])
def test_a_section_is_there_where_the_study_has_its_tables(section):
    def study(tables):
        return Study(tables, {}, {}, {}, {}, {}, {})

    assert not section(study({})).shown
    made = section(study({"cross": CLEAN} | direction_tables() | neuron_tables()))
    assert made.shown and made.first and "prompts held out" in made.first
    assert made.table and all(len(row) == len(made.table["header"]) for row in made.table["rows"])


def test_a_component_that_costs_nothing_as_a_whole_has_no_share():
    made = direction_tables()["direction_ablations"].assign(share=float("nan"))
    assert "costs surely more than these" in of_directions.ablation_findings(made, "prompts")[0]
