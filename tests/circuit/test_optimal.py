"""Optimal ablation: costs against hooks, gradients against differences, constants against closed forms and means.

Costs are sums of float32 logarithms: two ways to compute one differ by 1e-6 nats at most, in float64 by the 1e-7 to
which stored constants are float32.
"""

from dataclasses import replace

import pytest
import torch

from atlas.circuit import remade
from atlas.circuit.ablation import Ablator
from atlas.circuit.optimal import STARTS, Costs, fitted
from atlas.circuit.replacement import replacement
from atlas.core.components import Component, all_components
from atlas.core.errors import StudyError
from atlas.edges.engine import EdgeAblator, engine_of, graph_of, with_embeddings
from atlas.model import activations, models
from atlas.proof import exact
from random_models import FAMILIES, load_random, random_prompts

TOLERANCE = 2e-6


def means_of(model, prompts):
    runs = {"corrupted": prompts.corrupted_tokens, "clean": prompts.tokens}
    return {run: activations.collect(model, tokens, prompts.group)[1] for run, tokens in runs.items()}


class Case:
    """A model, prompts and what was fitted on them."""

    def __init__(self, model, prompts):
        self.model, self.prompts, self.means = model, prompts, means_of(model, prompts)
        self.means["optimal"] = self.fit = fitted(model, prompts, self.means)

    def ablator(self, kind, prompts=None, use_engine=False):
        prompts = prompts or self.prompts
        substitute = replacement(kind, self.model, prompts, self.means)
        return Ablator(self.model, prompts, substitute, ("logit_diff", "kl"), use_engine=use_engine)


@pytest.fixture(scope="module")
def two_heads(tmp_path_factory):
    fixture = exact.two_heads("gpt2")
    folder = fixture.build(tmp_path_factory.mktemp("two_heads"))
    return Case(models.load(folder, device="cpu"), fixture.prompts())


FIRST, *REST = FAMILIES  # a fit takes seconds
SLOW = [pytest.param(getattr(family, "values", [family])[0], marks=pytest.mark.slow) for family in REST]


@pytest.fixture(scope="module", params=[FIRST, *SLOW])
def random_case(request, tmp_path_factory):
    """A random model in float64, which runs two prompts at a time, with prompts in two groups of means."""
    return Case(load_random(request.param, tmp_path_factory.mktemp("random") / "model"), random_prompts())


def kl(ablator, component):
    return ablator.scores(ablator.everything - {component})["kl"].mean()


def test_costs_are_those_of_hooks_and_no_start_is_cheaper(random_case):
    """Also that the constants are in use: what replaces a component is what was fitted for it, group by group."""
    fit = random_case.fit["costs"]
    tolerance = max(random_case.model.tolerance, 1e-5)  # constants and means are float32, costs of order 1
    for kind in ("optimal", *STARTS):
        ablator = random_case.ablator(kind)
        for component in all_components(random_case.model.n_layers, random_case.model.n_heads):
            own = fit[kind][component.layer, component.head]
            assert kl(ablator, component) == pytest.approx(own.item(), abs=tolerance), (kind, component)
    assert (torch.stack([fit[start] for start in STARTS]).amin(0) - fit["optimal"]).min() >= 0
    gain = fit["mean"] / fit["optimal"]
    assert gain.median() > 1.5, "on models whose components matter it is worth something"


def test_the_embeddings_cost_what_ablating_all_their_edges_does(random_case):
    model, prompts = random_case.model, random_case.prompts
    graph, costs = graph_of(engine_of(model).weights), random_case.fit["embed_costs"]
    substitute = with_embeddings(replacement("optimal", model, prompts, random_case.means), "optimal", model, prompts)
    ablator = EdgeAblator(model, graph, prompts, substitute, ("kl",))
    left = frozenset(edge for edge in graph.edges if edge.sender != "embed")
    found = ablator.scores(left)["kl"].mean()
    assert found == pytest.approx(costs["optimal"].item(), abs=max(model.tolerance, 1e-5))
    assert costs["optimal"] <= min(costs[start] for start in STARTS)


def test_gradients_are_those_of_finite_differences(random_case):
    """Central differences in float64, extrapolated from two steps: their error is of order step**4; where a norm
    computes in float32 the step is larger, and rounding of 1e-7 over it is what is left."""
    exact_norms = random_case.model.tolerance < 1e-8
    step, tolerance = (1e-4, 1e-6) if exact_norms else (1e-2, 1e-3)
    costs, rng = Costs(random_case.model, random_case.prompts), torch.Generator().manual_seed(0)
    for layer in range(random_case.model.n_layers):
        for name, head, put in costs.components(layer):
            start = random_case.means["corrupted"][name][layer]
            x = (start if head < 0 else start[:, :, head]).double().clone().requires_grad_(True)
            costs.of(put, layer + 1, x)
            direction = torch.randn(x.shape, generator=rng, dtype=torch.float64)
            with torch.no_grad():
                at = {k: costs.of(put, layer + 1, x + k * step * direction).item() for k in (-2, -1, 1, 2)}
            slope = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * step)
            assert (x.grad * direction).sum().item() == pytest.approx(slope, abs=tolerance, rel=1e-3), (layer, head)
        if layer < random_case.model.n_layers - 1:
            costs.advance(layer)


def test_a_constant_that_writes_the_logits_gives_the_mean_prediction(two_heads):
    """2.2 alone writes what the unembedding reads. With a constant there every prompt has the same logits, and of one
    prediction q for all prompts the mean KL is smallest where q is the mean of their predictions p."""
    everything, last = two_heads.ablator("optimal").everything, Component(2, 2)
    p = two_heads.ablator("optimal").logits(everything).double().softmax(-1)
    q = two_heads.ablator("optimal").logits(everything - {last}).double().softmax(-1)
    mean = p.mean(0, keepdim=True)
    assert (q - mean).abs().max() < 1e-4, "L-BFGS ends where the cost, flat to second order there, no longer falls"
    cost = (p * (p.log() - mean.log())).sum(-1).mean().item()
    assert two_heads.fit["costs"]["optimal"][2, 2] == pytest.approx(cost, abs=TOLERANCE)
    assert two_heads.fit["costs"]["mean"][2, 2] > cost + 0.4


def test_components_that_do_nothing_keep_their_means(two_heads):
    """Without a slope there is nothing to follow."""
    idle = [Component(0, 0), Component(1), Component(2, 1)]
    for c in idle:
        name, head = ("mlp_out", slice(None)) if c.is_mlp else ("z", c.head)
        own, mean = (x[name][c.layer] for x in (two_heads.fit, two_heads.means["corrupted"]))
        assert torch.equal(own if c.is_mlp else own[:, :, head], mean if c.is_mlp else mean[:, :, head])


def test_interlock_has_a_better_constant_that_no_slope_leads_to(tmp_path_factory):
    """docs/fixtures.md: half of every member in place of 1.1 keeps m2 silent; the fit stays at the mean."""
    fixture = exact.interlock("gpt2")
    case = Case(models.load(fixture.build(tmp_path_factory.mktemp("interlock")), device="cpu"), fixture.prompts())
    lone = case.ablator("optimal").everything - {Component(1, 1)}
    assert case.ablator("optimal").percent_of_full(lone) == pytest.approx(0, abs=1e-3)
    half = case.fit["z"].clone()
    half[1, :, :, 1] = 4 * case.means["corrupted"]["z"][1, :, :, 1]  # of which each member is an eighth
    case.means["optimal"] = case.fit | {"z": half}
    assert case.ablator("optimal").percent_of_full(lone) == pytest.approx(100, abs=1e-3)


def test_fitting_again_gives_the_same_bits(two_heads):
    again = fitted(two_heads.model, two_heads.prompts, two_heads.means)
    assert all(torch.equal(two_heads.fit[name], again[name]) for name in ("z", "mlp_out", "embed"))


def test_resampled_prompts_get_constants_of_their_own(two_heads):
    prompts = two_heads.prompts
    cache = {"prompt": torch.tensor(prompts.prompt)}
    for run, tokens in (("clean", prompts.tokens), ("corrupted", prompts.corrupted_tokens)):
        cache[run] = activations.collect(two_heads.model, tokens)[0]
    means = two_heads.means | {"groups": ["all"]}
    (drawn,) = remade.bootstraps(two_heads.model, prompts, means, cache, "optimal", 1, seed=0)
    own = fitted(two_heads.model, drawn.prompts, means_of(two_heads.model, drawn.prompts))
    assert (drawn.substitute.z - own["z"]).abs().max() < 1e-3, "the two fits start from means that differ by 1e-7"
    assert (drawn.substitute.z - two_heads.fit["z"]).abs().max() > 0.1


@pytest.mark.slow
def test_layouts_have_constants_of_their_own_and_padding_keeps_its_means(tmp_path_factory):
    """Two layouts, of 5 and of 7 tokens: each prompt is scored at its own end, and nothing looks behind it."""
    model, both = load_random("gpt2", tmp_path_factory.mktemp("random") / "model"), random_prompts()
    prompts = replace(both, position=torch.where(both.group == 0, 4, 6))
    rows = prompts.rows()
    means = rows.sizes_of_means()
    for run, tokens in (("clean", rows.tokens), ("corrupted", rows.corrupted_tokens)):
        means[run] = activations.collect(model, tokens, rows.group, lengths=rows.length)[1]
    means["optimal"] = fit = fitted(model, prompts, means)
    assert not fit["mlp_out"][:, 0, 5:].any(), "means of no rows are 0"
    ablator = Ablator(model, prompts, replacement("optimal", model, prompts, means), ("kl",), use_engine=False)
    for component in all_components(model.n_layers, model.n_heads)[::3]:
        own = fit["costs"]["optimal"][component.layer, component.head]
        assert kl(ablator, component) == pytest.approx(own.item(), abs=1e-5)


def test_what_cannot_be_fitted_is_refused(two_heads):
    without = replace(two_heads.model, weights=None)
    with pytest.raises(StudyError, match="optimal: this architecture has no live engine"):
        fitted(without, two_heads.prompts, two_heads.means)
    means = {key: value for key, value in two_heads.means.items() if key != "optimal"}
    with pytest.raises(StudyError, match=r"optimal: its constants were not fitted; name it in scores.kinds"):
        replacement("optimal", two_heads.model, two_heads.prompts, means)
