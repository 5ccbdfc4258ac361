"""Overlap, its chance correction, and random controls."""

import random
from collections import Counter
from itertools import combinations, permutations, product
from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.circuit.controls import matched_sets, p_value
from atlas.compare.exchange import FLOOR, exchanged
from atlas.compare.overlap import (
    COLUMNS,
    block,
    compare,
    compare_edges,
    compare_models,
    together,
    typologies,
    typology,
)
from atlas.core.chance import hypergeometric, jaccard, layer_matched, overlap_coefficient, tail
from atlas.core.components import Component, all_components, heads, profile
from atlas.core.graph import Edge, Graph, parse


@given(st.integers(1, 7), st.data())
@settings(max_examples=20)
def test_hypergeometric_equals_enumeration(population, data):
    a, b = data.draw(st.integers(0, population)), data.draw(st.integers(0, population))
    counts = np.zeros(min(a, b) + 1)
    for drawn in combinations(range(population), b):
        counts[sum(x < a for x in drawn)] += 1
    assert hypergeometric(population, a, b) == pytest.approx(counts / counts.sum())


@pytest.mark.parametrize("population, a, b", [(3628, 300, 200), (900, 880, 700), (32_491, 40, 2000)])
def test_hypergeometric_of_many_edges_equals_exact_integers(population, a, b):
    """Relative, down to 1e-290: hundreds of logarithms of size 10 add up to an error of 1e-12 at most."""
    total = comb(population, b)
    exact = np.array(
        [comb(a, k) * comb(population - a, b - k) * 10**300 // total / 1e300 for k in range(min(a, b) + 1)]
    )
    found = hypergeometric(population, a, b)
    kept = exact > 1e-280  # 20 digits of the integer quotient
    assert kept.sum() > 20 and found[kept] == pytest.approx(exact[kept], rel=1e-11, abs=0)
    assert (found[~kept] < 1e-279).all()


def test_hypergeometric_of_millions_of_edges_neither_overflows_nor_takes_long():
    found = hypergeometric(1_600_000, 80_000, 70_000)
    assert found.sum() == pytest.approx(1) and found @ np.arange(len(found)) == pytest.approx(3500)


def test_layer_matched_equals_simulation():
    """5 standard errors of 20,000 draws are 0.018 at most."""
    rng, profile_a, profile_b = np.random.default_rng(0), [2, 1, 3], [1, 2, 2]
    found = np.zeros(20_000)
    for i in range(len(found)):
        found[i] = sum((rng.permutation(4)[:b] < a).sum() for a, b in zip(profile_a, profile_b, strict=True))
    exact = layer_matched(4, profile_a, profile_b)
    assert exact.sum() == pytest.approx(1)
    for k, p in enumerate(exact):
        assert abs((found == k).mean() - p) < 0.018


def test_compare_by_hand():
    a = frozenset(map(Component.parse, ["0.0", "0.1", "1.0", "m0"]))
    b = frozenset(map(Component.parse, ["0.0", "1.1", "m0", "m1"]))
    rows = {row["level"]: row for row in compare({"a": a, "b": b}, 2, 2)}
    assert set(rows["heads"]) == set(COLUMNS)
    assert (rows["heads"]["shared"], rows["heads"]["jaccard"], rows["heads"]["overlap_coefficient"]) == (1, 0.25, 0.5)
    assert rows["mlps"]["jaccard"] == 0.5 and np.isnan(rows["mlps"]["p_hypergeometric"])
    assert rows["components"]["shared"] == 2
    # 4 heads, 3 and 2 of them: P(>= 1 shared) = 1 - C(1,2)/C(4,2) = 1; layers: layer 0 shares 1 surely
    assert rows["heads"]["p_hypergeometric"] == pytest.approx(1) and rows["heads"]["p_layer_matched"] == pytest.approx(
        1
    )
    assert rows["heads"]["expected"] == pytest.approx(1 + 0.5)


EDGES = Graph(1, 2, 2)  # 13 edges


def test_blocks_by_hand():
    """Embedding and layer 0 are sender layers of their own; the layer of `logits` is the number of layers."""
    assert Counter(block(edge, EDGES) for edge in EDGES.edges) == {
        (-1, 0, "q"): 2,
        (-1, 0, "k"): 2,
        (-1, 0, "v"): 2,
        (-1, 0, "m"): 1,
        (0, 0, "m"): 2,
        (-1, 1, "logits"): 1,
        (0, 1, "logits"): 3,
    }


def every_match(circuit):
    """All edge circuits of the small graph with as many edges in each block."""
    blocks = {}
    for edge in EDGES.edges:
        blocks.setdefault(block(edge, EDGES), []).append(edge)
    counts = Counter(block(edge, EDGES) for edge in circuit)
    for parts in product(*(combinations(members, counts[key]) for key, members in blocks.items())):
        yield frozenset(edge for part in parts for edge in part)


@given(st.frozensets(st.sampled_from(EDGES.edges)), st.frozensets(st.sampled_from(EDGES.edges)))
@settings(max_examples=40)
def test_chance_of_shared_edges_equals_enumeration(a, b):
    (row,) = compare_edges({"a": a, "b": b}, EDGES)
    assert tuple(row) == COLUMNS and row["level"] == "edges" and row["shared"] == len(a & b)
    matched = np.array([len(a & other) for other in every_match(b)])
    plain = np.array([len(a & frozenset(other)) for other in combinations(EDGES.edges, len(b))])
    assert row["expected"] == pytest.approx(matched.mean())
    assert row["p_layer_matched"] == pytest.approx((matched >= len(a & b)).mean())
    assert row["p_hypergeometric"] == pytest.approx((plain >= len(a & b)).mean())
    # no pair of circuits with these blocks shares more than the smaller count of each block
    most = sum((Counter(block(e, EDGES) for e in a) & Counter(block(e, EDGES) for e in b)).values())
    assert row["p_smallest"] <= row["p_layer_matched"] * (1 + 1e-12)
    assert row["p_smallest"] == pytest.approx(np.mean([len(a & d) == most for d in every_match(b)]))


def test_edges_of_a_model_of_gpt2_small_size_are_compared():
    """Circuits that share what chance gives them: p is neither 0 nor 1, and no coefficient overflows."""
    graph, rng = Graph(12, 12, 12), np.random.default_rng(0)
    circuits = {
        name: frozenset(e for e, x in zip(graph.edges, rng.random(32_491), strict=True) if x < 0.1) for name in "ab"
    }
    (row,) = compare_edges(circuits, graph)
    assert row["expected"] == pytest.approx(325, abs=20) and abs(row["shared"] - row["expected"]) < 90  # 5 deviations
    assert 1e-6 < row["p_layer_matched"] < 1 - 1e-6 and 1e-6 < row["p_hypergeometric"] < 1 - 1e-6


def test_edges_of_another_graph_are_refused():
    with pytest.raises(ValueError, match="not in the graph"):
        compare_edges({"a": frozenset(), "b": parse(["m1->logits"])}, EDGES)
    with pytest.raises(ValueError, match="not in the graph"):
        exchanged(frozenset(), parse(["m1->logits"]), EDGES)


# ---- edges whose heads are exchanged -------------------------------------------------------------------------
GROUPED = Graph(2, 4, 2)


def every_exchange(circuit, graph):
    """The circuit with the heads of each layer in every order that keeps groups together, by names."""
    size = graph.n_heads // graph.n_kv_heads
    orders = [
        [owner * size + i for owner, inside in zip(owners, insides, strict=True) for i in inside]
        for owners in permutations(range(graph.n_kv_heads))
        for insides in product(permutations(range(size)), repeat=graph.n_kv_heads)
    ]
    for chosen in product(orders, repeat=graph.n_layers):

        def moved(name, chosen=chosen):
            if "." not in name:
                return name
            layer, head, *part = name.split(".")
            order = chosen[int(layer)]
            head = f"kv{order[int(head[2:]) * size] // size}" if head[:2] == "kv" else str(order[int(head)])
            return ".".join([layer, head, *part])

        yield frozenset(Edge(moved(e.sender), moved(e.receiver)) for e in circuit)


@pytest.mark.parametrize("seed", range(3))
def test_exchanged_heads_take_their_edges_along(seed):
    """Against every exchange there is, 64 on this graph; 4000 draws are within 5 standard errors of their means."""
    rng = random.Random(seed)
    a, b = (frozenset(e for e in GROUPED.edges if rng.random() < 0.3) for _ in "ab")
    counts = np.array([len(a & other) for other in every_exchange(b, GROUPED)])
    expected, p = exchanged(a, b, GROUPED, draws=4000)
    assert len(counts) == 64 and counts.std() > 0
    assert abs(expected - counts.mean()) < 5 * counts.std() / 4000**0.5
    share = (counts >= len(a & b)).mean()
    assert abs(p - share) < 5 * (share * (1 - share) / 4000) ** 0.5 + 1e-3


def test_what_no_exchange_moves_is_shared_by_chance():
    """Circuits of MLPs alone are the same whatever the heads: p is 1. Two circuits of the same heads: the floor."""
    mlps = parse(["embed->m0", "m0->m1", "m1->logits"])
    assert exchanged(mlps, mlps, GROUPED) == (3.0, 1.0)
    graph = Graph(4, 8, 8)
    heads = parse(
        [f"{layer}.{layer}->logits" for layer in range(4)] + [f"embed->{layer}.{layer}.v" for layer in range(4)]
    )
    expected, p = exchanged(heads, heads, graph)
    assert p == FLOOR and expected == pytest.approx(1, abs=0.15)


def row_of(size_a, size_b, shared, expected=1.0, p=0.5, smallest=0.001, level="heads"):
    union = size_a + size_b - shared
    return {
        "circuit_a": "a",
        "circuit_b": "b",
        "level": level,
        "size_a": size_a,
        "size_b": size_b,
        "shared": shared,
        "jaccard": shared / union if union else 1.0,
        "expected": expected,
        "expected_exchanged": expected,
        "p_layer_matched": p / 2,
        "p_exchanged": p / 2,
        "p_holm": p,
        "p_smallest": smallest,
    }


@pytest.mark.parametrize(
    "row, kind, words",
    [
        (row_of(10, 10, 9), "same members", "Jaccard 0.82 is at least 0.8"),
        (row_of(10, 10, 8, 3.0, 0.01), "shared core with branches", "8 shared, 3.0 expected by chance, p = 0.01"),
        (row_of(10, 10, 8, 3.0, 1e-51), "shared core with branches", "by chance, p < 0.001 (corrected) is below 0.05"),
        (row_of(10, 10, 0), "disjoint", "nothing is shared"),
        (row_of(10, 10, 3, 3.2, 0.6), "disjoint", "3 shared, 3.2 expected"),
        (row_of(10, 10, 4, 3.0, 0.2), "undecided", "p = 0.2 (corrected) is not below 0.05"),
        (row_of(2, 5, 2, 1.5, 0.3, 0.3), "undecided", "no overlap of such circuits could have p below 0.05"),
        (row_of(8, 12, 8, 8.0, 1.0, 1.0), "undecided", "no overlap"),  # full layers: the overlap is forced
        (row_of(0, 5, 0), "undecided", "a circuit is empty"),
        (row_of(0, 0, 0), "undecided", "a circuit is empty"),
    ],
)
def test_types_of_overlap(row, kind, words):
    found, reason = typology(row)
    assert found == kind and words in reason


def test_pairs_are_corrected_level_by_level_and_task_by_task():
    """Heads by the layer-matched p, edges by that with heads exchanged."""
    of = {"heads": "p_layer_matched", "edges": "p_exchanged"}
    rows = [row_of(9, 9, 5, level=level) | {of[level]: p} for level in of for p in (0.02, 0.5)]
    rows.append(row_of(9, 9, 9, level="mlps") | {"p_layer_matched": np.nan})
    found = pd.DataFrame(together(rows))
    assert found["p_holm"].tolist()[:4] == [0.04, 0.5] * 2 and found["tests"].tolist() == [2, 2, 2, 2, 0]
    assert np.isnan(found["p_holm"].iloc[4]) and together([]) == []
    of_tasks = pd.DataFrame(together([row | {"task": str(i)} for i, row in enumerate(rows)]))
    assert of_tasks["p_holm"].tolist()[:4] == [0.02, 0.5] * 2


def test_thresholds_of_types_are_arguments():
    row = row_of(10, 10, 8, 3.0, 0.01)
    assert typology(row, same=0.6)[0] == "same members"
    assert typology(row, alpha=0.01)[0] == "undecided"


def test_types_of_all_pairs():
    """From the tables themselves; levels without a p-value have no type."""
    a = frozenset(map(Component.parse, ["0.0", "0.1", "1.0", "m0"]))
    circuits = {"a": a, "b": a, "c": frozenset(map(Component.parse, ["0.4", "0.5", "m0"]))}
    rows = compare(circuits, 2, 8) + compare_edges({"a": EDGES.all_edges, "b": EDGES.all_edges}, EDGES)
    found = typologies([{"model": "x"} | row for row in rows])
    assert [tuple(row)[:4] for row in found] == [("model", "circuit_a", "circuit_b", "level")] * 4
    assert [(row["circuit_b"], row["level"], row["type"]) for row in found] == [
        ("b", "heads", "same members"),
        ("c", "heads", "disjoint"),
        ("c", "heads", "disjoint"),
        ("b", "edges", "same members"),
    ]


def test_models_of_other_shapes_are_not_compared():
    one = frozenset({Component(0, 0), Component(0)})
    circuits = {("x", "t"): one, ("y", "t"): one, ("z", "t"): one, ("y", "u"): one}
    graphs = {"x": Graph(1, 2, 2), "y": Graph(1, 2, 1), "z": Graph(2, 2, 2)}
    rows, notes = compare_models(circuits, graphs)
    assert {(r["task"], r["circuit_a"], r["circuit_b"]) for r in rows} == {("t", "x", "y")} and len(rows) == 3
    assert len(notes) == 2 and "x (1 layers of 2 heads) and z (2 layers of 2 heads)" in notes[0]
    edges = {key: frozenset() for key in circuits}
    assert compare_models(edges, graphs, edges=True)[0] == []
    rows, notes = compare_models(edges, graphs | {"y": Graph(1, 2, 2)}, edges=True)
    assert [(r["level"], r["circuit_a"], r["circuit_b"]) for r in rows] == [("edges", "x", "y")] and len(notes) == 2


def test_empty_circuits():
    one = frozenset({Component(0, 0)})
    assert jaccard(frozenset(), frozenset()) == 1 and jaccard(one, frozenset()) == 0
    assert overlap_coefficient(one, frozenset()) == 1
    assert tail(np.ones(1), 0) == 1


@st.composite
def circuits(draw):
    n_layers, n_heads = draw(st.integers(1, 4)), draw(st.integers(2, 5))
    return draw(st.sets(st.sampled_from(all_components(n_layers, n_heads)))), n_layers, n_heads


@given(circuits(), st.booleans(), st.integers(0, 5))
@settings(max_examples=100)
def test_controls_match_layers_and_never_are_the_circuit(case, outside, seed):
    circuit, n_layers, n_heads = frozenset(case[0]), case[1], case[2]
    sets, note = matched_sets(circuit, n_layers, n_heads, 20, seed, outside)
    own = frozenset(heads(circuit))
    assert len(set(sets)) == len(sets) <= 20
    assert sets or note.startswith("no control")
    for s in sets:
        assert profile(s, n_layers) == profile(own, n_layers) and s != own
        assert not (outside and s & own)
    if len(sets) < 20 and sets:
        assert note == f"all {len(sets)} possible sets"


def test_controls_are_seeded():
    circuit = frozenset({Component(0, 0), Component(3, 2)})
    assert matched_sets(circuit, 6, 8, 30, 1, True) == matched_sets(circuit, 6, 8, 30, 1, True)
    assert matched_sets(circuit, 6, 8, 30, 1, True) != matched_sets(circuit, 6, 8, 30, 2, True)


def test_p_value_counts_controls_at_least_as_extreme():
    assert p_value(1.0, [2, 3, 4], low_is_extreme=True) == 0.25
    assert p_value(3.0, [2, 3, 4], low_is_extreme=True) == 0.75
    assert p_value(3.0, [2, 3, 4], low_is_extreme=False) == 0.75


def test_a_circuit_stands_at_its_place_among_its_controls():
    import pandas as pd

    from atlas.circuit.controls import summarise

    def rows(question, own, random):
        keys = {"model": "m", "question": question, "circuit": "c", "task": "t", "ci_low": 0.0, "ci_high": 0.0}
        sets = [("circuit", own), *(("control", value) for value in random)]
        return [keys | {"set": name, "value": value} for name, value in sets]

    table = pd.DataFrame(rows("sufficiency", 3.0, [1, 2, 3, 4]) + rows("necessity", 0.5, [1, 2, 3, 4]))
    sufficiency, necessity = summarise(table)
    assert (sufficiency["place"], necessity["place"]) == (2.5 / 4, 0)
    assert (sufficiency["p"], necessity["p"]) == ((1 + 2) / (1 + 4), 1 / 5)
    assert (sufficiency["controls"], sufficiency["control_median"]) == (4, 2.5)
