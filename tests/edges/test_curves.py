"""Curves of edge circuits: rankings, areas, and what is read back from the searches, against plain loops."""

import numpy as np
import pandas as pd
import pytest

from atlas.core.graph import Edge, Graph
from atlas.core.statistics import Bootstrap
from atlas.edges import curves
from atlas.edges.chosen import methods_of
from atlas.edges.curves import Curves
from atlas.edges.rankings import greedy

GRAPH = Graph(2, 2, 2)
RNG = np.random.default_rng(0)
N = 12
WORTH = {edge: RNG.normal(1, 2, N) for edge in GRAPH.edges}  # what each edge adds to every prompt


class Additive:
    """Stands in for an edge ablator: the score of a circuit is the sum of what its edges add."""

    graph, everything = GRAPH, GRAPH.all_edges

    def logit_diff(self, circuit):
        return 0.5 + sum((WORTH[e] for e in sorted(circuit)), np.zeros(N))


def table(method, edges):
    rows = [e._asdict() | {"method": method, "value": -WORTH[e].mean()} for e in edges]
    return pd.DataFrame(rows)


def made(shares=(0.1, 0.5, 1.0)):
    return Curves(Additive(), Bootstrap(200, 0), {"task": "t"}, shares)


def test_rankings_are_of_methods_that_scored_every_edge():
    shuffled = [GRAPH.edges[i] for i in RNG.permutation(len(GRAPH.edges))]
    scores = pd.concat([table("eap", shuffled), table("path_patching", GRAPH.edges[:5])])
    found = curves.rankings(scores, Additive(), ["signed", "absolute", "greedy"])
    assert list(found) == [("eap", "signed"), ("eap", "absolute"), ("eap", "greedy")]
    means = {e: WORTH[e].mean() for e in GRAPH.edges}
    assert found["eap", "signed"] == sorted(GRAPH.edges, key=lambda e: -means[e])
    assert found["eap", "absolute"] == sorted(GRAPH.edges, key=lambda e: -abs(means[e]))
    assert found["eap", "greedy"] == greedy(means, GRAPH) != found["eap", "absolute"]


def test_random_rankings_are_of_all_edges_and_seeded():
    first, second = (curves.random_rankings(Additive(), 3, 7) for _ in range(2))
    assert first == second and first[0] != first[1]
    assert all(set(ranking) == GRAPH.all_edges for ranking in first)
    assert first != curves.random_rankings(Additive(), 3, 8)


def test_points_and_areas_by_hand():
    shares = (0.1, 0.5, 1.0)
    drawn, order = made(shares), GRAPH.edges
    drawn.ranked("eap", "signed", [order])
    sizes = [max(1, round(share * len(order))) for share in shares]
    points = pd.DataFrame(drawn.points)
    f = points[points.metric == "faithfulness"]
    assert f.edges.tolist() == f.setting.tolist() == sizes
    expected = [sum(WORTH[e].mean() for e in order[:n]) / sum(w.mean() for w in WORTH.values()) for n in sizes]
    assert f.value.tolist() == pytest.approx(expected)
    assert f.value.iloc[-1] == pytest.approx(1)
    areas = pd.DataFrame(drawn.areas).set_index("metric")
    trapezoid = sum((shares[i + 1] - shares[i]) * (expected[i] + expected[i + 1]) / 2 for i in range(2))
    off = [abs(1 - x) for x in expected]
    assert areas.value["cpr"] == pytest.approx(trapezoid)
    assert areas.value["cmd"] == pytest.approx(
        sum((shares[i + 1] - shares[i]) * (off[i] + off[i + 1]) / 2 for i in range(2))
    )
    assert ((areas.ci_low <= areas.value) & (areas.value <= areas.ci_high)).all()


def test_the_area_of_several_draws_is_the_mean_of_their_areas():
    rankings = curves.random_rankings(Additive(), 3, 0)
    together, alone = made(), []
    together.ranked("random", "", rankings)
    for ranking in rankings:
        single = made()
        single.ranked("random", "", [ranking])
        alone.append(pd.DataFrame(single.areas).set_index("metric").value)
    areas = pd.DataFrame(together.areas).set_index("metric").value
    assert areas["cmd"] == pytest.approx(np.mean([a["cmd"] for a in alone]))
    assert sorted({p["setting"] for p in together.points}) == [0, 1, 2]


def test_methods_list_what_each_search_kept():
    nodes = {"task": "t", "circuits": [{"order": "layers", "threshold": 20, "heads": ["0.1"], "mlps": ["m1"]}]}
    edge = str(Edge("0.1", "m1"))
    common = {"edges": [edge], "nodes": ["0.1"], "ranking": ""}
    edges = {
        "circuits": [
            common | {"method": "node_circuit", "setting": 20.0},
            common | {"method": "acdc", "setting": 0.5},
            common | {"method": "eap", "setting": 1.0, "ranking": "signed"},
        ]
    }
    rows = methods_of(nodes, edges)
    assert {r["method"] for r in rows} == {"layers T=20", "acdc tau=0.5", "eap signed"}
    assert [r["name"] for r in rows if r["method"] == "layers T=20"] == ["0.1", "m1"]
    by_eap = {(r["level"], r["name"]) for r in rows if r["method"] == "eap signed"}
    assert by_eap == {("component", "0.1"), ("edge", edge)}
    assert methods_of(nodes, None) == [r for r in rows if r["method"] == "layers T=20"]
