"""Orders of edges, against hand computation and naive loops, and what holds of them for any scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.core.graph import LOGITS, Edge, Graph
from atlas.core.statistics import Bootstrap
from atlas.edges import ensembles
from atlas.edges.rankings import greedy, ranked

GRAPHS = [Graph(2, 2, 2), Graph(2, 4, 2), Graph(2, 2, 1, parallel=True), Graph(1, 1, 1)]


def edge(name):
    return Edge.parse(name)


def test_an_order_is_signed_or_absolute_as_named():
    a, b, c = (Edge("embed", name) for name in ("m0", "m1", "logits"))
    scores, graph = {a: 3.0, b: -2.0, c: 0.5}, Graph(2, 2, 2)
    assert ranked(scores, "signed", graph) == [b, c, a], "what helps most comes first"
    assert ranked(scores, "absolute", graph) == [a, b, c]
    with pytest.raises(KeyError):
        ranked(scores, "both", graph)


# ---- greedy --------------------------------------------------------------------------------------------------
def test_greedy_waits_for_what_an_edge_ends_in():
    """One layer of two heads: the largest score of all leads into 0.1, which the weak edge 0.1->logits connects."""
    graph = Graph(1, 2, 2)
    scores = dict.fromkeys(graph.edges, 0.0)
    scores |= {edge("embed->0.1.v"): 9.0, edge("0.1->m0"): -5.0, edge("m0->logits"): 2.0, edge("embed->m0"): 3.0}
    scores |= {edge("0.0->logits"): 1.0, edge("embed->0.0.q"): 0.5, edge("embed->logits"): -1.0}
    expected = ["m0->logits", "0.1->m0", "embed->0.1.v", "embed->m0", "embed->logits", "0.0->logits", "embed->0.0.q"]
    order = ranked(scores, "greedy", graph)
    assert [str(e) for e in order[:7]] == expected, "of equal sizes the first of the graph, embed->logits"
    assert set(order) == set(graph.edges) and len(order) == len(graph.edges)
    zero = [e for e in graph.edges if scores[e] == 0]
    assert order[7:] == zero, "all is connected by then, so these keep the order of the graph"


def test_a_shared_key_is_connected_by_either_of_its_heads_and_its_query_by_its_own_alone():
    graph = Graph(1, 2, 1)
    scores = dict.fromkeys(graph.edges, 0.0)
    scores |= {edge("0.1->logits"): 1.0, edge("embed->0.kv0.k"): 5.0, edge("embed->0.0.q"): 7.0}
    scores |= {edge("embed->0.1.q"): 2.0, edge("0.0->logits"): 0.5}
    expected = ["0.1->logits", "embed->0.kv0.k", "embed->0.1.q", "0.0->logits", "embed->0.0.q"]
    assert [str(e) for e in greedy(scores, graph)[:5]] == expected


def test_edges_that_no_others_lead_on_from_come_last():
    graph = Graph(1, 2, 2)
    scores = {edge("embed->0.0.q"): 1.0, edge("embed->0.1.q"): -3.0, edge("embed->logits"): 0.1}
    assert [str(e) for e in greedy(scores, graph)] == ["embed->logits", "embed->0.1.q", "embed->0.0.q"]


def naive_greedy(scores, graph):
    """Every edge tried at every step: one is connected if `Graph.live` keeps it beside those taken."""
    order, left = [], list(scores)
    while left:
        ready = [e for e in left if e in graph.live([*order, e])]
        order.append(max(ready or left, key=lambda e: abs(scores[e])))  # the first of equal ones
        left.remove(order[-1])
    return order


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(GRAPHS), st.integers(0, 10**6), st.booleans(), st.booleans())
def test_greedy_is_a_naive_loop_over_all_edges_and_every_beginning_is_connected(graph, seed, ties, part):
    rng = np.random.default_rng(seed)
    edges = [graph.edges[i] for i in rng.permutation(len(graph.edges))]
    if part:  # as where path patching scored some edges alone
        edges = [e for e in edges if rng.random() < 0.5]
    values = rng.integers(-2, 3, len(edges)) if ties else rng.normal(size=len(edges))
    scores = dict(zip(edges, map(float, values), strict=True))
    order = greedy(scores, graph)
    assert order == naive_greedy(scores, graph) and sorted(order) == sorted(edges)
    live = set(graph.live(edges))
    if not part:
        assert live == set(edges)
    for count in range(1, len(live) + 1):
        assert set(graph.live(order[:count])) == set(order[:count])
    assert not live & set(order[len(live) :])
    assert not order or order[0].receiver == LOGITS or not live


# ---- ensembles -----------------------------------------------------------------------------------------------
def test_the_mean_of_ranks_by_hand():
    first, second = np.array([5.0, 1.0, 0.0, 0.0]), np.array([1.0, 9.0, 0.0, 2.0])
    # ranks from the least: 3 2 .5 .5 and 1 3 0 2
    assert ensembles.mean_of_ranks([first, second]).tolist() == [2.0, 2.5, 0.25, 1.25]


def test_importance_is_by_sign_or_by_size():
    scores = np.array([-2.0, 3.0, 0.0])
    assert ensembles.importance(scores, "signed").tolist() == [2, -3, 0]
    assert ensembles.importance(scores, "absolute").tolist() == [2, 3, 0]
    with pytest.raises(KeyError):
        ensembles.importance(scores, "greedy")


def test_the_best_leave_out_equal_ones_that_the_number_would_divide():
    values = np.array([[3.0, 1.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    assert ensembles.best(values, 1).tolist() == [[True, False, False, False], [False] * 4]
    assert ensembles.best(values, 2).tolist() == [[True, False, False, False], [False] * 4]
    assert ensembles.best(values, 3).tolist() == [[True, False, True, True], [False] * 4]
    assert ensembles.best(values, 4).all() and ensembles.best(values, 9).all()
    with pytest.raises(ValueError, match="count is 0; give at least 1"):
        ensembles.best(values, 0)


def order_of(importance):
    return sorted(range(len(importance)), key=lambda i: -importance[i])


def test_one_method_proposes_and_another_refines():
    proposes, refines = np.array([9.0, 8.0, 7.0, 1.0, 0.0, 0.0]), np.array([1.0, 1.0, 5.0, 99.0, 99.0, 3.0])
    found = ensembles.sequential(proposes, refines, 3)
    assert order_of(found) == [2, 0, 1, 3, 4, 5], "0 and 1 are equal to the second, so the first decides"
    assert found[4] == found[5] == found.min(), "the second has no say in those not proposed"
    assert order_of(ensembles.sequential(proposes, refines, 5))[:4] == [3, 2, 0, 1], "4 and 5 would be divided"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 14))
def test_sequential_is_a_sort_of_each_part_and_no_order_of_edges_matters(seed, count):
    rng = np.random.default_rng(seed)
    proposes, refines = rng.integers(-3, 4, (2, 12)).astype(float)
    found, mixing = ensembles.sequential(proposes, refines, count), rng.permutation(12)
    ahead = [i for i in range(12) if (proposes >= proposes[i]).sum() <= count]
    ahead.sort(key=lambda i: (-refines[i], -proposes[i]))
    rest = sorted((i for i in range(12) if i not in ahead), key=lambda i: -proposes[i])
    assert order_of(found) == ahead + rest
    assert (ensembles.sequential(proposes[mixing], refines[mixing], count) == found[mixing]).all()


def test_consistent_edges_keep_sign_and_place_on_resamples():
    """Of eight prompts: 0 is the same on all; 1 hangs on one prompt, without which it is 0; 2 changes its sign with the
    prompts drawn; 3 is small on all, and beyond the two best wherever 1 or 2 is large."""
    scores = np.zeros((8, 5))
    scores[:, 0], scores[0, 1], scores[:, 3] = -4.0, 8.0, 0.05
    scores[:, 2] = [3, -3, 3, -3, 3, -3, 3, -2.5]
    bootstrap = Bootstrap(400, 0)
    assert ensembles.consistent(scores, 2, bootstrap).tolist() == [True, False, False, False, False]
    assert ensembles.consistent(scores, 4, bootstrap).tolist() == [True, False, False, True, False]
    assert order_of(ensembles.consistent_first(scores, 4, bootstrap)) == [0, 3, 1, 2, 4]
    assert ensembles.consistent(scores, 5, bootstrap, kept=0.5).tolist() == [True, True, True, True, False]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_consistency_is_a_loop_over_resamples(seed, count):
    rng = np.random.default_rng(seed)
    scores, bootstrap = rng.normal(rng.normal(0, 1, 6), 1, (7, 6)), Bootstrap(60, seed)
    times = np.zeros(6)
    for weights in bootstrap.weights(7):
        means = (weights[:, None] * scores).sum(0)
        for i in range(6):
            placed = sum(abs(means[j]) >= abs(means[i]) for j in range(6)) <= count
            times[i] += placed and means[i] * scores[:, i].mean() > 0
    for kept in (0.5, 0.95):
        assert ensembles.consistent(scores, count, bootstrap, kept).tolist() == [t >= kept * 60 for t in times]


def test_resamples_in_parts_are_those_at_once(monkeypatch):
    scores, bootstrap = np.random.default_rng(0).normal(0.3, 1, (9, 20)), Bootstrap(50, 0)
    at_once = ensembles.consistent(scores, 8, bootstrap, 0.6)
    monkeypatch.setattr(ensembles, "NUMBERS", 60)
    assert (ensembles.consistent(scores, 8, bootstrap, 0.6) == at_once).all() and 0 < at_once.sum() < 20


def test_a_share_of_edges_that_help_by_hand():
    scores = np.array([-1.0, -5.0, 9.0, 0.0, 2.0, -3.0, -4.0, 3.0])
    # helps: 1 6 5 0; harms: 2 7 4. Of 1, 2, ... edges round(3/4 n) = 1 2 2 3 4 help, then what is left
    assert order_of(ensembles.mixed(scores, 0.75)) == [1, 6, 2, 5, 0, 7, 4, 3]
    assert order_of(ensembles.mixed(scores, 1.0)) == [1, 6, 5, 0, 2, 7, 4, 3]
    assert order_of(ensembles.mixed(scores, 0.0)) == [2, 7, 4, 1, 6, 5, 0, 3]
    assert order_of(ensembles.mixed(scores, 0.5)) == [1, 2, 6, 7, 5, 4, 0, 3]
    with pytest.raises(ValueError, match=r"helping is 1.5; give a share from 0 to 1"):
        ensembles.mixed(scores, 1.5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_the_share_holds_for_every_size_while_both_signs_last(seed, helping):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-4, 5, 30).astype(float)
    importance = ensembles.mixed(scores, helping)
    order = order_of(importance)
    for count in range(1, 31):
        signs = np.sign(scores[order[:count]])
        both = all((scores * sign > 0).sum() > (signs == sign).sum() for sign in (-1, 1))
        if both:
            assert (signs == -1).sum() == np.floor(count * helping + 0.5) and not (signs == 0).any()
    for sign in (-1, 1):
        sizes = [abs(scores[i]) for i in order if scores[i] * sign > 0]
        assert sizes == sorted(sizes, reverse=True)
    zeros = scores == 0
    assert (importance[zeros] == 0).all() and (importance[~zeros] > 0).all()
