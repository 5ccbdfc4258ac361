"""Figures about what heads do, from synthetic tables."""

import functools
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.text import Text

import head_tables
from atlas.report import maps, style, wording
from atlas.report.figures import attention, attribution, backup, detectors, lens, ov, patching, patching_scatter
from conftest import crossed, every_other
from drawings import check_written, texts
from figure_tables import COLOURS, GROUPED, HEADLESS, LARGE, SMALL, UNKNOWN, fake_study, study_of


@pytest.fixture(params=[LARGE, SMALL, GROUPED, UNKNOWN], scope="module")
def study(request):
    return study_of(request.param)


def make(figure: str, study):
    task, member_of = study.main[-1], study.membership
    of_task = study.patching[study.patching["task"] == task]
    seen, effects = (study.attention, study.members, member_of), pd.concat(study.effects.values())
    scores = (study.detectors, member_of, study.main)
    return {
        "patching": lambda: patching.draw(of_task, member_of, task, "RdBu"),
        "patching_scatter": lambda: patching_scatter.draw(study.patching, member_of, study.main, "RdBu"),
        "attribution": lambda: attribution.draw(study.attribution, member_of, study.main, COLOURS, "RdBu"),
        "lens": lambda: lens.draw(study.lens, study.lens_lead, study.lens_increments, study.main, COLOURS),
        "attention": lambda: attention.draw(*seen, effects, study.main, "mean", "viridis"),
        "detectors": lambda: detectors.draw(*scores, head_tables.THRESHOLDS, "viridis"),
        "ov": lambda: ov.draw(study.ov, member_of, study.main, head_tables.K, "viridis"),
        "backup": lambda: backup.draw(study.backup, study.main, "RdBu"),
    }[figure]()


@functools.cache
def draw(figure: str, study):
    """One drawing for all tests that look at it; none of them changes it."""
    return make(figure, study)


FIGURES = ["patching", "patching_scatter", "attribution", "lens", "attention", "detectors", "ov", "backup"]


ODD = [pytest.param(figure, name, marks=pytest.mark.slow) for figure in FIGURES for name in (UNKNOWN, HEADLESS)]


@pytest.mark.parametrize(("figure", "name"), [*crossed(FIGURES, [SMALL, GROUPED], step=4), *ODD])
def test_figure_is_written_and_repeats_byte_for_byte(figure, name, tmp_path):
    """Drawn again of the smallest study alone; larger ones take the same steps, more often."""
    study = study_of(name)
    check_written([draw(figure, study)] + [make(figure, study)] * (name == SMALL), tmp_path)


@pytest.fixture(scope="module")
def large():
    """More layers than fit at full height, more heads than fit in one figure, more tasks than fit in one row."""
    tasks = ("days", "months", "numerals", "letters")
    return head_tables.add(fake_study(13, 9, tasks, (), thresholds=(20,), orders=("layers",), model="large"))


@pytest.mark.parametrize("figure", every_other(FIGURES, 1, 4))
def test_a_larger_study_keeps_to_the_page(figure, large):
    made = draw(figure, large)
    width, height = made.get_size_inches()
    assert width <= style.PAGE + 0.01 and height <= 30
    heads = maps.union_heads(large.membership, large.main)
    if figure == "attention":
        left_out = len(heads) - attention.ROWS_UP_TO
        assert left_out > 0 and f"{wording.count(left_out, 'weaker head')} not shown" in texts(made)


# ---- maps -----------------------------------------------------------------------------------------------------
def test_a_grid_holds_the_table_and_nothing_where_there_is_none():
    rows = pd.DataFrame([(0, 1, 3.0), (2, 0, 5.0), (1, -1, 9.0)], columns=["layer", "head", "value"])
    np.testing.assert_array_equal(maps.head_grid(rows), [[np.nan, 3], [np.nan, np.nan], [5, np.nan]])
    assert maps.head_grid(rows.head(0)).shape == (1, 1)


def test_a_map_led_to_white_is_white_at_zero_and_ends_in_the_darkest_colour():
    cmap = maps.from_white("viridis")
    assert style.to_hex(cmap(0.0)) == "#ffffff" and style.to_hex(cmap(1.0)) == "#440154"


def test_names_cover_neither_points_nor_each_other_nor_the_edge():
    """The first points come first: each name takes the nearest free place, and one that finds none is left out."""
    rng = np.random.default_rng(0)
    points = pd.DataFrame(rng.uniform(0, 1, (60, 2)) ** 3, columns=["x", "y"]).assign(name="10.11")
    fig = style.figure(2.5, 2.5, layout=None)
    ax = style.axes_at(fig, 0.2, 0.2, 2, 2, xlim=(-0.05, 1.05), ylim=(-0.05, 1.05))
    maps.label(ax, points, "name", 40)
    fig.draw_without_rendering()
    boxes = [Text.get_window_extent(t) for t in ax.texts]  # of the words, without the line to their point
    assert 12 < len(boxes) <= 40
    at, frame = ax.transData.transform(points[["x", "y"]]), ax.get_window_extent().padded(1)
    for i, box in enumerate(boxes):
        inner = box.padded(-1)
        assert not any(inner.overlaps(other.padded(-1)) for other in boxes[:i])
        assert not any(inner.contains(*point) for point in at)
        assert frame.x0 < inner.x0 and inner.x1 < frame.x1 and frame.y0 < inner.y0 and inner.y1 < frame.y1
    lone = pd.DataFrame({"x": [0.5], "y": [0.5], "name": ["a"]})
    maps.label(ax, lone.head(0), "name", 5)
    fresh = style.axes_at(fig, 0.2, 0.2, 2, 2)
    maps.label(fresh, lone, "name", 0)
    assert not fresh.texts


# ---- patching -------------------------------------------------------------------------------------------------
def test_patching_shows_changes_from_where_each_direction_starts(study):
    task = study.main[-1]
    rows = study.patching[(study.patching["task"] == task) & (study.patching["head"] < 0)]
    meshes = [ax.collections[0] for ax in draw("patching", study).axes[:6]]
    order = [(d, s) for d in ("denoising", "noising") for s in patching.POSITIONS]
    for mesh, (direction, site) in zip(meshes, order, strict=True):
        part = rows[(rows["direction"] == direction) & (rows["site"] == site)].sort_values(["layer", "position"])
        np.testing.assert_allclose(np.ravel(mesh.get_array()), part["value"] - (direction == "noising"))
        assert mesh.norm.vmin == -mesh.norm.vmax


def test_patching_says_what_its_corrupted_prompts_are(study):
    assert any("corrupted prompts are of the corruption shifted" in t for t in texts(draw("patching", study)))


def test_patching_names_members_and_the_last_position(study):
    named = [t.get_text() for ax in draw("patching", study).axes for t in ax.get_xticklabels()]
    assert {"member 1", "member 4", "last"} <= set(named) and "separators" not in named


def test_heads_of_the_circuit_are_outlined(study):
    circuit = maps.circuit_heads(study.membership, study.main[-1])
    ax = draw("patching", study).axes[7]  # after six maps and their colour bar: z, denoising
    assert ax.get_title(loc="left") == "output (z)"
    corners = {tuple(np.round(np.add(p.get_xy(), 0.5)).astype(int)) for p in ax.patches}
    assert corners == {(wording.place(name)[2], wording.place(name)[0]) for name in circuit}


def test_keys_and_values_of_a_group_are_as_wide_as_its_heads():
    axes = {ax.get_title(loc="left"): ax for ax in draw("patching", study_of(GROUPED)).axes}
    assert axes["value, 2 groups"].collections[0].get_array().shape[1] == 2
    assert axes["value, 2 groups"].get_xlim() == axes["output (z)"].get_xlim() == (-0.5, 3.5)


def test_scatter_gives_a_head_the_values_of_its_group():
    rows = [("z", h, 0.1 * h) for h in range(4)] + [("pattern", h, 0.0) for h in range(4)] + [("v", 0, 5), ("v", 1, 7)]
    points = patching_scatter.by_head(pd.DataFrame(rows, columns=["site", "head", "value"]).assign(layer=0))
    assert list(points["v"]) == [5, 5, 7, 7] and list(points["z"]) == pytest.approx([0, 0.1, 0.2, 0.3])


def test_scatter_shows_every_head_once(study):
    ax = draw("patching_scatter", study).axes[0]
    n = study.detectors.drop_duplicates(["layer", "head"]).shape[0]
    assert sum(len(c.get_offsets()) for c in ax.collections) == n


# ---- attribution and lens -------------------------------------------------------------------------------------
def test_attribution_shows_every_write_and_keeps_both_signs(study):
    task = study.main[0]
    rows = study.attribution[(study.attribution["task"] == task) & (study.attribution["part"] == "write")]
    ax = draw("attribution", study).axes[1]
    marks = [c.get_offsets()[:, 1] for c in ax.collections if isinstance(c, PathCollection)]
    shown = np.concatenate(marks)
    np.testing.assert_allclose(sorted(shown), sorted(rows["value"]))
    low, high = ax.get_ylim()
    assert low < rows["value"].min() and high > rows["value"].max()


def test_writes_stand_in_the_order_of_the_model():
    names = ["embed", "positions", "attn 0", "bias 0", "m0", "attn 1", "bias 1", "m1", "final norm bias"]
    at = attribution.places([*names, "unembedding bias"], 2)
    assert sorted(at, key=at.get) == [*names, "unembedding bias"]


def test_lens_shows_the_norm_lens_and_counts_prompts_lost_at_the_end(study):
    figure, task = draw("lens", study), study.main[0]
    rows = study.lens[(study.lens["task"] == task) & (study.lens["lens"] == "norm")].sort_values("point")
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), rows["value"])
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), rows["top1"])
    assert "1 of 12 end with another token" in texts(figure)
    bars = figure.axes[2].patches
    assert sum(b.get_height() for b in bars) == pytest.approx(1 + 11 / 12)


def test_shares_of_prompts_have_the_interval_of_a_share():
    """By hand for 3 of 10 (Wilson 1927); 0 of 10 is told from 0 for sure by no prompts."""
    low, high = lens.share_interval(np.array([0.3, 0.0, 1.0]), 10)
    assert low == pytest.approx([0.10779, 0.0, 0.72247], abs=1e-4)
    assert high == pytest.approx([0.60322, 0.27753, 1.0], abs=1e-4)


# ---- attention, detectors, OV, backup -------------------------------------------------------------------------
def test_attention_has_a_row_for_each_head_and_a_column_for_each_variant(study):
    figure = draw("attention", study)
    shown = texts(figure)
    heads = maps.union_heads(study.membership, study.main)
    named = [t for t in shown if re.fullmatch(r"\d+\.\d+", t)]
    assert len(named) == min(len(heads), attention.ROWS_UP_TO) * len(study.main)
    variants = study.attention["variant"].nunique()
    assert len(figure.axes) == variants * len(study.main) + 1
    assert any("not shown" in t for t in shown) == (len(heads) > attention.ROWS_UP_TO)


def test_attention_maps_hold_the_table(study):
    figure = draw("attention", study)
    shown = {t for t in texts(figure) if re.fullmatch(r"\d+\.\d+", t)}
    rows = study.attention[(study.attention["task"] == study.main[0]) & (study.attention["variant"] == "in order")]
    names = rows["layer"].astype(str) + "." + rows["head"].astype(str)
    expected = rows.loc[names.isin(shown), "value"]
    cells = figure.axes[0].collections[0].get_array().compressed()
    np.testing.assert_allclose(np.sort(cells), np.sort(expected))


def test_the_weakest_heads_are_left_out_first():
    names = [f"0.{i}" for i in range(attention.ROWS_UP_TO + 3)]
    kept = attention.strongest(names, {name: float(i) for i, name in enumerate(names)})
    assert kept == names[3:]


def test_detector_titles_count_the_heads_that_reach_the_threshold_and_name_the_highest(study):
    axes = draw("detectors", study).axes[:3]
    for ax, detector in zip(axes, ("previous", "duplicate", "induction"), strict=True):
        rows = study.detectors[study.detectors["detector"] == detector]
        n, top = (rows["value"] >= 0.5).sum(), rows.loc[rows["value"].idxmax()]
        assert f"{wording.count(n, 'head')} from 0.5" in ax.get_title(loc="left")
        said = f"highest: {top['layer']}.{top['head']}, {wording.interval(top, 2)}"
        assert said in [t.get_text() for t in ax.texts]


def test_maps_stand_in_lines_that_are_as_even_as_can_be():
    assert ov.columns_of([7]) == 7 and ov.columns_of([8, 6]) == 8 and ov.columns_of([9, 0]) == 5


def test_cross_types_that_no_head_writes_are_named_and_not_drawn():
    study = study_of(LARGE)
    own = study.ov[study.ov["task"] == study.main[0]]
    found, weak = ov.panels(own, head_tables.K)
    assert [f"{n} {s}" for n, s in found][:2] == ["own next", "own copy"] and len(found) == 6
    assert weak == ["as number words", "as months"]
    strong = own.assign(value=own["value"].where(own["score"] != "cross:months", 0.9))
    assert ("own", "cross:months") in ov.panels(strong, head_tables.K)[0]
    assert any("no head reaches 20 %: as number words and as months" in t for t in texts(draw("ov", study)))


def test_without_known_members_ov_says_so():
    assert texts(draw("ov", study_of(UNKNOWN))) == ["No head was scored: where members stand is not known."]


def test_backup_leaves_out_the_ablated_head_and_judges_by_the_corrected_p():
    row = {"ablated": "0.0", "layer": 0, "before": 0.1, "after": 0.2, "change": 0.1}
    rows = [
        row | {"head": 0, "p_holm": np.nan},
        row | {"head": 1, "p_holm": 0.01},
        row | {"head": 2, "p_holm": 0.06},
        row | {"head": 3, "change": -0.1, "p_holm": 0.01},
        row | {"head": 4, "change": 1e-4, "p_holm": 0.01},
    ]
    judged = backup.others(pd.DataFrame(rows))
    assert dict(zip(judged["name"], judged["verdict"], strict=True)) == {
        "0.1": "rises",
        "0.2": "",
        "0.3": "falls",
        "0.4": "",
    }


def test_backup_maps_hold_the_changes_of_those_that_surely_change(study):
    """All pairs of the heads shown, and a dot for each sure one; right the largest, with intervals."""
    rows = backup.others(study.backup[study.backup["task"] == study.main[0]])
    changed, ablated = backup.chosen(rows)
    place = rows[rows["name"].isin(changed) & rows["ablated"].isin(ablated)]
    ax = draw("backup", study).axes[0]
    np.testing.assert_allclose(np.sort(ax.collections[0].get_array().compressed()), np.sort(place["change"]))
    dots = sum(len(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection))
    assert dots == (place["verdict"] != "").sum()
    sure = rows[rows["verdict"] != ""].sort_values("change", key=abs, ascending=False).head(backup.NAMED)
    right = next(ax for ax in draw("backup", study).axes if ax.get_title("left") == "largest sure changes")
    shown = [len(t.get_text()) > 0 for t in right.get_yticklabels()]
    assert len(shown) == len(sure)


def test_backup_shows_the_strongest_of_many():
    heads = [f"{la}.{h}" for la in range(8) for h in range(8)]
    rows = [(a, n, (i + 1) * (j + 1) / 100) for i, a in enumerate(heads) for j, n in enumerate(heads) if a != n]
    table = pd.DataFrame(rows, columns=["ablated", "name", "change"]).assign(verdict="rises")
    changed, ablated = backup.chosen(table)
    assert changed == heads[-backup.CHANGED :] and ablated == heads[-backup.ABLATED :]
    assert backup.chosen(table.assign(verdict="")) == ([], heads[: backup.ABLATED])
