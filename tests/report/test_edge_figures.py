"""Figures about edges, evaluation, positions and stability, from synthetic tables."""

import functools
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

import edge_tables
from atlas.core.graph import Graph
from atlas.edges.methods import RANKINGS
from atlas.report import style, wording
from atlas.report.figures import (
    composition,
    edge_curves,
    edge_diagram,
    edge_roles,
    evaluation,
    methods,
    positions,
    stability,
)
from conftest import crossed, every_other
from drawings import check_written
from figure_tables import COLOURS, GROUPED, LARGE, SMALL, study_of


@pytest.fixture(params=[LARGE, SMALL, GROUPED], scope="module")
def study(request):
    return study_of(request.param)


def description(graph: Graph) -> dict:
    """What model.json says of a graph."""
    sizes = {"n_layers": graph.n_layers, "n_heads": graph.n_heads, "n_kv_heads": graph.n_kv_heads}
    return sizes | {"parallel_blocks": graph.parallel}


def composed(study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Random scores of composition, and what is said of the edges of circuits, the last of which keeps none."""
    rng, graph = np.random.default_rng(0), study.graph
    names = [f"{layer}.{head}" for layer in range(graph.n_layers) for head in graph.heads]
    pairs = [(kind, s, r) for kind in "QKV" for s in names for r in names if int(s[0]) < int(r[0])]
    rows = [(*pair, graph.port(*map(int, pair[2].split(".")), pair[0].lower()), rng.random()) for pair in pairs]
    found = pd.DataFrame(rows, columns=["kind", "sender", "receiver", "port", "value"])
    area = {"pairs": 9, "edges": 3, "auroc": 0.7, "null_low": 0.3, "null_high": 0.6, "p": 0.01, "p_holm": 0.04}
    areas = [{"circuit": task, "kind": kind} | area for task in study.main[:-1] for kind in "QKV"]
    areas += [{"circuit": study.main[-1], "kind": kind, "pairs": 9, "edges": 0} for kind in "QKV"]
    return found.assign(baseline=0.1, null_high=0.5), pd.DataFrame(areas, columns=["circuit", "kind", *area])


def make(figure: str, study):
    diagram = {"main_tasks": study.main, "model": description(study.graph), "method": "eap_ig", "colours": COLOURS}
    diagram |= {"roles": study.roles} if hasattr(study, "roles") else {}
    return {
        "edge_diagram": lambda: edge_diagram.draw(study.edge_membership, study.main[-1], **diagram),
        "shared_edges": lambda: edge_diagram.draw(study.edge_membership, "shared", **diagram),
        "edge_curves": lambda: edge_curves.draw(study.edge_curves, study.edge_areas, study.main, COLOURS),
        "edge_roles": lambda: edge_roles.draw(study.edge_roles, study.main, COLOURS),
        "stability": lambda: stability.draw(study.stability, study.stability_summary, study.main, "viridis"),
        "methods": lambda: methods.draw(study.methods, study.main, 20, COLOURS),
        "evaluation": lambda: evaluation.draw(
            study.evaluation, study.completeness, study.minimality, study.main, COLOURS
        ),
        "positions": lambda: positions.draw(study.positions, study.main, "RdBu"),
        "composition": lambda: composition.draw(
            *composed(study), study.edge_membership, study.membership, study.main, "viridis", COLOURS
        ),
    }[figure]()


@functools.cache
def draw(figure: str, study):
    """One drawing for all tests that look at it; none of them changes it."""
    return make(figure, study)


FIGURES = [
    "edge_diagram",
    "shared_edges",
    "edge_curves",
    "edge_roles",
    "stability",
    "methods",
    "evaluation",
    "positions",
    "composition",
]


@pytest.mark.parametrize(("figure", "name"), crossed(FIGURES, [SMALL, GROUPED], step=4))
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


# ---- edge diagram ---------------------------------------------------------------------------------------------
def membership(**circuits):
    rows = [(task, *edge.split("->"), value) for task, edges in circuits.items() for edge, value in edges.items()]
    return pd.DataFrame(rows, columns=["circuit", "sender", "receiver", "value"])


PATH = {"embed->0.1.q": -1.0, "0.1->m1": -2.0, "m1->logits": 0.5}


def test_edges_are_coloured_by_the_circuits_that_hold_them():
    held = membership(a=PATH, b={"0.1->m1": -4.0, "m1->logits": -0.5}, c={"m1->logits": -3.0})
    own = edge_diagram.edges_of(held, "a", ["a", "b", "c"])
    assert dict(zip(own["sender"], own["kin"], strict=True)) == {"embed": "only", "0.1": "some", "m1": "all"}
    shared = edge_diagram.edges_of(held, "shared", ["a", "b", "c"])
    assert shared[["sender", "receiver", "value"]].values.tolist() == [["m1", "logits", -1.0]]
    assert set(edge_diagram.edges_of(held, "a", ["a"])["kin"]) == {"only"}


def curves_of(figure) -> dict:
    return {patch.get_gid(): patch for patch in figure.axes[0].patches if patch.get_gid()}


def test_diagram_draws_every_edge_once_and_only_the_heads_it_touches(study):
    figure = draw("edge_diagram", study)
    rows = study.edge_membership[study.edge_membership["circuit"] == study.main[-1]]
    rows = rows.loc[rows["value"].abs().sort_values(ascending=False, kind="stable").index].head(edge_diagram.SHOWN)
    assert sorted(curves_of(figure)) == sorted(rows["sender"] + "->" + rows["receiver"])
    labels = {t.get_text() for t in figure.axes[0].texts}
    touched = set(rows["sender"]) - {"embed"} | {r.rsplit(".", 1)[0] for r in rows["receiver"] if "." in r}
    heads = {label for label in labels if label.count(".") == 1 and label[0].isdigit() and " " not in label}
    # the legend of widths holds numbers too
    assert {name for name in touched if "." in name} <= heads
    assert len(heads - touched) <= 3


def test_edges_run_down_from_the_sender_to_the_receiver(study):
    for patch in curves_of(draw("edge_diagram", study)).values():
        vertices = patch.get_path().vertices
        assert vertices[0, 1] < vertices[-1, 1]  # y grows downwards


def test_three_inputs_of_a_head_are_three_places():
    edges = {f"embed->0.1.{part}": -1.0 for part in "qkv"}
    figure = edge_diagram.draw(membership(a=edges), "a", ["a"], description(Graph(1, 2, 2)), "eap_ig", COLOURS)
    ends = {name[-1]: patch.get_path().vertices[-1, 0] for name, patch in curves_of(figure).items()}
    assert ends["q"] < ends["k"] < ends["v"]


def test_a_large_circuit_shows_its_strongest_edges_and_says_so(monkeypatch):
    """Scores are -1, -2 and 0.5; the title still counts all edges, heads and MLPs."""
    monkeypatch.setattr(edge_diagram, "SHOWN", 2)
    figure = edge_diagram.draw(membership(a=PATH), "a", ["a"], description(Graph(2, 2, 2)), "eap_ig", COLOURS)
    assert set(curves_of(figure)) == {"embed->0.1.q", "0.1->m1"}
    said = [t.get_text() for t in figure.axes[0].texts]
    assert "Drawn: the 2 strongest edges, 86 % of the sum of all |scores|." in said
    assert any("a: 3 edges of" in text and "1 head, 1 MLP" in text for text in said)


def test_without_scores_the_edges_that_most_tasks_share_are_drawn(monkeypatch):
    monkeypatch.setattr(edge_diagram, "SHOWN", 1)
    held = membership(a=dict.fromkeys(PATH), b={"0.1->m1": None})
    figure = edge_diagram.draw(held, "a", ["a", "b"], description(Graph(2, 2, 2)), None, COLOURS)
    assert set(curves_of(figure)) == {"0.1->m1"}
    assert "Drawn: the 1 most shared edges." in [t.get_text() for t in figure.axes[0].texts]


def test_heads_stand_in_columns_by_their_roles():
    """Roles from left to right by their layers, heads without one last; of several tasks the most frequent counts."""
    edges = {"embed->0.0.v": -1.0, "embed->0.1.v": -1.0, "0.0->1.1.q": -2.0, "0.1->1.0.v": -3.0, "1.0->logits": -1.0}
    rows = [("a", "0.0", "previous token"), ("a", "0.1", "unlabelled"), ("a", "1.0", "copy"), ("a", "1.1", "copy")]
    rows += [("b", "0.0", "previous token"), ("b", "1.0", "successor"), ("c", "1.0", "copy")]
    roles = pd.DataFrame(rows, columns=["task", "component", "label"])
    assert edge_diagram.roles_of(roles, ["a", "b", "c"]) == {"0.0": "previous token", "1.0": "copy", "1.1": "copy"}
    drawn = description(Graph(2, 2, 2))
    figure = edge_diagram.draw(membership(a=edges), "a", ["a"], drawn, "eap_ig", COLOURS, roles)
    at = {t.get_text(): t.get_position()[0] for t in figure.axes[0].texts}
    assert at["0.0"] < at["1.0"] < at["1.1"] < at["0.1"]
    columns = [at[name] for name in ("previous token", "copy", "no role")]
    assert columns == sorted(columns) and at["1.0"] < at["copy"] < at["1.1"]
    figure = edge_diagram.draw(membership(a=edges), "a", ["a"], drawn, "eap_ig", COLOURS)
    assert "no role" not in [t.get_text() for t in figure.axes[0].texts], "without roles nothing is named"


def test_components_without_a_path_have_a_dashed_frame():
    edges = PATH | {"embed->1.0.v": -1.0}
    figure = edge_diagram.draw(membership(a=edges), "a", ["a"], description(Graph(2, 2, 2)), "eap_ig", COLOURS)
    assert "on no path from embeddings to logits" in [t.get_text() for t in figure.legends[0].get_texts()]
    figure = edge_diagram.draw(membership(a=PATH), "a", ["a"], description(Graph(2, 2, 2)), "eap_ig", COLOURS)
    assert "on no path from embeddings to logits" not in [t.get_text() for t in figure.legends[0].get_texts()]


def test_without_scores_all_edges_have_one_width():
    held = membership(a=dict.fromkeys(PATH))
    figure = edge_diagram.draw(held, "a", ["a"], description(Graph(2, 2, 2)), None, COLOURS)
    assert {patch.get_linewidth() for patch in curves_of(figure).values()} == {1.0}
    assert not any("EAP" in t.get_text() for t in figure.axes[0].texts)


def test_an_empty_shared_circuit_says_that_it_is_empty():
    held = membership(a={"embed->m0": -1.0}, b={"m0->logits": -1.0})
    figure = edge_diagram.draw(held, "shared", ["a", "b"], description(Graph(1, 2, 2)), "eap_ig", COLOURS)
    assert any("no edge" in t.get_text() for t in figure.axes[0].texts) and not curves_of(figure)


# ---- curves ---------------------------------------------------------------------------------------------------
def test_curves_show_the_held_out_rows(study):
    table, task = study.edge_curves, study.main[0]
    rows = table[(table["task"] == task) & (table["split"] == "held_out") & (table["metric"] == "faithfulness")]
    ax = draw("edge_curves", study).axes[0]
    drawn = {c.get_label(): c.get_offsets() for c in ax.collections if c.get_label() in edge_curves.SEARCHED}
    for method in edge_curves.SEARCHED:
        np.testing.assert_allclose(drawn[method][:, 1], rows.loc[rows["method"] == method, "value"])
    lines = [line.get_ydata() for line in ax.lines]
    for method, ranking in (("eap", "signed"), ("eap_ig", "absolute")):
        part = rows[(rows["method"] == method) & (rows["ranking"] == ranking)].sort_values("share")
        assert any(len(y) == len(part) and np.allclose(y, part["value"]) for y in lines)


def test_every_ranking_that_a_study_may_ask_for_has_a_line_of_its_own(study):
    assert edge_curves.LINES.keys() == set(RANKINGS)
    table, areas = (t.replace({"ranking": {"signed": "greedy"}}) for t in (study.edge_curves, study.edge_areas))
    figure = edge_curves.draw(table, areas, study.main, COLOURS)
    rows = table[(table["split"] == "held_out") & (table["metric"] == "faithfulness") & (table["ranking"] == "greedy")]
    part = rows[(rows["task"] == study.main[0]) & (rows["method"] == "eap")].sort_values("share")
    lines = [line for line in figure.axes[0].lines if len(line.get_ydata()) == len(part)]
    assert any(np.allclose(line.get_ydata(), part["value"]) for line in lines)
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "greedy ranking" in said and "absolute ranking" in said and "signed ranking" not in said


def test_values_beyond_the_axis_are_counted(study):
    figure, table = draw("edge_curves", study), study.edge_curves
    rows = table[(table["split"] == "held_out") & (table["metric"] == "faithfulness") & (table["method"] != "random")]
    rows = rows[rows["task"] == study.main[0]]
    outside = ((rows["value"] < edge_curves.LOW) | (rows["value"] > edge_curves.HIGH)).sum()
    assert f"{wording.count(outside, 'value')} beyond the axis" in [t.get_text() for t in figure.axes[0].texts]


def test_without_held_out_prompts_the_searched_ones_are_shown():
    table = pd.DataFrame({"split": ["search", "search"], "value": [1, 2]})
    assert len(edge_curves.on_split(table)) == 2
    both = pd.DataFrame({"split": ["search", "held_out"], "value": [1, 2]})
    assert list(edge_curves.on_split(both)["value"]) == [2]


# ---- stability, methods, evaluation, positions ----------------------------------------------------------------
def test_stability_has_a_column_for_each_component_that_any_run_keeps(study):
    rows = study.stability[study.stability["level"] == "component"]
    shares = stability.component_shares(study.stability, study.main, list(edge_tables.FAMILIES))
    assert list(shares.index) == sorted(rows["name"].unique(), key=wording.place)
    assert shares.to_numpy().sum() == pytest.approx(rows["share"].sum())
    labels = [t.get_text() for ax in draw("stability", study).axes for t in ax.get_xticklabels()]
    assert set(shares.index) <= set(labels)


def test_edge_shares_are_sorted(study):
    figure = draw("stability", study)
    steps = [line.get_ydata() for ax in figure.axes for line in ax.lines if ax.get_xlabel().startswith("edges")]
    assert steps and all((np.diff(y) <= 0).all() for y in steps)


def test_groups_of_methods_hold_every_name_once():
    found = pd.DataFrame([("a", "x"), ("a", "y"), ("b", "x"), ("c", "z"), ("c", "x")], columns=["method", "name"])
    order, groups = methods.intersections(found)
    assert order == ["a", "c", "b"]
    assert groups == [(("a", "c", "b"), 1), (("a",), 1), (("c",), 1)]


def test_groups_that_find_no_room_are_counted(study):
    figure = draw("methods", study)
    texts = [t.get_text() for ax in figure.axes for t in ax.texts] + [t.get_text() for t in figure.texts]
    shown = sum(int(t) for t in texts if t.isdigit())
    rest = sum(int(t.split(": ")[1]) for t in texts if "smaller group" in t)
    table = methods.at_threshold(study.methods, 20)
    assert shown + rest == table.groupby(["task", "level"])["name"].nunique().sum()


def test_methods_are_node_searches_of_one_threshold_and_all_of_edges():
    rows = [("component", "layers T=10"), ("component", "layers T=20"), ("component", "eap signed")]
    rows += [("component", "iterative_edges T=40"), ("edge", "iterative_edges T=40"), ("component", "acdc tau=1")]
    table = pd.DataFrame(rows, columns=["level", "method"])
    kept = methods.at_threshold(table, 20)["method"]
    assert list(kept) == [name for _, name in rows if name != "layers T=10"]


def test_metrics_are_scaled_from_empty_to_full():
    rows = [("kl", "full", 0.0), ("kl", "empty", 8.0), ("kl", "nodes", 2.0), ("noising", "nodes", 0.25)]
    table = pd.DataFrame(rows, columns=["metric", "circuit", "value"])
    table = table.assign(ci_low=table["value"] - 1, ci_high=table["value"] + 1)
    placed = evaluation.scaled(table).set_index("metric")
    # less divergence is nearer to the full model, so the interval turns round
    assert placed.loc["kl", ["x", "x_low", "x_high"]].tolist() == [0.75, 0.625, 0.875]
    assert placed.loc["noising", "x"] == 0.25
    flat = table.assign(value=table["value"].where(table["circuit"] != "empty", 0.0))
    assert math.isnan(evaluation.scaled(flat).set_index("metric").loc["kl", "x"])


def test_minimality_bars_fall_and_show_the_table(study):
    table = study.minimality
    rows = table[(table["task"] == study.main[0]) & (table["circuit"] == "nodes")]
    ax = draw("evaluation", study).axes[1]
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == sorted(rows["value"], reverse=True)[: evaluation.NAMED_UP_TO]


def test_positions_show_losses_below_zero_and_mark_what_is_kept(study):
    task, figure = study.main[0], draw("positions", study)
    rows = study.positions[study.positions["task"] == task]
    mesh = figure.axes[0].collections[0]
    assert mesh.norm.vmin == -mesh.norm.vmax
    assert np.ma.sum(mesh.get_array()) == pytest.approx(-rows["value"].sum())
    assert len(figure.axes[0].collections) - 1 == rows["kept"].sum()


def test_weak_components_are_left_out_and_counted():
    rows = pd.DataFrame({"component": [f"0.{i}" for i in range(60)], "role": "last", "value": range(60), "kept": False})
    change, kept, left_out = positions.strongest(rows, ["last", "bos"])
    assert len(change) == positions.ROWS_UP_TO and left_out == 12 and "0.11" not in change.index
    assert not kept["bos"].any()


# ---- less than everything -------------------------------------------------------------------------------------
def test_a_study_without_edges_has_its_figures():
    study = study_of(LARGE)
    nodes = {
        name: getattr(study, name).query("circuit != 'edges'") for name in ("evaluation", "completeness", "minimality")
    }
    figure = evaluation.draw(*nodes.values(), study.main, COLOURS)
    assert len(figure.axes) == 3 * len(study.main)
    levels = {name: getattr(study, name).query("level == 'component'") for name in ("stability", "stability_summary")}
    figure = stability.draw(*levels.values(), study.main, "viridis")
    assert not any(ax.get_xlabel().startswith("edges") for ax in figure.axes)
    figure = methods.draw(study.methods.query("level == 'component'"), study.main, 20, COLOURS)
    assert len(figure.axes) == 3 * len(study.main)


def test_unranked_searches_alone_have_curves():
    study = study_of(LARGE)
    curves = study.edge_curves[study.edge_curves["method"] == "iterative_edges"]
    figure = edge_curves.draw(curves, study.edge_areas.head(0), study.main, COLOURS)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["iterative"]


def test_configured_circuits_stand_beside_the_reported_ones():
    study = study_of(LARGE)
    nodes = study.evaluation[study.evaluation["circuit"] == "nodes"]
    table = pd.concat([study.evaluation, nodes.assign(circuit="from_paper")])
    figure = evaluation.draw(table, study.completeness, study.minimality, study.main, COLOURS)
    assert "circuit: from paper" in [t.get_text() for t in figure.legends[0].get_texts()]


# ---- composition ---------------------------------------------------------------------------------------------
def test_a_pair_is_marked_where_it_exceeds_its_null_and_framed_where_an_edge_is_kept():
    found = pd.DataFrame(
        {"kind": ["Q", "Q"], "sender": ["0.0", "0.1"], "receiver": ["1.0", "1.0"], "port": ["1.0.q", "1.0.q"]}
        | {"value": [0.6, 0.3], "baseline": 0.2, "null_high": 0.5}
    )
    heads = pd.DataFrame({"circuit": "a", "component": ["0.0", "0.1", "1.0", "m0"], "layer": 0, "head": 0})
    area = {"pairs": 2, "edges": 1, "auroc": 0.0, "null_low": 0.0, "null_high": 1.0, "p": 1.0, "p_holm": 1.0}
    areas = pd.DataFrame([{"circuit": "a", "kind": kind} | area for kind in "QKV"])
    edges = membership(a={"0.1->1.0.q": 1.0, "0.0->m1": 1.0}, other={"0.0->1.0.q": 1.0})
    figure = composition.draw(found, areas, edges, heads, ["a"], "viridis", COLOURS)
    ax = next(ax for ax in figure.axes if ax.get_title("left") == "Q: into queries")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0.0", "0.1", "1.0"]
    (framed,) = ax.patches
    assert framed.get_xy() == (0.5, 1.5), "0.1 writes, 1.0 reads; the edge of another task counts for nothing"
    (dots,) = (drawn for drawn in ax.collections if isinstance(drawn, PathCollection))
    assert dots.get_offsets().tolist() == [[0, 2]]
    assert "1 of 2, p = 1" in [text.get_text() for other in figure.axes for text in other.texts]


def test_parts_of_edges_stand_by_size_with_circles_where_they_were_ablated(study):
    figure = edge_roles.draw(study.edge_roles, study.main, COLOURS)
    for task, ax in zip(study.main, figure.axes, strict=False):
        rows = study.edge_roles[study.edge_roles["task"] == task]
        order = rows.reindex(rows["value"].abs().sort_values(ascending=False, kind="stable").index)
        order = order.head(edge_roles.SHOWN)
        assert [bar.get_width() for bar in ax.patches] == pytest.approx(order["value"].tolist())
        labels = [text.get_text() for text in ax.get_yticklabels()]
        assert labels == [edge_roles.label(row) for _, row in order.iterrows()]
        circles = [c for c in ax.collections if isinstance(c, PathCollection)]
        shown = [x for c in circles for x, _ in c.get_offsets()]
        assert shown == pytest.approx(order["exact"].dropna().tolist())
    assert edge_roles.label({"sender": "m0", "receiver": "m1", "start": "last", "end": "last"}) == "m0 \u2192 m1, last"


def test_a_task_without_parts_says_so():
    table = edge_roles.draw(study_of(SMALL).edge_roles.head(0), ["a"], COLOURS)
    assert [text.get_text() for text in table.axes[0].texts] == ["no parts"]
