"""Edges of a whole task on a planted model: scores by every method, searches, and the assessment of what they found."""

import numpy as np
import pandas as pd
import pytest
from test_edges import Case

from atlas.circuit import evaluation, stability
from atlas.circuit.search import SearchSettings
from atlas.core.errors import StudyError
from atlas.core.graph import Edge, parse
from atlas.core.statistics import Bootstrap
from atlas.edges import assessment, attribution, edge_circuits
from atlas.edges.by_method import function_of
from atlas.edges.engine import EdgeAblator
from atlas.edges.methods import CHOSEN, RANKINGS, REPORTED, EdgeSettings
from atlas.edges.stability import highest_scored
from atlas.edges.task_data import edge_ablator
from atlas.prompts.batch import Prompts
from atlas.proof import exact
from planted_tasks import PlantedTask

BOOTSTRAP = Bootstrap(50, seed=3)
SCORED = ("path_patching", "eap", "eap_ig")
SETTINGS = EdgeSettings(methods=("acdc", REPORTED.name, *SCORED), taus=(1.0, 30.0), points=3, rankings=RANKINGS)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return PlantedTask(exact.two_heads("gpt2"), tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def ablator(task):
    return edge_ablator(task.data(), "search")


@pytest.fixture(scope="module")
def truth(task, ablator):
    return task.fixture.named(task.fixture.edges["mean"], ablator.graph)


@pytest.fixture(scope="module")
def found(task, ablator):
    return edge_circuits.search("t", ablator, {20.0: task.fixture.nodes["mean"]}, SETTINGS, BOOTSTRAP)


def test_circuits_of_every_method_are_found_in_a_stated_order(ablator, truth, found):
    *_, content, _ = found
    named = [(c["method"], c["ranking"], c["setting"]) for c in content["circuits"]]
    size = float(len(truth))
    searched = [("node_circuit", "", 20.0), ("iterative_edges", "", 20.0), ("acdc", "", 1.0), ("acdc", "", 30.0)]
    assert named == searched + [(m, r, size) for m in SCORED for r in RANKINGS]
    assert content["total_edges"] == len(ablator.graph.edges) and content["graph"]["n_layers"] == 3
    for entry in content["circuits"][1:]:
        assert parse(entry["edges"]) == truth, entry["method"]
        assert entry["percent_of_full"] == pytest.approx(100, abs=1e-3)
        assert entry["faithfulness"] == pytest.approx(1, abs=1e-5) and entry["without_path"] == []


def test_traces_end_in_their_circuits(ablator, found):
    _, trace, _, content, _ = found
    for entry in content["circuits"][1:4]:
        steps = trace[(trace.method == entry["method"]) & (trace.setting == entry["setting"])]
        gone = {Edge(s, r) for s, r in zip(steps.sender[steps.removed], steps.receiver[steps.removed], strict=True)}
        assert ablator.graph.live(ablator.everything - gone) == parse(entry["edges"])
        assert steps.step.tolist() == list(range(1, len(steps) + 1))
        assert steps.edges.iloc[-1] == len(ablator.everything - gone)


def test_scores_are_means_of_each_method_over_prompts(ablator, found):
    scores, *_ = found
    full = ablator.logit_diff(ablator.everything)
    values = {m: dict(zip(zip(r.sender, r.receiver), r.value)) for m, r in scores.groupby("method")}  # noqa: B905
    assert {m: len(v) for m, v in values.items()} == dict.fromkeys(SCORED, len(ablator.everything))
    for edge in ablator.graph.edges[::17]:
        alone = ablator.logit_diff(ablator.everything - {edge}) - full
        assert values["path_patching"][edge] == pytest.approx(alone.mean(), abs=1e-6)
    for method, points in (("eap", None), ("eap_ig", 3)):
        for edge, score in attribution.scores(ablator, points).items():
            assert values[method][edge] == pytest.approx(float(score.double().mean()), abs=1e-6)


def test_estimates_stand_beside_the_effects_of_edges(ablator, found):
    """`two_heads` is linear in what values carry, so both estimates are the effects, and other scores are rounding."""
    scores, *_, near = found
    assert list(near.columns) == list(edge_circuits.ACCURACY_COLUMNS) and set(near.method) == {"eap", "eap_ig"}
    assert set(near.group) == {"edges", "into q", "into k", "into v", "into MLPs", "into logits"}
    rows = near.set_index(["method", "group", "metric"])
    for method in ("eap", "eap_ig"):
        assert rows.members[method, "edges", "error"] == len(ablator.graph.edges)
        for metric in ("pearson", "slope"):
            assert rows.value[method, "edges", metric] == pytest.approx(1, abs=1e-4)
        assert rows.value[method, "edges", "error"] < 1e-4
    own, exact = (scores[scores.method == m].set_index(["sender", "receiver"]).value for m in ("eap", "path_patching"))
    logits = [name for name in exact.index if name[1] == "logits"]
    assert rows.value["eap", "into logits", "pearson"] == pytest.approx(own[logits].corr(exact[logits]), abs=1e-9)


def test_path_patching_tries_the_edges_that_removals_start_from(task, ablator):
    nodes = {20.0: task.fixture.nodes["mean"]}
    among = ablator.graph.among(nodes[20.0])
    some = EdgeSettings(["path_patching", REPORTED.name], "circuit", 20.0, threshold=30.0, path_patching="start")
    scores, trace, _, content, near = edge_circuits.search("t", ablator, nodes, some, BOOTSTRAP)
    assert {Edge(*pair) for pair in zip(scores.sender, scores.receiver, strict=True)} == among
    assert {Edge(*pair) for pair in zip(trace.sender, trace.receiver, strict=True)} <= among
    assert {c["method"] for c in content["circuits"]} == {"node_circuit", "path_patching", REPORTED.name}
    assert near.empty, "nothing stands beside it"


def test_a_start_that_leaves_nothing_to_remove_is_refused_unless_allowed(ablator, caplog):
    nothing, caplog_level = {20.0: frozenset()}, "WARNING"
    settings = EdgeSettings([REPORTED.name], "circuit", 20.0)
    with pytest.raises(StudyError, match=r"edges.threshold: 20.0, but the edges that t starts from keep only 0.0 %"):
        edge_circuits.search("t", ablator, nothing, settings, BOOTSTRAP)
    with caplog.at_level(caplog_level):
        scores, *_, near = edge_circuits.search("t", ablator, nothing, settings, BOOTSTRAP, allow_negative_clean=True)
    assert "going on" in caplog.text and scores.empty and near.empty


def test_edges_without_a_path_are_dropped_or_kept_as_asked(ablator, truth):
    """To nothing, and from nothing; the score is that of what is reported, beside that with what was dropped."""
    with_dead = truth | {Edge("embed", "2.3.v"), Edge("m0", "logits")}
    for drop, expected in ((True, truth), (False, with_dead)):
        settings = EdgeSettings([REPORTED.name], drop_without_path=drop)
        collected = edge_circuits.EdgeCircuits("t", ablator, settings, BOOTSTRAP)
        collected.add("x", "", 1.0, with_dead)
        (entry,) = collected.circuits
        assert parse(entry["edges"]) == expected and entry["dropped"] == len(with_dead) - len(expected)
        assert entry["without_path"] == ["2.3", "m0"]
        assert entry["percent_of_full"] == pytest.approx(ablator.percent_of_full(expected), rel=1e-6)
        assert entry["percent_with_dropped"] == ablator.percent_of_full(with_dead)


def test_a_search_ends_above_its_floor_without_what_dangles(tmp_path):
    """On a random model, whose components write much that does not depend on the prompt."""
    case = Case("gpt2", tmp_path / "model")
    p = case.prompts
    clean, corrupted = (case.oracle.run(tokens)[0] for tokens in (p.tokens, p.corrupted_tokens))
    clear = Prompts(
        p.tokens, p.corrupted_tokens, (clean - corrupted).argmax(1), (clean - corrupted).argmin(1), p.prompt, p.group
    )
    ablator, found = EdgeAblator(case.model, case.graph, clear, case.edges().substitute), {}
    for drop in (True, False):
        settings = EdgeSettings([REPORTED.name], threshold=30, drop_without_path=drop)
        ((setting, steps),) = function_of(REPORTED.name)(ablator, ablator.everything, settings)
        collected = edge_circuits.EdgeCircuits("t", ablator, settings, BOOTSTRAP)
        *_, last = steps
        collected.add(REPORTED.name, "", setting, last.left)
        (found[drop],) = collected.circuits
        said = ablator.percent_of_full(parse(found[drop]["edges"]))
        assert found[drop]["percent_of_full"] == pytest.approx(said, rel=1e-12)
        assert said > 70
    edges = parse(found[True]["edges"])
    assert edges and ablator.graph.on_paths(edges) == edges and ablator.graph.without_path(edges) == frozenset()
    assert found[False]["without_path"] and found[False]["dropped"] == 0, "here something dangles unless it is dropped"


def test_other_data_gets_the_highest_scored_edges(task, ablator, truth):
    data = task.data()
    search = highest_scored("eap", "signed", len(truth), ablator.graph, "mean", EdgeSettings())
    found = search(data.model, data.prompts("held_out"), data.substitute("held_out"), frozenset())
    assert found == truth
    assert (
        len(
            highest_scored("eap_ig", "absolute", 3, ablator.graph, "mean", EdgeSettings(points=2))(
                data.model, data.prompts("search"), data.substitute("search"), frozenset()
            )
        )
        == 3
    )
    table, summary, content = stability.tables({"component": [], "edge": []}, 3, 4)
    assert table.empty and summary.empty and content == {"families": [], "runs": []}


# ---- the assessment of a task --------------------------------------------------------------------------------
ASSESSED = assessment.AssessSettings(
    4, {"start_threshold": 20.0, "threshold": 40.0}, (0.01, 0.1, 1.0), ("signed",), 2, 0
)


def test_circuits_of_components_and_of_edges_are_assessed_alike(task, truth):
    data = task.data()
    circuits = {"nodes": (task.fixture.nodes["mean"], "node"), "edges": (truth, "edge")}
    tables = assessment.circuits_of_task(data, circuits, ASSESSED, BOOTSTRAP)
    metrics = tables["evaluation"].pivot(index="circuit", columns="metric", values="value")
    assert set(metrics.index) == {"full", "empty", "nodes", "edges"}
    assert metrics.percent_of_full[["full", "nodes", "edges"]].tolist() == pytest.approx([100] * 3, abs=1e-3)
    assert metrics.faithfulness["empty"] == 0 and metrics.noising.isna().tolist() == [True, False, False, False]
    rows = tables["evaluation"].drop_duplicates("circuit").set_index("circuit")
    assert rows.edges.to_dict() == {"full": -1, "empty": -1, "nodes": -1, "edges": len(truth)}
    assert rows.components["nodes"] == rows.components["edges"] == len(task.fixture.nodes["mean"])
    assert set(rows.split) == {"held_out"}
    naive = evaluation.minimality(data.ablator("held_out"), circuits["nodes"][0], BOOTSTRAP)
    own = tables["minimality"][tables["minimality"].circuit == "nodes"]
    assert own.value.tolist() == pytest.approx([row["value"] for row in naive])
    assert set(tables["completeness"].circuit) == set(circuits)


def test_positions_are_those_at_which_the_planted_heads_work(task):
    """Both heads of `two_heads` write at the last position, from which alone the answer is read."""
    slots = len(task.frame.tokens.iloc[0])
    roles = [{"before": list(range(slots - 1)), "last": [slots - 1]}]
    search = SearchSettings(None, [], {"backward": ["mlp", "head"], "forward": ["head", "mlp"]}, 1)
    table = assessment.positions_of_task(task.data(), task.fixture.nodes["mean"], roles, ASSESSED, search, BOOTSTRAP)
    assert len(table) == 2 * len(task.fixture.nodes["mean"])
    assert (table.kept == (table.role == "last")).all()
    assert table.value[table.role == "before"].abs().max() < 1e-3 < table.value[table.role == "last"].min()


def test_curves_are_of_searches_rankings_and_random_edges(task, found):
    scores, *_, content, _ = found
    tables = assessment.curves_of_task(task.data(), content, scores, ASSESSED, BOOTSTRAP)
    curves, areas = tables["edge_curves"], tables["edge_areas"]
    assert set(curves.method) == {"node_circuit", "random", CHOSEN, *SETTINGS.methods} and set(areas.method) == {
        "random",
        *SCORED,
    }
    ranked = curves[(curves.metric == "faithfulness") & (curves.method == "eap")]
    assert ranked.share.tolist() == pytest.approx([n / content["total_edges"] for n in ranked.edges])
    assert ranked.value.iloc[-1] == pytest.approx(1, abs=1e-5) and set(curves.split) == {"held_out"}
    assert np.isfinite(pd.to_numeric(areas.value)).all()
