"""Learned gates: exact at 0 and 1, differentiable, seeded, and above the floor in the end."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from atlas.circuit import gates as learned_gates
from atlas.circuit.ablation import Ablator
from atlas.circuit.concrete import BETA, HIGH, LOW, drawn, open_chance
from atlas.circuit.gates import Gated, Gates, Learned, gates_search
from atlas.circuit.search import Rule
from atlas.core.components import Component, all_components
from atlas.core.errors import StudyError
from atlas.proof import certify, exact
from random_models import COMPONENTS, FAMILIES, ROWS, H, L, load_random, random_prompts, substitute

FIRST, *REST = FAMILIES
SLOW = [pytest.param(getattr(family, "values", [family])[0], marks=pytest.mark.slow) for family in REST]
TOLERANCE = 1e-4  # of logits of order 10 in float32 norms; float64 is far below it


@pytest.fixture(scope="module", params=[FIRST, *SLOW])
def model(request, tmp_path_factory):
    return load_random(request.param, tmp_path_factory.mktemp("random") / "model")


@pytest.fixture(params=ROWS)
def ablator(request, model):
    return Ablator(model, random_prompts(), substitute(ROWS[request.param]), ("logit_diff", "kl"), use_engine=False)


def of_circuit(circuit):
    gates = torch.zeros(L, H + 1)
    for c in circuit:
        gates[c.layer, c.head] = 1
    return gates


def test_gates_that_are_open_or_shut_are_the_circuit_by_hooks(model, ablator):
    """Also of each prompt its own."""
    gated, rng, rows = Gated(ablator), np.random.default_rng(0), torch.arange(len(ablator.prompts))
    circuits = [frozenset(), frozenset(COMPONENTS)]
    circuits += [frozenset(c for c in COMPONENTS if rng.random() < 0.6) for _ in range(3)]
    for circuit in circuits:
        found = gated.log_p(gated.final(of_circuit(circuit), rows))
        expected = ablator.logits(circuit).log_softmax(-1)
        assert (found - expected).abs().max() < max(model.tolerance, 1e-9) * 10, sorted(circuit)
        assert gated.kl(of_circuit(circuit), rows).numpy() == pytest.approx(
            ablator.scores(circuit)["kl"], abs=TOLERANCE
        )
    each = torch.stack([of_circuit(circuits[i % len(circuits)]) for i in rows.tolist()])
    together = gated.final(each, rows)
    for i in rows.tolist():
        alone = gated.final(each[i], rows[i : i + 1])
        assert (together[i] - alone[0]).abs().max() < TOLERANCE


def test_gradients_by_gates_are_those_of_finite_differences(model):
    """Central differences: their error is of order step**2; float32 norms add rounding of 1e-6 over the step."""
    ablator = Ablator(model, random_prompts(), substitute(ROWS["groups"]))
    gated, rows = Gated(ablator), torch.arange(len(ablator.prompts))
    step, tolerance = (1e-5, 1e-6) if model.tolerance < 1e-8 else (1e-2, 3e-3)
    at = torch.full((L, H + 1), 0.4, dtype=torch.float64, requires_grad=True)
    gated.kl(at, rows).mean().backward()
    for layer, head in [(0, 0), (0, -1), (1, 2), (2, 3), (2, -1)]:
        values = []
        for sign in (1, -1):
            moved = at.detach().clone()
            moved[layer, head] += sign * step
            values.append(gated.kl(moved, rows).mean().item())
        assert at.grad[layer, head].item() == pytest.approx(
            (values[0] - values[1]) / (2 * step), abs=tolerance, rel=1e-3
        )


def test_attributions_add_up_to_the_whole_effect(model):
    """The gradient along the straight way from all shut to all open integrates to M(full) - M(empty)."""
    ablator = Ablator(model, random_prompts(), substitute(ROWS["groups"]))
    full, empty = (ablator.logit_diff(circuit).mean() for circuit in (ablator.everything, frozenset()))
    learned_gates.POINTS, before = 100, learned_gates.POINTS
    try:
        total = Gated(ablator).attributions().sum().item()
    finally:
        learned_gates.POINTS = before
    assert total == pytest.approx(full - empty, abs=2e-2 * max(1, abs(full - empty)))


def test_hard_concrete_gates_are_shut_as_often_as_their_formula_says():
    """Against the distribution written out: with u uniform, s = sigmoid((log(u / (1 - u)) + log alpha) / beta)."""
    log_alpha = torch.tensor([-3.0, -1.0, 0.0, 2.0])
    uniform = torch.linspace(0.5e-5, 1 - 0.5e-5, 100_000)[:, None].expand(-1, 4)
    found = drawn(log_alpha, uniform)
    for i, alpha in enumerate(log_alpha.exp().tolist()):
        u = uniform[:, 0].double()
        s = 1 / (1 + ((1 - u) / u / alpha) ** (1 / BETA))
        assert (found[:, i] - (s * (HIGH - LOW) + LOW).clamp(0, 1)).abs().max() < 1e-4
    assert (found > 0).float().mean(0) == pytest.approx(open_chance(log_alpha), abs=1e-3)
    assert found.min() == 0 and found.max() == 1


class Told:
    """Gates that learned what a test says."""

    def __init__(self, everything, *learned):
        self.movable, self.learned = sorted(everything), learned

    def path(self):
        return iter(self.learned)


def test_open_gates_are_shut_down_to_the_floor_and_opened_up_to_it():
    everything = frozenset(all_components(1, 3))
    a, b, c, m = sorted(everything, key=lambda x: (x.is_mlp, x))
    worth = {a: 50, b: 30, c: 10, m: 10}

    def percents(circuits):
        return [float(sum(worth[x] for x in circuit)) for circuit in circuits]

    def circuits_of(*learned, threshold=25):
        return list(gates_search(everything, Rule(threshold), percents, Told(everything, *learned)))

    steps = circuits_of(Learned(0.1, [a, b, c, m], 4))
    assert [step.percent for step in steps] == [100, 90, 80, 50] and steps[-1].left == {a, b}
    assert [step.removed for step in steps] == [True, True, True, False] and steps[-1].penalty == 0.1
    steps = circuits_of(Learned(0.1, [a, b, c, m], 1))
    assert [step.percent for step in steps] == [50, 80] and steps[-1].left == {a, b}
    steps = circuits_of(Learned(0.1, [a, m, b, c], 4), Learned(0.2, [a, b, m, c], 1), Learned(0.3, [b, a, c, m], 1))
    assert steps[-1].left == {a, b} and steps[-1].penalty == 0.2, "the third is not asked for"
    assert all(step.left == everything or percents([step.left])[0] > 75 for step in steps)
    steps = circuits_of(Learned(0.1, [a, m, b, c], 4), threshold=5)
    assert steps[-1].left == everything and steps[-1].penalty is None, "nothing smaller was found"


@pytest.fixture(scope="module")
def two_heads(tmp_path_factory):
    fixture = exact.two_heads("gpt2")
    return fixture, certify.make_ablators(fixture.build(tmp_path_factory.mktemp("two")), fixture.prompts())["mean"]


@pytest.mark.slow
def test_it_finds_what_is_planted_alike_for_one_seed(two_heads, monkeypatch):
    monkeypatch.setattr(learned_gates, "PENALTIES", (1e-2, 1e-1))
    fixture, ablator = two_heads
    found, _ = certify.search("gates", ablator, 20.0)
    assert found == fixture.nodes["mean"]
    rule = Rule(20, never_test=frozenset({Component(1, 0)}))
    both = [Gates(ablator, rule, 3) for _ in range(2)]
    paths = [list(gates.path()) for gates in both]
    assert paths[0] == paths[1] and torch.equal(both[0].learner.log_alpha, both[1].learner.log_alpha)
    assert list(both[0].path()) == paths[0], "learned once"
    assert all(Component(1, 0) not in learned.ranked for learned in paths[0])
    (steps,) = [list(gates_search(ablator.everything, rule, ablator.percents_of_full, both[0]))]
    assert Component(1, 0) in steps[-1].left and fixture.nodes["mean"] <= steps[-1].left


def test_what_has_no_gradients_is_refused(two_heads):
    _, ablator = two_heads
    without = Ablator(replace(ablator.model, weights=None), ablator.prompts, ablator.substitute)
    with pytest.raises(StudyError, match=r"search.orders: gates need an architecture with a live engine"):
        Gated(without)
