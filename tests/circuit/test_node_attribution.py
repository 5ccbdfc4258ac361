"""Components scored by gradients: against derivatives of ablations by TransformerLens hooks, and the edges out of them.

On random models in float64. A derivative is a central difference of a share of an ablation, whose own error is of
second order in the share. Norms that round to float32 leave 1e-7 of their size, divided by the share.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from atlas.circuit import attributed, attribution, node_methods
from atlas.circuit.ablation import Ablator
from atlas.circuit.attribution import Settings, function_of
from atlas.circuit.node_circuits import alone_of, search_all
from atlas.circuit.replacement import Replacement, embeddings
from atlas.circuit.search import SearchSettings
from atlas.core.components import Component
from atlas.core.errors import StudyError
from atlas.core.metrics import PAD
from atlas.core.statistics import Bootstrap
from atlas.edges import attribution as edge_attribution
from atlas.edges.engine import EdgeAblator, graph_of, with_embeddings
from atlas.model import activations
from atlas.prompts.batch import Prompts
from conftest import ROOT
from random_models import COMPONENTS, TOLERANCE, VOCAB, N, S, load_random, random_prompts, substitute

SLOW = [pytest.param(f, marks=pytest.mark.slow) for f in ("neox", "neox sequential", "gemma2", "gemma3", "olmo2")]
SOME = [Component(0, 1), Component(1), Component(2)]


@pytest.fixture(scope="module", params=["gpt2", "llama", *SLOW])
def model(request, tmp_path_factory):
    return load_random(request.param, tmp_path_factory.mktemp("random") / "model")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return load_random("gpt2", tmp_path_factory.mktemp("random") / "model")


def several_tokens() -> Prompts:
    """Answers of one to three tokens, in prompts of different lengths."""
    prompts, rng = random_prompts(), torch.Generator().manual_seed(3)
    answer, incorrect = (torch.randint(1, VOCAB, (N, 3), generator=rng) for _ in range(2))
    answer[0, 1:] = answer[3, 2:] = incorrect[2, 1:] = PAD
    cut = replace(prompts, tokens=prompts.tokens[:, : S - 2], corrupted_tokens=prompts.corrupted_tokens[:, : S - 2])
    return replace(cut, answer=answer, incorrect=incorrect)


PROMPTS = {"one token": random_prompts, "several tokens": several_tokens}


def derivative(model, prompts, ablated: Replacement, component, share=1e-4):
    """[N] of the logit difference in the direction of the component's ablation, by hooks on both sides of the clean
    run."""
    rows = prompts.rows()
    clean, _ = activations.collect(model, rows.tokens, dtype=torch.float64)
    sides = []
    for sign in (1, -1):
        moved = {name: x + sign * share * (getattr(ablated, name)[:, ablated.rows] - x) for name, x in clean.items()}
        near = Replacement(moved["z"], moved["mlp_out"], torch.arange(len(rows)))
        hooks = Ablator(model, prompts, near, use_engine=False)
        sides.append(hooks.logit_diff(hooks.everything - {component}))
    return (sides[0] - sides[1]) / (2 * share)


@pytest.mark.parametrize("made", PROMPTS)
def test_atp_is_the_derivative_of_ablating_the_component(model, made):
    prompts = PROMPTS[made]()
    ablated = substitute(torch.arange(len(prompts.rows())))
    found = function_of("atp")(Ablator(model, prompts, ablated), Settings())
    assert set(found) == set(COMPONENTS)
    tolerance = 1e-5 if model.tolerance < 1e-6 else 1e-2
    for component in SOME:
        expected = derivative(model, prompts, ablated, component)
        assert np.abs(found[component] - expected).max() < tolerance * max(1, np.abs(expected).max()), str(component)
    assert max(np.abs(found[c]).max() for c in SOME) > 0.1


@pytest.mark.parametrize("kind", ["mean", "zero", "resample"])
def test_a_component_scores_what_the_edges_out_of_it_score_together(model, kind):
    """Edges are tested against forward passes with every edge written out (tests/edges/test_relp.py)."""
    prompts, points = random_prompts(), 3
    ablated = substitute(torch.arange(len(prompts.rows())))
    ablator = Ablator(model, prompts, ablated)
    edges = EdgeAblator(model, graph_of(model.weights), prompts, with_embeddings(ablated, kind, model, prompts))
    for method, options in (("atp", {}), ("relp", {"relevance": True}), ("ig", {"points": points})):
        found = function_of(method)(ablator, Settings(kind, points))
        by_edge = edge_attribution.scores(edges, **options)
        for component in COMPONENTS:
            out = sum(score for edge, score in by_edge.items() if edge.sender == str(component))
            assert np.abs(found[component] - out.numpy()).max() < 20 * model.tolerance, (method, str(component))


def test_an_mlps_score_is_by_the_gradient_at_what_it_writes(gpt2):
    """Ablating it in the direction of its own write alone tells the two apart: the gradient at what it reads has that
    of every later reader of the residual in it."""
    prompts = random_prompts()
    ablator = Ablator(gpt2, prompts, substitute(torch.arange(len(prompts.rows()))))
    of_last = Component(2)
    clean, _ = activations.collect(gpt2, prompts.tokens, dtype=torch.float64)
    change = ablator.substitute.mlp_out[2, ablator.substitute.rows] - clean["mlp_out"][2]
    weights = gpt2.weights
    x = attribution.Batch(ablator, weights, slice(None)).forward(weights.embed(prompts.tokens))[0].detach()
    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(weights.logit_diff(x[:, -1], prompts.answer, prompts.incorrect).sum(), x)
    found = function_of("atp")(ablator, Settings())[of_last]
    assert np.abs(found - (change * gradient).sum((1, 2)).detach().numpy()).max() < 1e-9


@pytest.mark.parametrize("method", node_methods.METHODS)
@pytest.mark.parametrize("made", PROMPTS)
def test_scores_do_not_depend_on_how_prompts_fall_into_batches(gpt2, method, made):
    prompts, found = PROMPTS[made](), []
    for size in (1, 2, 3, 64):
        ablator = Ablator(replace(gpt2, batch_size=size), prompts, substitute(torch.arange(len(prompts.rows()))))
        found.append(function_of(method)(ablator, Settings("mean", 2)))
    for component in COMPONENTS:
        for other in found[1:]:
            assert np.abs(other[component] - found[0][component]).max() < 1e-12


def test_embeddings_of_padding_enter_no_mean(gpt2):
    rows = several_tokens().rows()
    assert rows.length is not None
    found = embeddings("mean", gpt2, rows)
    embedded = gpt2.weights.embed(rows.corrupted_tokens)
    for row, group in enumerate(rows.group.tolist()):
        for position in range(int(rows.length[row])):
            there = (rows.group == group) & (rows.length > position)
            assert (found[row, position] - embedded[there, position].mean(0)).abs().max() < 1e-12
    with pytest.raises(ValueError, match="unknown ablation kind"):
        embeddings("half", gpt2, rows)


# ---- what is done with them ----------------------------------------------------------------------------------
def test_an_order_by_attribution_tries_what_it_thinks_least_of_first(gpt2):
    prompts = random_prompts()
    ablator = Ablator(gpt2, prompts, substitute(torch.arange(len(prompts.rows()))))
    settings = SearchSettings(None, [], {"backward": ["head", "mlp"], "forward": ["head", "mlp"]}, 1, points=2)
    orders = dict.fromkeys(("ascending_effect", "ascending_atp", "ascending_relp", "ascending_ig"))
    trace, circuits, _ = search_all(
        "t", {"search": ablator}, orders, [20.0], settings, Bootstrap(20, 0), allow_negative_clean=True
    )
    assert [entry["order"] for entry in circuits] == list(orders)
    first = {
        name: rows.component.head(len(COMPONENTS)).tolist() for name, rows in trace[trace.sweep == 1].groupby("order")
    }
    for name, tried in first.items():
        method = node_methods.of_order(name)
        if method is None:
            continue
        scored = function_of(method)(ablator, Settings("mean", 2))
        assert tried == [str(c) for c in sorted(scored, key=lambda c: abs(scored[c].mean()))], name
    assert len({tuple(tried) for tried in first.values()}) > 2, "they differ"
    assert alone_of(ablator, "layers", Settings()) == {}


def test_an_order_by_attribution_needs_the_engine(gpt2):
    prompts = random_prompts()
    hooks = Ablator(gpt2, prompts, substitute(torch.arange(len(prompts.rows()))), use_engine=False)
    with pytest.raises(StudyError, match=r"search.orders: attribution needs the live engine.*ascending_effect"):
        alone_of(hooks, "ascending_atp", Settings())


def test_tables_hold_scores_and_how_near_they_come(gpt2, caplog):
    prompts, methods = random_prompts(), list(node_methods.METHODS)
    ablators = [("mean", Ablator(gpt2, prompts, substitute(torch.arange(len(prompts.rows())))))]
    tables = attributed.every_kind(ablators, ["logit_diff"], methods, 2, Bootstrap(50, 0))
    scores, accuracy, effects = tables["attribution"], tables["accuracy"], tables["effects"]
    assert list(scores.columns) == list(attributed.SCORE_COLUMNS)
    assert list(accuracy.columns) == list(attributed.ACCURACY_COLUMNS)
    assert len(scores) == len(methods) * len(COMPONENTS) and (scores.ci_low <= scores.value).all()
    effects = effects[effects.metric == "logit_diff"].set_index("component")
    for method in methods:
        own = scores[scores.method == method].set_index("component").value
        for group, names in (("heads", [str(c) for c in COMPONENTS if not c.is_mlp]), ("MLPs", ["m0", "m1", "m2"])):
            exact = effects.value[names] - effects.clean[names]
            rows = accuracy[(accuracy.method == method) & (accuracy.group == group)].set_index("metric")
            assert rows.value["pearson"] == pytest.approx(exact.corr(own[names]), abs=1e-9)
            assert rows.value["spearman"] == pytest.approx(exact.rank().corr(own[names].rank()), abs=1e-9)
            assert rows.value["error"] == pytest.approx((own[names] - exact).abs().sum() / exact.abs().sum(), abs=1e-9)
            assert (rows.ci_low <= rows.ci_high).all() and (rows.members == len(names)).all()
    none = attributed.every_kind(ablators, ["logit_diff"], [], 2, Bootstrap(50, 0))
    assert none["attribution"].empty and list(none["accuracy"].columns) == list(accuracy.columns)
    pd.testing.assert_frame_equal(none["scores"], tables["scores"])
    hooks = [("mean", Ablator(gpt2, prompts, substitute(torch.arange(len(prompts.rows()))), use_engine=False))]
    assert attributed.every_kind(hooks, ["logit_diff"], methods, 2, Bootstrap(50, 0))["attribution"].empty
    assert "no attribution of components" in caplog.text


def test_the_schema_names_an_order_for_every_method():
    schema = yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text())
    orders = schema["properties"]["search"]["properties"]["orders"]["items"]["then"]["enum"]
    assert {name for name in orders if node_methods.of_order(name)} == {
        f"{node_methods.ASCENDING}{method}" for method in node_methods.METHODS
    }


def test_passes_are_counted():
    from atlas.edges.methods import METHODS

    known = {name: method for name, method in METHODS.items() if method.passes != node_methods.SETTLED}
    assert set(METHODS) - set(known) == {"edge_gates"}
    counted = {name: node_methods.gradient_passes(method.passes, 5, 16) for name, method in known.items()}
    assert counted == {"path_patching": 0, "acdc": 0, "iterative_edges": 0} | {
        "eap": 1,
        "eap_ig": 5,
        "eap_ig_activations": 80,
        "relp": 1,
    }
    assert [node_methods.gradient_passes(m.passes, 5, 16) for m in node_methods.METHODS.values()] == [1, 1, 5]
    assert set(TOLERANCE) >= {"gpt2", "llama"}
