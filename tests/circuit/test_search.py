"""The node search's decision logic: replay of published searches, and its invariants on synthetic scores."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.circuit.search import (
    Rule,
    SearchSettings,
    bisect_search,
    by_chance,
    by_effect,
    by_layers,
    node_search,
    survival,
    tried_at_once,
)
from atlas.circuit.speculation import Speculation
from atlas.core.components import Component, Site, all_components, to_json

# name in gpt2_pruning_trajectories.json -> (circuit of record, kept untested, kinds visited forwards)
PUBLISHED = {
    "numerals": ("numerals", [], ("head", "mlp")),
    "numwords": ("numwords", [], ("head", "mlp")),
    "months_json_circuit": ("months", [], ("head", "mlp")),
    "months_with_MLP11": ("months_keep_mlp11", ["m11"], ("head",)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_percents_give_the_published_circuits(shared, name):
    """Fed with the percents of four published searches, the logic visits the same components and ends alike."""
    record, never_test, forward = PUBLISHED[name]
    trajectory = json.loads((shared / "published" / "gpt2_pruning_trajectories.json").read_text())[name]
    circuit = json.loads((shared / "published" / "gpt2_circuits.json").read_text())["circuits"][record]
    rule = Rule(
        threshold=20,
        never_test=frozenset(map(Component.parse, never_test)),
        visit={"backward": ("mlp", "head"), "forward": forward},
    )
    published = iter(trajectory)

    def percents(circuits):
        return [next(published)[2] for _ in circuits]

    steps = list(node_search(frozenset(all_components(12, 12)), rule, by_layers(rule), percents))
    asked = [str(s.components[0]) for s in steps]
    assert asked == [row[1].replace("MLP", "m") for row in trajectory], "in the published order"
    assert [s.removed for s in steps] == [removed for *_, removed in trajectory]
    assert next(published, None) is None, "every published evaluation was asked for"
    assert to_json(steps[-1].left) == {
        "heads": sorted(circuit["heads"], key=lambda n: tuple(map(int, n.split(".")))),
        "mlps": [f"m{layer}" for layer in circuit["mlps"]],
    }


@st.composite
def games(draw):
    """Additive scores: each component is worth some percent; removing it loses that much."""
    layers, n_heads = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    worth = {c: draw(st.floats(-10, 40)) for c in all_components(layers, n_heads)}
    return worth, draw(st.floats(1, 99))


ORDERS = {
    "layers": lambda rule, alone: by_layers(rule),
    "ascending_effect": by_effect,
    "random": lambda rule, alone: by_chance(rule, 3),
}


@pytest.mark.parametrize("order", ORDERS)
@given(games())
@settings(max_examples=40)
def test_a_circuit_stays_above_the_floor_and_nothing_more_can_go(order, game):
    worth, threshold = game
    everything = frozenset(worth)

    def score(kept):
        return 100 - sum(worth[c] for c in everything - kept)

    rule = Rule(threshold=threshold)
    visit = ORDERS[order](rule, {c: 100 - w for c, w in worth.items()})
    steps = list(node_search(everything, rule, visit, lambda circuits: [score(c) for c in circuits]))
    circuit = steps[-1].left
    if circuit != everything:
        assert 100 - score(circuit) < threshold
    assert all(100 - score(circuit - {c}) >= threshold for c in circuit), "a sweep that changes nothing tested each one"
    removed = [s.components[0] for s in steps if s.removed]
    assert len(removed) == len(set(removed)) and frozenset(removed) == everything - circuit
    for a, b in itertools.pairwise(steps):
        assert b.left <= a.left and b.sweep in (a.sweep, a.sweep + 1)


@pytest.mark.parametrize("order", ORDERS)
@given(games(), st.integers(2, 6), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_speculation_changes_nothing(order, game, batch, random):
    """With scores that are not monotone: each circuit has its own, whatever it contains."""
    worth, threshold = game
    everything, known = frozenset(worth), {}

    def percents(circuits):
        return [known.setdefault(c, random.uniform(0, 140)) for c in circuits]

    rule = Rule(threshold=threshold, relative_tolerance=random.choice([None, 10]))
    visit = ORDERS[order](rule, {c: 100 - w for c, w in worth.items()})
    plain = list(node_search(everything, rule, visit, percents))
    assert list(node_search(everything, rule, visit, percents, batch)) == plain


@given(games())
@settings(max_examples=60)
def test_bisection_ends_where_nothing_more_can_go(game):
    """On additive scores its circuit obeys the same rule; each removal is evaluated on what is then left."""
    worth, threshold = game
    everything, asked = frozenset(worth), {}

    def percents(circuits):
        asked.update((c, 100 - sum(worth[x] for x in everything - c)) for c in circuits)
        return [asked[c] for c in circuits]

    rule = Rule(threshold=threshold)
    steps = list(bisect_search(everything, rule, by_layers(rule), percents))
    circuit = steps[-1].left
    assert circuit == everything or 100 - asked[circuit] < threshold, "the circuit was evaluated as a whole"
    for c in circuit:
        (percent,) = percents([circuit - {c}])
        assert 100 - percent >= threshold


def test_bisection_takes_few_evaluations_where_little_matters():
    """3 of 1,056 components matter: a few dozen evaluations instead of more than a thousand."""
    everything = frozenset(all_components(32, 32))
    needed = {Component(3, 7), Component(20, 1), Component(31)}
    rule, calls = Rule(threshold=20), []

    def percents(circuits):
        calls.extend(circuits)
        return [100.0 if needed <= c else 0.0 for c in circuits]

    steps = list(bisect_search(everything, rule, by_layers(rule), percents))
    assert steps[-1].left == needed and len(calls) < 100
    assert list(node_search(everything, rule, by_layers(rule), percents))[-1].left == needed


def test_the_floor_is_strict():
    """The study's rule is 100 - percent < T: at exactly 80 percent with T = 20 the component stays."""
    assert not Rule(threshold=20).allows(80.0, 100.0)
    assert Rule(threshold=20).allows(80.0001, 100.0)


def test_scores_above_the_full_model_give_slack():
    values = {1: 120.0, 0: 95.0}  # without the MLP, then without the head too; 25 points lost at once
    rule = Rule(threshold=20)
    steps = node_search(frozenset(all_components(1, 1)), rule, by_layers(rule), lambda cs: [values[len(c)] for c in cs])
    assert all(s.removed for s in steps)


def test_relative_tolerance_limits_one_removal():
    rule = Rule(threshold=50, relative_tolerance=5)
    assert rule.allows(96, 100) and not rule.allows(94, 100) and rule.allows(62, 66) and not rule.allows(49, 50)


def test_components_that_are_never_tested_stay():
    everything, m0 = frozenset(all_components(2, 2)), Component(0)
    rule = Rule(threshold=20, never_test=frozenset({m0}))
    steps = list(node_search(everything, rule, by_layers(rule), lambda cs: [100.0] * len(cs)))
    assert m0 not in {s.components[0] for s in steps} and steps[-1].left == {m0}


def test_orders():
    everything = frozenset(all_components(2, 2))
    rule = Rule(threshold=20)
    names = [str(c) for c in by_layers(rule)(1, "backward", everything)]
    assert names == ["m1", "1.0", "1.1", "m0", "0.0", "0.1"]
    assert [str(c) for c in by_layers(rule)(2, "forward", everything)] == ["0.0", "0.1", "m0", "1.0", "1.1", "m1"]
    alone = dict(zip(sorted(everything), (90, 120, 99, 100, 50, 98), strict=True))
    assert [alone[c] for c in by_effect(rule, alone)(1, "backward", everything)] == [100, 99, 98, 90, 120, 50]
    first, again = (by_chance(rule, 1)(1, "backward", everything) for _ in range(2))
    assert first == again and sorted(first) == sorted(everything)
    assert by_chance(rule, 1)(2, "forward", everything) != first


def test_survival():
    a, b, c = all_components(1, 2)
    assert survival([frozenset({a, b}), frozenset({a, c})]) == {a: 1.0, b: 0.5, c: 0.5}


@pytest.mark.parametrize("distance", [0.0, 5e-5, -5e-5, 2e-4, -2e-4])
def test_decisions_that_rounding_could_flip_are_marked(distance):
    """1e-4 percentage points, 1e-6 of the full score, on either side of the floor and of the relative tolerance."""
    everything = frozenset(all_components(1, 2))
    rule = Rule(threshold=20)
    (step, *_) = node_search(everything, rule, by_layers(rule), lambda circuits: [80 + distance for _ in circuits])
    assert step.close == (abs(distance) < 1e-4) and step.removed == (distance > 0)
    rule = Rule(threshold=50, relative_tolerance=5)
    (step, *_) = node_search(everything, rule, by_layers(rule), lambda circuits: [95 + distance for _ in circuits])
    assert step.close == (abs(distance) < 1e-4) and step.removed == (distance >= 0)


# ---- the rule that a configuration says ----------------------------------------------------------------------
def test_the_keys_of_search_make_the_rule():
    rule = SearchSettings(0.5, ["m1", "0.1"], {"backward": ["head"], "forward": ["mlp", "head"]}, "auto").rule(20)
    assert (rule.threshold, rule.relative_tolerance) == (20, 0.5)
    assert rule.never_test == {Component(1), Component(0, 1)}
    assert rule.visit == {"backward": ("head",), "forward": ("mlp", "head")}


@pytest.mark.parametrize("search", [node_search, bisect_search])
def test_the_rule_holds_for_sites_as_for_components(search):
    """Every site of a component that is never tested stays; kinds that are not visited stay; each loss is bounded."""
    everything = frozenset(Site(*c, role) for c in all_components(2, 2) for role in ("last", "members"))

    def percents(circuits):
        return [100.0 - len(everything - circuit) for circuit in circuits]  # a percentage point for each site that goes

    def left(**keys):
        keys = {"relative_tolerance": None, "never_test": [], "visit": ALL, "batch": 1} | keys
        rule = SearchSettings(**keys).rule(50)
        return list(search(everything, rule, by_layers(rule), percents))[-1].left

    assert left() == frozenset()
    assert left(never_test=["0.1"]) == {site for site in everything if site.component == Component(0, 1)}
    assert left(visit={"backward": ["head"], "forward": ["head"]}) == {site for site in everything if site.is_mlp}
    assert left(relative_tolerance=0.5) == everything


ALL = {"backward": ["mlp", "head"], "forward": ["head", "mlp"]}


def test_candidates_tried_at_once():
    assert tried_at_once("auto", "cpu", int) == 1, "nothing on a CPU depends on a clock"
    assert all(isinstance(tried_at_once("auto", device, int), Speculation) for device in ("cuda", "mps"))
    assert tried_at_once(4, "cpu", int) == tried_at_once(4, "cuda", int) == 4
