"""The annealed search: always above the floor, within its budget, and on small models as small as any circuit is."""

import itertools
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.circuit.ablation import Ablator
from atlas.circuit.annealing import annealed_search
from atlas.circuit.orders import run
from atlas.circuit.search import Rule, by_layers, jumps, node_search
from atlas.core.components import Component, all_components
from atlas.proof import certify, exact

FAST = ("interlock", "mean")  # the others each take a second more
NAMES, KINDS = ("interlock", "cancelling", "backup", "leak", "inhibitory"), ("mean", "zero", "resample")
REST = [both for both in itertools.product(NAMES, KINDS) if both != FAST]


@st.composite
def landscapes(draw):
    """A score of its own for every circuit, whatever it contains."""
    everything = frozenset(all_components(draw(st.integers(1, 3)), draw(st.integers(1, 3))))
    scores, random = {everything: 100.0}, Random(draw(st.integers(0, 10**6)))
    return everything, lambda kept: scores.setdefault(kept, random.uniform(0, 140))


def steps_of(everything, rule, score, seed):
    return list(annealed_search(everything, rule, lambda circuits: [score(c) for c in circuits], seed))


@given(landscapes(), st.integers(1, 300), st.integers(0, 5), st.floats(1, 99), st.sampled_from([None, 15.0]))
@settings(max_examples=25)
def test_no_circuit_is_below_the_floor_and_the_budget_holds(landscape, evaluations, seed, threshold, tolerance):
    everything, score = landscape
    rule = Rule(threshold, relative_tolerance=tolerance, evaluations=evaluations)
    steps = steps_of(everything, rule, score, seed)
    assert 0 < len(steps) <= evaluations
    kept, sizes = everything, [len(everything)]
    for step in steps:
        assert step.left == everything or 100 - score(step.left) < threshold, "also of what was the smallest on the way"
        sizes.append(len(step.left))
        if step.sweep < steps[-1].sweep or step.direction == "annealed":
            moved = (kept - set(step.components)) | set(step.returned)
            if step.direction == "annealed":
                assert score(moved) == step.percent
                assert not set(step.returned) & kept and set(step.components) <= kept
            if step.removed:
                assert 100 - step.percent < threshold
                kept = moved
    assert sizes == sorted(sizes, reverse=True)
    assert steps == steps_of(everything, rule, score, seed), "one seed, one search"
    plain = list(node_search(everything, rule, by_layers(rule), lambda circuits: [score(c) for c in circuits]))
    if len(plain) <= evaluations:
        assert len(steps[-1].left) <= len(plain[-1].left) and steps[: len(plain)] == plain


@given(landscapes(), st.floats(1, 99))
@settings(max_examples=10)
def test_what_is_protected_stays_and_in_the_end_nothing_more_can_go(landscape, threshold):
    everything, score = landscape
    first = min(everything)
    rule = Rule(threshold, never_test=frozenset({first}), visit={"backward": ("head",), "forward": ("head",)})
    steps = steps_of(everything, rule, score, 0)
    left = steps[-1].left if steps else everything
    assert first in left and {c for c in everything if c.is_mlp} <= left
    if steps:
        assert all(100 - score(left - {c}) >= threshold for c in left if not c.is_mlp and c != first)


def test_it_finds_the_smallest_circuit_of_a_game_that_defeats_the_layers():
    """0.0 needs either 0.1 and 0.2, or 1.1 alone. Backward sweeps drop what the last layer has first."""
    everything = frozenset(all_components(2, 3))
    three, two = (frozenset(map(Component.parse, names.split())) for names in ("0.0 0.1 0.2", "0.0 1.1"))

    def score(kept):
        return 90.0 if three <= kept or two <= kept else 0.0

    rule = Rule(20, evaluations=300)
    plain = list(node_search(everything, rule, by_layers(rule), lambda circuits: [score(c) for c in circuits]))
    assert plain[-1].left == three
    assert [steps_of(everything, rule, score, seed)[-1].left for seed in range(5)] == [two] * 5


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    made = {}

    def ablator(name, kind):
        fixture = getattr(exact, name)("gpt2")
        if name not in made:
            made[name] = certify.make_ablators(fixture.build(tmp_path_factory.mktemp(name)), fixture.prompts())
        shared = made[name][kind]
        return fixture, Ablator(shared.model, shared.prompts, shared.substitute)

    return ablator


@pytest.mark.parametrize("name, kind", [FAST, *(pytest.param(*both, marks=pytest.mark.slow) for both in REST)])
def test_on_planted_models_it_equals_brute_force(planted, name, kind):
    """All circuits smaller than the result fall to the floor, and it is one of those foreseen."""
    fixture, ablator = planted(name, kind)
    found, asked = certify.search("annealed", ablator, 20.0)
    assert asked <= certify.EVALUATIONS and ablator.percent_of_full(found) > 80
    every = sorted(ablator.everything)
    smaller = (frozenset(some) for size in range(len(found)) for some in itertools.combinations(every, size))
    assert not any(ablator.percent_of_full(circuit) > 80 for circuit in smaller)
    assert found in fixture.returns("annealed", kind)


def test_orders_are_told_by_their_names():
    assert jumps("annealed_3") and not jumps("random_3") and not jumps("layers")
    everything = frozenset(all_components(1, 2))
    steps = list(run("annealed_1", 1, Rule(20, evaluations=50), everything, lambda cs: [100.0 for _ in cs], {}))
    assert steps[-1].left == frozenset()
