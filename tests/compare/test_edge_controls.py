"""Edges that searches agree on, kept alone, on planted models, beside the same circuit in other heads."""

import pytest

from atlas.compare import edge_controls
from atlas.compare.edge_parts import BOTH, CORE, edge_parts
from atlas.core.graph import Graph
from atlas.core.statistics import Bootstrap
from atlas.proof import certify, exact
from atlas.store import artifacts

BOOTSTRAP = Bootstrap(100)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    fixture = exact.two_heads("gpt2")
    nodes = certify.make_ablators(fixture.build(tmp_path_factory.mktemp("planted")), fixture.prompts())["mean"]
    ablator = certify.edge_ablator(nodes, "mean")
    return ablator, ablator.graph.circuit(fixture.edges["mean"])


def test_true_edges_keep_the_model_and_no_exchange_does(planted):
    """Head 0.1 feeds 2.2 and 2.2 the logits: in other heads nothing is written to `next`."""
    ablator, true = planted
    rows, notes = edge_controls.control_rows(ablator, {CORE: true}, 12, 0, BOOTSTRAP)
    assert notes == [{"question": "sufficiency", "circuit": CORE, "note": ""}]
    own, *controls = rows
    assert own["draw"] == -1 and own["value"] == pytest.approx(100, abs=1e-3)
    assert len(controls) == 12 and all(row["value"] == pytest.approx(0, abs=1e-3) for row in controls)
    scores = edge_controls.score_rows(ablator_of_two(planted), {CORE: true}, "search", BOOTSTRAP)
    values = {row["metric"]: row["value"] for row in scores}
    assert values == pytest.approx({"percent_of_full": 100, "faithfulness": 1, "top1": 1}, abs=1e-3)


def ablator_of_two(planted):
    """The same with the metrics of the scores."""
    from atlas.circuit.cross import METRICS

    ablator, _ = planted
    ablator.metrics = METRICS
    ablator._memory.clear()
    return ablator


def test_exchanged_circuits_differ_and_are_joined_in_the_same_way(planted):
    ablator, true = planted
    graph = ablator.graph
    made = edge_controls.exchanged_circuits(true, 9, 0)
    assert len(set(made)) == 9 and true not in made
    for other in made:
        assert len(other) == len(true) and graph.on_paths(other) == other
        layers = [sorted(graph.layer_of(e.sender) for e in c) for c in (true, other)]
        assert layers[0] == layers[1]
    whole = graph.all_edges
    assert edge_controls.exchanged_circuits(whole, 9, 0) == [], "no exchange changes the whole graph"


def test_parts_come_from_the_consensus(planted, tmp_path):
    graph = planted[0].graph
    assert isinstance(graph, Graph)
    path = tmp_path / "results" / "m" / "consensus.json"
    edges = {"runs": 3, "core": ["0.1->2.2.v"], "contingent": ["2.2->logits"]}
    artifacts.write_json({"tasks": {"a": {"edges": edges}, "b": {}}}, path, {})
    found = edge_parts(path, "a", graph)
    assert {name: sorted(map(str, c)) for name, c in found.items()} == {
        CORE: ["0.1->2.2.v"],
        BOTH: ["0.1->2.2.v", "2.2->logits"],
    }
    assert edge_parts(path, "b", graph) == {} == edge_parts(path, "elsewhere", graph)
