"""Overlap, its chance correction, and random controls."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.components import Component, all_components, heads, profile
from atlas.controls import matched_sets, p_value
from atlas.overlap import COLUMNS, compare, hypergeometric, jaccard, layer_matched, overlap_coefficient, tail


@given(st.integers(1, 7), st.data())
@settings(max_examples=20, deadline=None)
def test_hypergeometric_equals_enumeration(population, data):
    a, b = data.draw(st.integers(0, population)), data.draw(st.integers(0, population))
    counts = np.zeros(min(a, b) + 1)
    for drawn in combinations(range(population), b):
        counts[sum(x < a for x in drawn)] += 1
    assert hypergeometric(population, a, b) == pytest.approx(counts / counts.sum())


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
@settings(max_examples=100, deadline=None)
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
