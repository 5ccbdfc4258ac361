"""Figures of nodes, from synthetic tables of two studies: 6 layers x 8 heads, and an odd, tiny one."""

import functools
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.markers import MarkerStyle

from atlas.report import style, wording
from atlas.report.figures import (
    circuit_diagram,
    circuit_size,
    clean_accuracy,
    component_effects,
    controls,
    cross_matrix,
    dataset,
    estimates,
    overlap,
    search_trajectory,
)
from conftest import ROOT, every_other
from drawings import check_written
from figure_tables import COLOURS, LARGE, SMALL, study_of

SCRIPTS = ROOT / "scripts"


@pytest.fixture(params=[LARGE, SMALL], scope="module")
def study(request):
    return study_of(request.param)


def make(figure: str, study):
    """The figure of this name, for the study's last main task where it belongs to one task."""
    task, everything = study.main[-1], pd.concat(study.effects.values())
    of_circuit = {"main_tasks": study.main, "kind": "mean", "colours": COLOURS}
    return {
        "dataset": lambda: dataset.draw(study.prompts[task], study.info[task], COLOURS),
        "clean_accuracy": lambda: clean_accuracy.draw(study.clean, study.tasks, study.main, COLOURS),
        "component_effects": lambda: component_effects.draw(study.effects[task], "mean", "RdBu", COLOURS),
        "estimates": lambda: estimates.draw(*attributed(study.effects[task]), study.effects[task], "mean", COLOURS),
        "search_trajectory": lambda: search_trajectory.draw(
            study.trace[task], study.choice[study.choice["task"] == task], COLOURS
        ),
        "circuit_size": lambda: circuit_size.draw(study.choice, study.main, study.threshold, "viridis"),
        "circuit_diagram": lambda: circuit_diagram.draw(study.membership, study.effects[task], task, **of_circuit),
        "shared_diagram": lambda: circuit_diagram.draw(study.membership, everything, "shared", **of_circuit),
        "overlap": lambda: overlap.draw(
            study.membership, study.overlap, study.typology, study.main, COLOURS, "viridis"
        ),
        "cross_matrix": lambda: cross_matrix.draw(study.cross, study.tasks, study.main, "viridis"),
        "controls": lambda: controls.draw(study.controls, study.controls_summary, study.tasks, COLOURS),
    }[figure]()


@functools.cache
def draw(figure: str, study):
    """One drawing for all tests that look at it; none of them changes it."""
    return make(figure, study)


def attributed(effects):
    """`node_attribution` and `node_accuracy` of estimates that are a known share of each effect, and less of MLPs."""
    rows = effects[effects["metric"] == "logit_diff"]
    tables, near = [], []
    for method, share in (("atp", 0.4), ("relp", 0.9)):
        effect = rows["value"] - rows["clean"]
        value = effect * share * np.where(rows["head"] < 0, 0.5, 1)
        tables.append(rows[["component", "layer", "head", "kind"]].assign(method=method, value=value))
        for kind in rows["kind"].unique():
            for group in estimates.GROUPS:
                own = {"kind": kind, "method": method, "group": group, "members": 3}
                error = 1 - share * (0.5 if group == "MLPs" else 1)
                for metric, found in (("pearson", 1.0), ("error", error)):
                    near.append({**own, "metric": metric, "value": found, "ci_low": found - 0.1, "ci_high": found})
    return pd.concat(tables, ignore_index=True), pd.DataFrame(near)


FIGURES = [
    "dataset",
    "clean_accuracy",
    "component_effects",
    "estimates",
    "search_trajectory",
    "circuit_size",
    "circuit_diagram",
    "shared_diagram",
    "overlap",
    "cross_matrix",
    "controls",
]


# ---- all figures ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [SMALL])
@pytest.mark.parametrize("figure", every_other(FIGURES, step=4))
def test_figure_is_written_and_repeats_byte_for_byte(figure, name, tmp_path):
    """Drawn again of the smallest study alone; larger ones take the same steps, more often."""
    study = study_of(name)
    check_written([draw(figure, study)] + [make(figure, study)] * (name == SMALL), tmp_path)


@pytest.mark.parametrize("figure", every_other(FIGURES, 1, 4))
def test_a_larger_figure_is_laid_out_within_the_page(figure):
    """All but its file is made, and that file is written as for the smaller studies."""
    drawing = draw(figure, study_of(LARGE))
    drawing.draw_without_rendering()
    assert drawing.axes and drawing.get_size_inches()[0] <= style.PAGE + 0.01


def test_a_failed_save_leaves_nothing(tmp_path):
    figure = style.figure(1, 1)
    figure.text(0.5, 0.5, "$\\notacommand$")
    with pytest.raises(ValueError, match="notacommand"):
        style.save(figure, tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())


def test_figures_hold_their_provenance(tmp_path):
    about = {"inputs": {"overlap": "0123abcd"}}
    style.save(style.figure(1, 1), tmp_path / "a.svg", provenance=about)
    for kind in ("svg", "png", "pdf"):
        assert b"0123abcd" in (tmp_path / f"a.{kind}").read_bytes()


def test_an_svg_says_what_it_is_and_shows(tmp_path):
    """Its title and caption are elements of the picture itself, for screen readers; a caption may hold < and &."""
    style.save(style.figure(1, 1), tmp_path / "a.svg", title="Size and score: m", caption="p < 0.05 & so on")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    assert root.get("role") == "img" and [child.tag.rpartition("}")[2] for child in root][:2] == ["title", "desc"]
    assert [root[0].text, root[1].text] == ["Size and score: m", "p < 0.05 & so on"]
    style.save(style.figure(1, 1), tmp_path / "b.svg", caption="no title")
    assert ElementTree.parse(tmp_path / "b.svg").getroot()[0].text == "no title"


def test_a_note_stands_right_below_what_is_drawn():
    """However much of the figure is left empty below."""
    fig = style.figure(3, 3, layout=None)
    style.axes_at(fig, 0.5, 0.2, 2, 1)
    style.write_below(fig, "a note")
    fig.draw_without_rendering()
    box = fig.texts[-1].get_window_extent().transformed(fig.dpi_scale_trans.inverted())
    assert 1.3 < box.y1 < 1.8, "ticks end some 0.2 inches below the axes, at 1.8"


def test_plots_and_summary_import_no_torch():
    modules = [p.stem for p in (SCRIPTS / "atlas" / "report" / "figures").glob("*.py") if p.stem != "__init__"]
    code = (
        f"import sys, atlas.report.summary; from atlas.report.figures import {', '.join(modules)}; print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "transformer_lens", "matplotlib.pyplot"} & set(run.stdout.split())


# ---- one by one -----------------------------------------------------------------------------------------------
def test_members_are_marked_where_they_stand():
    text = "May 1 found in 1. Box 11 found in 11. Cup found in"
    marked = dataset.spans(text, ["1", "11"])
    assert [text[a:b] for a, b in marked] == ["1", "11"]
    assert dataset.spans("nothing here", ["May"]) == []


def test_wrapped_lines_keep_every_word_and_every_mark():
    text = " ".join(f"Box found in member{i}." for i in range(9))
    lines = dataset.wrap(text, dataset.spans(text, [f"member{i}" for i in range(9)]), 40)
    assert " ".join(line for line, _ in lines) == text
    assert max(len(line) for line, _ in lines) <= 40
    assert [line[a:b] for line, marks in lines for a, b in marks] == [f"member{i}" for i in range(9)]


def test_clean_accuracy_shows_the_table(study):
    ax = draw("clean_accuracy", study).axes[0]
    table = study.clean[(study.clean["split"] == "all") & (study.clean["metric"] == "top1")]
    for marks, run in zip(ax.collections[1::2], ("clean", "corrupted"), strict=True):
        rows = table[table["run"] == run].set_index("task").loc[study.tasks]
        np.testing.assert_allclose(marks.get_offsets()[:, 0], 100 * rows["value"])


def test_effect_maps_share_a_scale_centred_at_zero(study):
    kinds = study.effects[study.main[-1]]["kind"].nunique()
    meshes = [mesh for ax in draw("component_effects", study).axes[:kinds] for mesh in ax.collections[:2]]
    for mesh in meshes:
        assert mesh.norm.vcenter == 0 and mesh.norm.vmin == -mesh.norm.vmax
        assert mesh.norm.vmax == meshes[0].norm.vmax
        assert mesh.norm(0.0) == 0.5


def test_effect_map_shows_the_table(study):
    effects = study.effects[study.main[-1]]
    ax = draw("component_effects", study).axes[0]
    rows = effects[(effects["kind"] == "mean") & (effects["metric"] == "percent_of_full")]
    for mesh, part in zip(ax.collections[:2], (rows[rows["head"] >= 0], rows[rows["head"] < 0]), strict=True):
        expected = part.sort_values(["layer", "head"])["value"].to_numpy() - 100
        np.testing.assert_allclose(np.asarray(mesh.get_array()).ravel(), expected)


def test_estimates_stand_against_the_effects_of_the_table(study):
    effects = study.effects[study.main[-1]]
    rows = effects[(effects["kind"] == "mean") & (effects["metric"] == "logit_diff")]
    first, second = draw("estimates", study).axes
    assert [ax.get_title("left") for ax in (first, second)] == ["attribution patching", "RelP"]
    assert first.get_xlim() == second.get_xlim() == first.get_ylim()
    for ax, share in ((first, 0.4), (second, 0.9)):
        for marks, which, of in zip(ax.collections[:2], (rows["head"] >= 0, rows["head"] < 0), (1, 0.5), strict=True):
            effect = (rows["value"] - rows["clean"])[which]
            expected = np.stack([effect * share * of, effect], axis=1)
            np.testing.assert_allclose(np.asarray(marks.get_offsets()), expected)
        said = next(text.get_text() for text in ax.texts if "error" in text.get_text())
        heads, mlps = said.split("\n")
        assert heads == f"heads: r 1.00 [0.90, 1.00], error {1 - share:.2f}"
        assert mlps == f"MLPs: r 1.00 [0.90, 1.00], error {1 - share / 2:.2f}"


def test_trajectory_separates_kept_from_removed(study):
    trace = study.trace[study.main[-1]]
    for i, threshold in enumerate(sorted(trace["threshold"].unique())):
        ax = draw("search_trajectory", study).axes[2 * i]
        rows = trace[(trace["threshold"] == threshold) & (trace["order"] == study.order)]
        for marks, removed in zip(ax.collections[:2], (True, False), strict=True):
            np.testing.assert_allclose(marks.get_offsets()[:, 1], rows.loc[rows["removed"] == removed, "percent"])
        assert ax.lines[0].get_ydata()[0] == 100 - threshold


def test_the_trajectory_of_an_annealed_search_names_its_walk(study):
    trace, choice = study.trace[study.main[0]], study.choice[study.choice["task"] == study.main[0]]
    walked = trace.assign(order="annealed_0", direction=trace["direction"].where(trace["sweep"] < 2, "annealed"))
    figure = search_trajectory.draw(walked, choice.assign(order="annealed_0"), COLOURS)
    assert any(text.get_text() == search_trajectory.WALK for text in figure.axes[0].texts)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][:2] == list(search_trajectory.WITH_WALKS)


def test_circuit_size_has_one_mark_for_each_circuit_and_split(study):
    figure = draw("circuit_size", study)
    rows = study.choice[(study.choice["task"] == study.main[0]) & (study.choice["metric"] == "percent_of_full")]
    marks = [c for c in figure.axes[0].collections if hasattr(c, "get_sizes")]
    assert len({m.get_offsets()[0, 1] for m in marks}) == len(rows), "each stands at a height of its own"
    assert sorted(m.get_offsets()[0, 0] for m in marks) == pytest.approx(sorted(rows["value"]))
    hollow = [m for m in marks if m.get_facecolor()[0, :3].min() == 1]
    assert len(hollow) == (rows["split"] == "search").sum()


def test_circuit_size_marks_what_is_reported_and_what_is_compared(study):
    """The fake study reports what is left of one order's circuit at each threshold, less one head."""
    figure = draw("circuit_size", study)
    starred = [t for ax in figure.axes for t in ax.texts if "\u2605" in t.get_text()]
    assert len(starred) == len(study.main) * study.choice["threshold"].nunique()
    assert {t.get_text() for t in starred} == {f"{wording.words(study.order)}, less 1 \u2605"}
    bands = [p for p in figure.axes[0].patches if style.to_hex(p.get_facecolor()) == style.GHOST.lower()]
    assert len(bands) == 1


def test_circuit_size_names_a_circuit_that_another_search_found():
    row = {"order": "random_0", "threshold": 20, "searched": 10, "candidate": "found", "dropped": ""}
    assert circuit_size.name_of(pd.Series(row)) == "random 0, T = 10 %"
    table = pd.DataFrame(
        [row | {"reported": False}, row | {"reported": True}, row | {"searched": 20, "reported": False}]
    )
    assert list(circuit_size.shown(table).index) == [1, 2], "of another threshold only what is reported"


def test_values_beyond_the_colours_are_marked():
    """An MLP outweighs every head: its cell has a triangle, and the colour bar goes on."""
    effects = study_of(SMALL).effects["days"].copy()
    mlp = (effects["head"] < 0) & (effects["metric"] == "percent_of_full") & (effects["layer"] == 0)
    effects.loc[mlp, ["value", "ci_low", "ci_high"]] = -900.0, -950.0, -850.0
    figure = component_effects.draw(effects, "mean", "RdBu", COLOURS)
    wanted = MarkerStyle("v").get_path()
    marks = [c for ax in figure.axes for c in ax.collections if isinstance(c, PathCollection)]
    shapes = [path.vertices.shape for c in marks for path in c.get_paths()]
    assert wanted.vertices.shape in shapes
    few = component_effects.draw(study_of(SMALL).effects["days"], "mean", "RdBu", COLOURS)
    assert few.axes[0].get_title("left") == "mean ablation"


def test_kinship_counts_the_circuits_that_hold_a_component():
    rows = [("a", "0.0"), ("b", "0.0"), ("c", "0.0"), ("a", "m1"), ("b", "m1"), ("a", "1.2"), ("shared", "0.0")]
    membership = pd.DataFrame(rows, columns=["circuit", "component"])
    assert circuit_diagram.kinship(membership, "a", ["a", "b", "c"]) == {"0.0": "all", "1.2": "only", "m1": "some"}
    assert circuit_diagram.kinship(membership, "shared", ["a", "b", "c"]) == {"0.0": "all"}
    assert circuit_diagram.kinship(membership, "a", ["a"]) == {"0.0": "only", "1.2": "only", "m1": "only"}


def test_diagram_names_every_component_once_and_draws_no_edges(study):
    ax = draw("circuit_diagram", study).axes[0]
    texts = [t.get_text() for t in ax.texts]
    for component in study.effects[study.main[-1]]["component"].unique():
        assert texts.count(component) == 1
    layers = study.effects[study.main[-1]]["layer"].nunique()
    assert len(ax.lines) == layers  # the guides of the layers, all horizontal
    assert all(len(set(line.get_ydata())) == 1 for line in ax.lines)


def test_node_area_grows_with_the_drop():
    small, middle, large = (circuit_diagram.radius(share, 0.25) for share in (0, 0.5, 1))
    assert middle**2 - small**2 == pytest.approx(large**2 - middle**2)
    assert circuit_diagram.radius(-3, 0.25) == small and circuit_diagram.radius(9, 0.25) == large


def test_empty_shared_circuit_is_drawn_and_listed():
    study = study_of(LARGE)
    lone = study.membership[study.membership["circuit"] != "shared"].copy()
    lone["component"] = lone["circuit"].map({t: f"{i}.0" for i, t in enumerate(study.main)})
    lone = lone.drop_duplicates(["circuit", "component"])
    effects = pd.concat(study.effects.values())
    figure = circuit_diagram.draw(lone, effects, "shared", study.main, "mean", COLOURS)
    assert any("empty" in t.get_text() for t in figure.axes[0].texts)
    figure = overlap.draw(lone, study.overlap, study.typology, study.main, COLOURS, "viridis")
    assert "none" in [t.get_text() for ax in figure.axes for t in ax.texts]


def test_intersections_hold_every_component_once(study):
    groups = overlap.intersections(study.membership, study.main)
    listed = [c for _, components in groups for c in components]
    held = study.membership[study.membership["circuit"].isin(study.main)]
    assert sorted(listed) == sorted(held["component"].unique())
    for tasks, components in groups:
        for component in components:
            assert set(held.loc[held["component"] == component, "circuit"]) == set(tasks)


def test_cross_matrix_prints_the_table(study):
    table = cross_matrix.values(study.cross)
    texts = [t.get_text() for t in draw("cross_matrix", study).axes[0].texts]
    assert texts[::2] == [wording.number(v) for v in table["value"]]
    assert texts[1::2] == [
        f"[{wording.number(a)}, {wording.number(b)}]" for a, b in zip(table["ci_low"], table["ci_high"], strict=True)
    ]


def test_controls_show_every_draw_and_say_why_there_are_none(study):
    figure = draw("controls", study)
    shown = sum(len(c.get_offsets()) for ax in figure.axes for c in ax.collections if c.get_label() == "random control")
    assert shown == (study.controls["set"] == "control").sum()
    texts = [t.get_text() for ax in figure.axes for t in ax.texts]
    assert texts.count("no controls") == (study.controls_summary["controls"] == 0).sum()
    assert any("layer 3" in t for t in texts) == (study.controls_summary["controls"] == 0).any()


def test_controls_show_each_circuit_ablated_on_its_own_task(study):
    figure = draw("controls", study)
    labels = [[t.get_text() for t in ax.get_yticklabels()] for ax in figure.axes]
    assert labels[1][: len(study.main)] == [wording.words(task) for task in study.main]
    assert all(label.startswith("shared") for label in labels[1][len(study.main) :])


def test_pairs_are_compared_at_every_level_and_their_type_is_named(study):
    figure = draw("overlap", study)
    titles = [ax.get_title("left") for ax in figure.axes]
    if len(study.main) == 1:
        assert not {"MLPs", "Edges"} & set(titles)
        return
    assert titles[-3:] == ["Heads", "MLPs", "Edges"]
    figure.draw_without_rendering()
    boxes = [ax.title.get_window_extent() for ax in figure.axes[-3:]]
    boxes += [ax._left_title.get_window_extent() for ax in figure.axes[-3:]]
    named = [box for box in boxes if box.width > 0]
    assert not any(a.overlaps(b) for i, a in enumerate(named) for b in named[:i]), "titles do not touch"
    rows = study.overlap[study.overlap["level"] == "edges"].sort_values("shared")
    texts = [t.get_text().split("\n") for t in figure.axes[-1].texts]
    assert sorted(int(t[1].split()[0]) for t in texts) == list(rows["shared"])
    assert {t[-1] for t in texts} == {"undecided"}


def test_effects_of_another_kind_stand_in():
    effects = study_of(SMALL).effects["days"]
    assert style.one_kind(effects, "mean_clean") == "mean"
    assert component_effects.draw(effects, "mean_clean", "RdBu", COLOURS).axes[0].get_title("left") == ("mean ablation")
